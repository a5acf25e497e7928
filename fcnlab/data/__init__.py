"""Images and labels: one file a dataset, and the table of them. Nothing here knows of YAML."""
