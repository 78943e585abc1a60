"""From a data set to checked cubes of channels."""
