"""A package outside st-cdgm: one part of each kind, chosen by configuration alone."""
