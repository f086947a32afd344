"""Two heads, of images and of expression, that are trained against each other; shared by methods."""
