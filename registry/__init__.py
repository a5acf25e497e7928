"""The built-in registry as YAML files; `fcnlab.config.registry` reads them through `importlib.resources`."""
