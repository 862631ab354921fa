"""Versions of this package and of those it stands on, as results name them."""

from __future__ import annotations

from importlib import metadata


def installed_version(package: str) -> str:
    """The installed version, or "not installed": this package also runs from a checkout that is on the path."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
