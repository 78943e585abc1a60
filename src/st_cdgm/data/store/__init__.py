"""A prepared task on disk, as Zarr stores or shards."""
