"""Failures of the storage and the environment of a lab, and what fcnlab makes of them."""
