"""Deterministic fine fields to which the model adds a residual."""
