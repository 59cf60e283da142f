"""The checks of one model, in order."""

from __future__ import annotations


def verify() -> None:
    """."""
