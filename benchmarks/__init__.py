"""Benchmarks of fcnlab, which run from a checkout."""
