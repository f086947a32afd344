"""Ray and MLflow: the only package that imports them. It distributes work and contains no science."""
