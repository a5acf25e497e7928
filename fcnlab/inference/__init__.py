"""Trained models: loading, prediction of image files, export to other formats."""
