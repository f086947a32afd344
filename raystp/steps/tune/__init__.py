"""Step `tune`: a train config + a search space -> trials and the best config."""
