"""Packaged configurations; `base` stands for the default values of the schema."""
