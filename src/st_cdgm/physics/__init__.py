"""What must hold between fields: areal means, winds on the sphere."""
