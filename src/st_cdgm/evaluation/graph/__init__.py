"""The learned graph as a matrix, edges and files."""
