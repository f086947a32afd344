"""Step `publish`: a trained model [+ its index] -> one folder that others predict with."""
