"""Datasets, their cache of decoded samples, augmentation and training batches."""
