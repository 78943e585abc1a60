"""Grids: coordinates, cells, blocks, gradients on the sphere."""
