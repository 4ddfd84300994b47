"""Which runs the experiments consist of, in order of importance, and what all of them share."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

SEEDS = (1, 2, 3)
UPDATES = 4000
LONG = 8700  # updates of E-F in the time of UPDATES of E-F-H, by the first two seeds
BATCH = 10
# Learning rates, see tuning.md: tuned for the E-F arm on `mixed`, and the best of both arms on stationary points
RATES = {"mixed": 0.03, "all": 0.03, "stationary": 0.03}
# Scale of the energies: that of the forces; stationary points have none, and a model scaled by 0.001 eV hardly learns
FORCES_RMS = "${training_data_stats:forces_rms}"
SCALES: dict[str, float | str] = {"mixed": FORCES_RMS, "all": FORCES_RMS, "stationary": 1.0}
HESSIAN_SHARE = 0.01  # of the loss, beside 10 for energy and 1 for forces; tuned afterwards
LOSSES = {
    "E": {"_target_": "nequip.train.EnergyOnlyLoss"},
    "E-F": {"_target_": "nequip.train.EnergyForceLoss", "coeffs": {"total_energy": 10.0, "forces": 1.0}},
    "E-F-H": {
        "_target_": "nequip_hessian.train.EnergyForceHessianLoss",
        "coeffs": {"total_energy": 10.0, "forces": 1.0, "hessian": HESSIAN_SHARE},
    },
}
# Ways to supervise the Hessian (experiment `estimators`): hessian: of the data section
ESTIMATORS: dict[str, dict[str, Any]] = {
    "random 1": {"mode": "random", "k": 1},
    "random 2": {"mode": "random", "k": 2},
    "random 4": {"mode": "random", "k": 4},
    "random 8": {"mode": "random", "k": 8},
    "sphere 1": {"mode": "random", "k": 1, "distribution": "sphere"},
    "columns 1": {"mode": "columns", "k": 1},
    "columns 4": {"mode": "columns", "k": 4},
    "modes 3": {"mode": "modes", "k": 3},
    "fraction 0.5": {"mode": "random", "k": 1, "probe_fraction": 0.5},
    "fraction 0.25": {"mode": "random", "k": 1, "probe_fraction": 0.25},
    "every 4": {"mode": "random", "k": 1},
    "every 4 compensated": {"mode": "random", "k": 1},
    "finite difference": {"mode": "random", "k": 1, "method": "finite_difference"},
    "taylor 0.05": {"method": "taylor", "displacement": 0.05},
    "full": {"mode": "full"},
}
EVERY = {
    "every 4": {"_target_": "nequip_hessian.train.HessianEveryNSteps", "n": 4},
    "every 4 compensated": {"_target_": "nequip_hessian.train.HessianEveryNSteps", "n": 4, "compensate": True},
}


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        arm: `E`, `E-F`, `E-F-H` (one random probe a geometry and step), `E-F-H full` (the whole matrix), `E-F long` (as
            many updates as take the time of E-F-H) or one of ESTIMATORS
        data: `stationary` points only, `mixed` with off-equilibrium energies and forces, or `all` with the Hessians of
            those, too
        fraction: 1/fraction of the training reactions, or `few`
        seed: of weights, batches and probes
        model: `nequip` or `allegro`
    """

    arm: str
    data: str
    fraction: int | str
    seed: int
    model: str = "nequip"
    batch: int = BATCH
    updates: int = UPDATES
    features: int = 32

    @property
    def name(self) -> str:
        """File name of its result."""
        parts = [self.model, self.data, str(self.fraction), self.arm.replace(" ", "-"), f"seed{self.seed}"]
        parts += [] if self.updates == UPDATES or self.fraction == "few" else [f"updates{self.updates}"]
        return "_".join(parts)

    @property
    def scheme(self) -> str:
        """Split scheme of train.zarr; of the data set itself for `all`."""
        return "reaction_all" if self.data == "all" else f"{self.data}-{self.fraction}"

    @property
    def settings(self) -> dict[str, float | str]:
        """Overrides of train.yaml that were tuned."""
        return {
            "training_module.optimizer.lr": RATES[self.data],
            "training_module.model.per_type_energy_scales": SCALES[self.data],
        }

    @property
    def hessian(self) -> dict[str, Any] | None:
        """Probes."""
        name = {"E-F-H": "random 1", "E-F-H full": "full"}.get(self.arm, self.arm)
        return ESTIMATORS.get(name)

    @property
    def loss(self) -> dict[str, Any]:
        """Loss of the arm. Taylor labels are energies and forces."""
        if self.arm in ESTIMATORS:
            return LOSSES["E-F" if self.arm.startswith("taylor") else "E-F-H"]
        return LOSSES[self.arm.removesuffix(" full").removesuffix(" long")]

    @property
    def callbacks(self) -> list[dict[str, Any]]:
        """Callbacks beside the checkpoints."""
        return [EVERY[self.arm]] if self.arm in EVERY else []

    @property
    def searches_paths(self) -> bool:
        """Whether bands are searched with it, which costs several times a training: all seeds of the fair comparison,
        one of the published; not with E, whose forces were never trained.
        """
        compared = self.fraction == 1 and self.model == "nequip" and self.arm in ("E-F", "E-F-H")
        compared = compared and (self.updates == UPDATES or self.data == "all")
        return compared and (self.data == "mixed" or self.seed == SEEDS[0])

    def as_dict(self) -> dict[str, Any]:
        """Return the fields."""
        return asdict(self)


def seed_table() -> list[Run]:
    """The table first (one seed after the other), then the ends of data efficiency, the other architecture,
    the full matrix, the sizes in between and E-F for the time of E-F-H.
    """
    runs = [Run(arm, data, 1, seed) for seed in SEEDS for data in ("mixed", "stationary") for arm in LOSSES]
    pair = ("E-F", "E-F-H")
    runs += [Run(arm, "mixed", 16, seed) for seed in SEEDS for arm in pair]
    runs += [Run(arm, "mixed", 1, 1, model="allegro") for arm in pair]
    runs += [Run(arm, "stationary", "few", 1, batch=5, updates=1000) for arm in ("E-F", "E-F-H", "E-F-H full")]
    runs += [Run(arm, "mixed", fraction, 1) for fraction in (4, 2, 8) for arm in pair]
    runs += [Run("E-F long", "mixed", 1, 1, updates=LONG)]
    return runs


def estimators() -> list[Run]:
    """Every way to supervise, for the same number of updates on the same stationary points."""
    return [Run(arm, "stationary", 1, 1, updates=1000) for arm in ("E-F", *ESTIMATORS)]


def release() -> list[Run]:
    """The model to use: larger, longer, and with all Hessians of the training reactions."""
    return [Run("E-F-H", "all", 1, 1, updates=12000, features=64)]


PLANS = {"seed-table": seed_table, "estimators": estimators, "release": release}
