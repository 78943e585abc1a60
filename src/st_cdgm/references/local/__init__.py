"""Regressions that every fine cell has for itself, and what they see."""
