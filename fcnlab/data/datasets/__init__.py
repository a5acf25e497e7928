"""Datasets: base classes, built-in types, labels and fingerprints."""
