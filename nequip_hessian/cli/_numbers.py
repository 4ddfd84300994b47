"""Numbers of a command line, refused before anything runs."""

from __future__ import annotations

import argparse


def positive(text: str) -> float:
    """Read a number above zero from the command line, so that another one is told before the calculation."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, found {text!r}")
    return value


def whole(text: str) -> int:
    """Read a whole number of 1 or more from the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of 1 or more, found {text!r}")
    return int(text)
