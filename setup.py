"""Map the four part folders onto the `prunus` namespace; everything else is in pyproject.toml."""

from setuptools import find_packages, setup

PARTS = ("runtime", "models", "export", "apps")
packages = [f"prunus.{name}" for part in PARTS for name in (part, *(f"{part}.{sub}" for sub in find_packages(part)))]

setup(packages=packages, package_dir={f"prunus.{part}": part for part in PARTS})
