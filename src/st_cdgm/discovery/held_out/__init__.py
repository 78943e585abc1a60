"""Held-out losses with and without each source, from regressions in closed form."""
