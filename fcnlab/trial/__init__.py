"""One trial: build, fit, evaluate, record."""
