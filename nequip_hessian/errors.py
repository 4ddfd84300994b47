"""The one error tree of the package.

Every message says what was expected, what was found, where (file, line or
geometry index) and what to do. Command-line tools print these errors as one
line; anything else that escapes is a bug of ours.
"""

from __future__ import annotations


class HessianDataError(ValueError):
    """Something a user handed in cannot be used as it is."""


class RecordError(HessianDataError):
    """The arrays of one labelled geometry do not fit together."""


class FormatError(HessianDataError):
    """A file is damaged, of another format, or holds a calculation that failed."""


class NoHessianError(FormatError):
    """A file is sound but holds no complete Cartesian Hessian."""


class PhysicsError(HessianDataError):
    """A Hessian contradicts an exact identity or the frequencies printed beside it."""


class StoreError(HessianDataError):
    """A Hessian store is missing, unfinished, of another version or not conformant."""


class StoreWriteError(StoreError):
    """The disk refuses: full, read-only or gone; no fault of what was to be written."""


class EngineError(HessianDataError):
    """A label engine is not installed, does not fit the geometry, or did not converge."""


class ModelError(HessianDataError):
    """A calculator that was handed in raised while it calculated; the message has its own words."""


class ConfigError(HessianDataError):
    """An option of a training or evaluation set-up cannot be honoured."""


class OptionError(ConfigError):
    """A value of an option, or a combination of options, that would be wrong whatever the data are.

    The command line ends with status 2 for it, as for an option that does not exist, and with 1 for all others.
    """


class DivergedError(HessianDataError):
    """A training went to NaN or infinity; the message names the geometry where it did."""


class MissingExtraError(HessianDataError, ImportError):
    """An optional dependency is needed; the message names the extra to install."""


class HessianDataWarning(UserWarning):
    """Data that can be used, but that the user should know something about."""


def reason_of(exc: Exception) -> str:
    """What a table or message says of an exception, in one line: our own words alone, others with their type."""
    text = (str(exc).strip().splitlines() or [""])[0]
    return text if text and isinstance(exc, HessianDataError) else f"{type(exc).__name__}: {text}".rstrip(": ")
