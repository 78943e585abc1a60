"""Ridge regressions of every fine cell on the weather of two days."""
