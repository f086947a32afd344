"""Training of any method: batches, samples, bags, the loop, and the inputs and result of a method's `setup`."""
