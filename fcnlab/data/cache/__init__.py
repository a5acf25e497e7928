"""Cache of decoded samples: file format, building and maintenance."""
