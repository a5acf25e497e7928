"""Checks of the trials of a plan before anything runs."""
