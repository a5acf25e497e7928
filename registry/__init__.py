"""The built-in catalogue: YAML only, read by `fcnlab.config.registry` through `importlib.resources`."""
