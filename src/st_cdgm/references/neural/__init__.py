"""Neural opponents: one task, one training loop and one way of pooling for all."""
