"""Random streams for training probes: other ones by worker, rank and epoch, the same under the same seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch


class ProbeStream:
    """A generator that knows where it runs.

    In a dataloader worker it is seeded from the worker's own seed, which PyTorch derives from the
    dataloader's generator anew in each epoch, and from the rank. Without workers it is one stream
    whose state a datamodule keeps in its checkpoint; ranks other than 0, whose state is in no
    checkpoint, begin a stream of their own in each epoch, so that a restart repeats it.

    Args:
        seed: seed of the data
    """

    def __init__(self, seed: int) -> None:
        self._seed = int(seed)
        self._key: tuple[int, ...] | None = None
        self._rng = np.random.default_rng(self._seed)
        self._epoch: Callable[[], int] | None = None

    def follow(self, epoch: Callable[[], int]) -> None:
        """Ask `epoch` for the number of the epoch from now on, in this process."""
        self._epoch = epoch

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_epoch": None}  # workers do without it, and it holds the trainer

    def rng(self) -> np.random.Generator:
        """Return the generator to draw from here and now."""
        key = self._where()
        if key != self._key:
            if self._key is not None or len(key) > 2:
                self._rng = np.random.default_rng(key)
            self._key = key
        return self._rng

    def _where(self) -> tuple[int, ...]:
        worker = torch.utils.data.get_worker_info()
        rank = torch.distributed.get_rank() if _distributed() else 0
        if worker is not None:
            return (self._seed % 2**32, rank, worker.seed % 2**63)
        if rank:
            return (self._seed % 2**32, rank, 0 if self._epoch is None else self._epoch())
        return (self._seed % 2**32, 0)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the stream of the main process."""
        return {"key": self._key, "rng": self._rng.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self._key = None if state["key"] is None else tuple(state["key"])
        self._rng.bit_generator.state = state["rng"]


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
