"""Scores, one module per family."""
