"""The data doctor: what a file holds and whether it can be trusted."""
