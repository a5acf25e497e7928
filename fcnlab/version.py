"""The version of fcnlab."""

__version__ = "0.1.0"
