"""What the tested graph supports: certificate, world model, counterfactuals."""
