"""Installations that broke because several distributions own one module: named, with the command that mends them."""

from __future__ import annotations

import importlib.metadata


def reinstall(module: str) -> str:
    """The pip command that mends an installation of ``module``, whatever distributions it came from."""
    owners = sorted(set(importlib.metadata.packages_distributions().get(module, [])))
    if len(owners) < 2:
        return f"pip install --force-reinstall {owners[0] if owners else module}"
    keep = next((o for o in owners if "gpu" in o or "headless" in o), owners[0])
    return f"pip uninstall -y {' '.join(owners)} && pip install {keep}   (several own the module {module!r})"
