"""The programme of a run, callable from the command line and from Python."""
