"""A directory that rebuilds a model."""
