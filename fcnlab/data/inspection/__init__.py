"""Inspection of datasets: checks, statistics and proposals for new datasets."""
