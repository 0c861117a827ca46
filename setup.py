"""Map the four part folders onto the `prunus` namespace; everything else is in pyproject.toml."""

from setuptools import find_packages, setup

PARTS = ("runtime", "models", "export", "apps")
packages = [f"prunus.{part}" for part in PARTS]
packages += [f"prunus.{part}.{sub}" for part in PARTS for sub in find_packages(part)]

setup(packages=packages, package_dir={f"prunus.{part}": part for part in PARTS})
