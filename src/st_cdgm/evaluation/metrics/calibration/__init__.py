"""Whether an ensemble is as unsure as it should be: in space, in time, together."""
