"""Cards of published encoders, one file per maker."""
