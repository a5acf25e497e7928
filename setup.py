"""Packages of the wheel: `fcnlab`, and the YAML files at the top of the repository as subpackages of it.

The registry and the experiments are at the top level, where people look for them. In the wheel they are
`fcnlab.registry` and `fcnlab.experiments`, so that no package of the general name `registry` is installed.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["fcnlab", "fcnlab.*"]), "fcnlab.registry", "fcnlab.experiments"],
    package_dir={"fcnlab.registry": "registry", "fcnlab.experiments": "experiments"},
)
