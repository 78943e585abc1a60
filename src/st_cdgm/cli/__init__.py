"""The command line: one file per verb, thin. The entry point is ``cli.main.main``."""
