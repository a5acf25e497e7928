"""Evaluation of trials: while they train, at their end, and again from saved weights."""
