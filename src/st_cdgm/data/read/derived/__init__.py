"""Predictors computed from others."""
