"""Metrics of a split: pixel counts of each class, and the IoU and accuracy that follow from them."""
