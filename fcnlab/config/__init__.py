"""Configuration without torch: typed models, the registry, grid files, trials and their keys."""
