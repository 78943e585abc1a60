"""Between physical fields and the space in which the model works."""
