"""The built-in catalogue: YAML only, read by `fcnlab.spec.catalog` through `importlib.resources`."""
