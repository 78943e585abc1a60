"""From climate files to batches."""
