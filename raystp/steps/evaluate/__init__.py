"""Step `evaluate`: predictions + measured spots or labels of cases -> scores and a report."""
