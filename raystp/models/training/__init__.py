"""Training, whatever the method: batches, samples, bags, the loop, and what a method's `setup` gets and returns."""
