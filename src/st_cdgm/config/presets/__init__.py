"""Packaged configurations: one YAML file each, built on the schema."""
