"""From a path or URL to an honest lazy data set."""
