"""What a validation found: messages that each name a rule, a place, what was expected and what was found."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Final

ERROR: Final = "error"
WARNING: Final = "warning"
MAX_MESSAGES: Final = 20
"""Messages kept of one rule; what comes after is counted."""

RULES: Final = {
    "HZ-1.1": (ERROR, "the store is a readable Zarr v3 group, a directory or a zip file"),
    "HZ-1.2": (ERROR, "the root registers the convention in zarr_conventions"),
    "HZ-1.3": (ERROR, "the format version is known"),
    "HZ-1.4": (ERROR, "the root attributes follow root.schema.json"),
    "HZ-1.5": (WARNING, "the store names its licence and levels of theory"),
    "HZ-1.6": (WARNING, "the store has a checksum of its metadata"),
    "HZ-2.1": (ERROR, "required arrays are there"),
    "HZ-2.2": (ERROR, "data types are those of the layout"),
    "HZ-2.3": (ERROR, "number of axes and fixed sizes are those of the layout"),
    "HZ-2.4": (ERROR, "array attributes (units, sign, order, categories, parts) are those of the layout"),
    "HZ-2.5": (ERROR, "sizes agree with each other and with the counts"),
    "HZ-2.6": (ERROR, "nothing unknown stands outside the group extra"),
    "HZ-2.7": (ERROR, "arrays that belong together are all there"),
    "HZ-2.8": (ERROR, "array and group metadata are readable Zarr v3"),
    "HZ-2.9": (ERROR, "checksums name exactly the arrays of the layout that are there"),
    "HZ-2.10": (ERROR, "the checksum of the metadata matches"),
    "HZ-2.11": (ERROR, "keys are relative paths without .., each once"),
    "HZ-3.1": (ERROR, "all chunks are there and can be read"),
    "HZ-3.2": (ERROR, "offsets begin with 0, never fall and end with the length of what they cut"),
    "HZ-3.3": (ERROR, "atomic numbers are 1 to 118"),
    "HZ-3.4": (ERROR, "positions, cells, dipole derivatives and frequencies are finite"),
    "HZ-3.5": (ERROR, "a Hessian has n(n+1)/2 elements, n = 3 x its atoms"),
    "HZ-3.6": (ERROR, "Hessians are finite"),
    "HZ-3.7": (ERROR, "codes are in their range"),
    "HZ-3.8": (ERROR, "groups are dense from 0"),
    "HZ-3.9": (ERROR, "a missing number is NaN, never infinite"),
    "HZ-3.10": (ERROR, "active atoms are strictly increasing indices within the geometry"),
    "HZ-3.11": (ERROR, "labels are UTF-8 without control characters"),
    "HZ-3.12": (ERROR, "checksums match"),
    "HZ-3.13": (ERROR, "products are whole and finite, probes have norm 1"),
    "HZ-3.14": (ERROR, "no two atoms are at one place"),
    "HZ-3.15": (ERROR, "a periodic geometry has a cell with a volume"),
    "HZ-3.16": (ERROR, "counts match"),
    "HZ-3.17": (ERROR, "masses are positive, multiplicities not negative"),
    "HZ-3.18": (ERROR, "dipole derivatives have 3N rows or none"),
    "HZ-3.19": (
        ERROR,
        "a phonon supercell is periodic and a whole number of unit cells, its primitive cell has a volume",
    ),
    "HZ-4.1": (WARNING, "the translational identity holds within 0.05 eV/angstrom^2"),
    "HZ-4.2": (ERROR, "the exact identities do not contradict Hessian, forces and positions"),
    "HZ-4.3": (WARNING, "the number of imaginary modes fits the kind"),
    "HZ-4.4": (ERROR, "geometries of one reaction have the same atoms in the same order"),
    "HZ-4.5": (ERROR, "no geometry stands in two parts of a split"),
    "HZ-4.6": (WARNING, "no group stands in train and in another part of a split"),
    "HZ-4.7": (ERROR, "stored products fit the identities and the Hessian"),
    "HZ-4.8": (WARNING, "printed frequencies are those of the Hessian"),
    "HZ-4.9": (WARNING, "forces of a stationary point are small"),
    "HZ-4.10": (WARNING, "the stiffest eigenvalue is that of a molecule"),
    "HZ-4.11": (WARNING, "no geometry of one part of a split is, but for rounding, in another"),
    "HZ-4.12": (WARNING, "dipole derivatives of a free molecule add to its charge"),
    "HZ-4.13": (WARNING, "Born charges of a periodic geometry add to zero"),
    "HZ-4.14": (WARNING, "dielectric tensors are symmetric and positive definite"),
}


@dataclass(frozen=True)
class Message:
    """One finding.

    Attributes:
        rule: its id, `HZ-<level>.<number>`
        severity: `error` or `warning`
        path: array, attribute or file
        geometry: index of the geometry, `None` where it is not about one
        expected, found: in words
    """

    rule: str
    severity: str
    path: str
    geometry: int | None
    expected: str
    found: str

    def __str__(self) -> str:
        where = f" geometry {self.geometry}" if self.geometry is not None else ""
        return f"{self.severity} {self.rule} {self.path or '/'}{where}: expected {self.expected}, found {self.found}"


@dataclass
class ValidationReport:
    """All findings on one store.

    Attributes:
        path: the store
        level: highest level asked for
        reached: highest level that was checked; a level with errors ends the validation
        messages: findings, at most MAX_MESSAGES of a rule
        counts: how often each rule was broken
    """

    path: str
    level: int
    reached: int = 0
    messages: list[Message] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, rule: str, path: str, expected: str, found: str, geometry: int | None = None) -> None:
        """Add a finding under a rule of RULES."""
        self.counts[rule] = self.counts.get(rule, 0) + 1
        if self.counts[rule] <= MAX_MESSAGES:
            self.messages.append(Message(rule, RULES[rule][0], path, geometry, expected, found))

    @property
    def errors(self) -> list[Message]:
        """The findings that make a store invalid."""
        return [message for message in self.messages if message.severity == ERROR]

    @property
    def valid(self) -> bool:
        """Whether no error was found."""
        return not self.errors

    def lines(self, most: int = 4) -> list[str]:
        """Return the findings as text: all errors, at most `most` warnings of a rule and how many more there are."""
        result, shown = [], dict.fromkeys(self.counts, 0)
        for message in self.messages:
            shown[message.rule] += 1
            if message.severity == ERROR or shown[message.rule] <= most:
                result.append(str(message))
            last = shown[message.rule] == min(self.counts[message.rule], MAX_MESSAGES)
            left = self.counts[message.rule] - most
            if last and message.severity != ERROR and left > 0:
                result.append(f"warning {message.rule}: and {left} more (--json lists up to {MAX_MESSAGES} of a rule)")
        return result

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON: `valid`, `message` and `rule` of the first error, all messages."""
        first = self.errors[0] if self.errors else None
        return {
            "valid": self.valid,
            "message": str(first) if first else "",
            "rule": first.rule if first else None,
            "path": self.path,
            "level": self.level,
            "reached": self.reached,
            "counts": self.counts,
            "messages": [asdict(message) for message in self.messages],
        }
