"""One downscaling task in memory: settings, days, windows, batches."""
