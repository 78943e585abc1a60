"""What is learned of the training days."""
