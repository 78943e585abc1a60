"""NetCDF files as tables and metadata."""
