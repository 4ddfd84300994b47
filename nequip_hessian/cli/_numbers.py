"""Numbers of a command line, refused before anything runs; argparse names the option in front of the message."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

from nequip_hessian.ranges import PRESSURE, TEMPERATURE


def number(
    *, above: float | None = None, least: float | None = None, most: float | None = None
) -> Callable[[str], float]:
    """Make the reader of a finite number in a range.

    Args:
        above: it has to be larger; least: it has to be this or larger; most: this or smaller
    """
    bounds = [f"above {above:g}"] if above is not None else []
    bounds += [f"of {least:g} or more"] if least is not None else []
    wanted = f"expected a number {' '.join(bounds)}" + (f", at most {most:g}" if most is not None else "")

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        low = (above is None or value > above) and (least is None or value >= least)
        if not (math.isfinite(value) and low and (most is None or value <= most)):
            raise argparse.ArgumentTypeError(f"{wanted}, found {text!r}")
        return value

    return read


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """Make the reader of a whole number of `least` or more, at most `most`."""
    wanted = f"expected a whole number of {least} or more" + (f", at most {most}" if most is not None else "")

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least or (most is not None and value > most):
            raise argparse.ArgumentTypeError(f"{wanted}, found {text!r}")
        return value

    return read


positive = number(above=0)
"""A finite number above zero."""

not_negative = number(least=0)
"""Zero or a finite number above it."""

whole = whole_number(1)
"""A whole number of 1 or more."""

seed = whole_number(0)
"""A seed of random numbers."""

temperature = number(least=TEMPERATURE[0], most=TEMPERATURE[1])
"""A temperature, K."""

pressure = number(least=PRESSURE[0], most=PRESSURE[1])
"""A pressure, bar."""
