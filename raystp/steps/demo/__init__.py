"""Step `demo`: draw a synthetic cohort and run all steps on it."""
