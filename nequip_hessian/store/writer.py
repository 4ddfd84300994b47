"""StoreWriter: labelled geometries in, one finished store out, or nothing at all.

What is not finished lies beside the target, in `<target>.unfinished`; the
target appears in one step when everything is in it. Memory holds one batch of
records, never the whole.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from nequip_hessian.errors import StoreError, StoreWriteError
from nequip_hessian.places import beside
from nequip_hessian.record import LabelledGeometry
from nequip_hessian.store.append import Appender
from nequip_hessian.store.attributes import (
    SCHEME,
    author_attributes,
    provenance_entry,
    same_provenance,
)
from nequip_hessian.store.build import Builder
from nequip_hessian.store.layout import FLOATS, VERSION, WRITTEN
from nequip_hessian.store.spool import Spool, discard
from nequip_hessian.store.target import Target


class StoreWriter:
    """Write a Hessian store; use it as a context manager.

    A clean exit finishes the store and puts it at `path` in one step; an exception leaves nothing
    at `path`. Killed in between, `<path>.unfinished` stays, and `resume=True` goes on from the last
    batch: `len(writer)` says how many geometries are there already.

    Args:
        path: the target, a directory (profile `publish`: a zip file)
        dtype: `float32` or `float64` for Hessian data and stored products; `None`: float64 unless all
            sources are float32. An explicit one is logged in the provenance
        profile: `local` (uncompressed, read by memory map), `remote` (shards, blosc-zstd, crc32c) or
            `publish` (`local` in an uncompressed zip)
        attributes: id, title, description, dataset_version, license (SPDX), doi, extra
        overwrite: replace a store at `path`, and drop an unfinished one; the old one stays until the
            new one is finished
        resume: go on with an unfinished store where there is one, and keep it on an exception

    Raises:
        StoreError: something is at `path` already, an unfinished store is there and neither
            `overwrite` nor `resume` was said, or another process is writing it.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        dtype: str | None = None,
        profile: str = "local",
        attributes: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        resume: bool = False,
    ) -> None:
        if dtype not in (None, *FLOATS):
            raise StoreError(f"dtype: expected None, 'float32' or 'float64', found {dtype!r}")
        self._target = Target(path, profile=profile, overwrite=overwrite)
        self.path, folder = self._target.path, self._target.folder
        self._dtype, self._profile, self._resume = dtype, profile, resume
        self._attributes = author_attributes(attributes)
        self._splits: dict[str, tuple[tuple[str, ...], npt.NDArray[np.int8]]] = {}
        if folder.exists() and not (overwrite or resume):
            raise StoreError(
                f"{folder}: an unfinished store is there; go on with resume=True or start again with overwrite=True"
            )
        if folder.exists() and not resume:
            discard(folder)
        begun = folder.exists()
        self._spool: Spool | None = Spool(folder)
        self._check_options(self._spool)
        try:
            self._appender = Appender(self._spool, dtype)
        except StoreWriteError:  # there is not even room for the journal
            self._spool.close()
            if not begun:
                discard(folder)
            raise

    def _check_options(self, spool: Spool) -> None:
        options = {"dtype": self._dtype, "profile": self._profile}
        state = spool.state
        if state and state["options"] != options:
            spool.close()
            raise StoreError(
                f"{spool.folder}: was begun with {state['options']}, now {options}; use the same options to go on, "
                "or overwrite=True to start again"
            )
        if not state:
            state.update(options=options, provenance=[])

    # -- what a caller does ------------------------------------------------------------------

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()
        else:
            self.abandon()

    def __len__(self) -> int:
        """Geometries appended so far, those before a resume included."""
        return len(self._appender)

    def labels(self) -> list[str]:
        """Labels of the geometries appended so far, in order, empty where there is none."""
        self._open.flush()
        return self._appender.texts("geometry/label") or [""] * len(self)

    def appended(self, stop: int) -> Iterator[LabelledGeometry]:
        """Yield the first `stop` geometries appended: atoms, positions, forces and Hessian alone."""
        self._open.flush()
        return self._appender.geometries(stop)

    def append(self, record: LabelledGeometry, quality: Mapping[str, float | None] | None = None) -> None:
        """Append one geometry.

        Args:
            record: the geometry
            quality: what is known of how good its Hessian is: `largest` element (eV/angstrom^2), residuals of
                `translation` (eV/angstrom^2) and `rotation` (eV/angstrom), largest difference of printed and
                recomputed `frequency` (cm^-1); kept below `extra/quality`

        Raises:
            StoreError: a charge or multiplicity outside 16 bits, or more than 65536 levels of theory.
        """
        if self._spool is None:
            raise StoreError(f"{self.path}: the writer is closed")
        with self._disk():
            self._appender.append(record, quality)

    def extend(self, records: Iterable[LabelledGeometry]) -> None:
        """Append several geometries."""
        for record in records:
            self.append(record)

    def flush(self) -> None:
        """Make everything appended so far survive a kill (it happens by itself every 16 MiB or 30 seconds)."""
        self._open.flush()

    def add_provenance(self, facts: Mapping[str, Any]) -> None:
        """Add a provenance entry: creator, version, routine, time, options, sources, conversions; the rest is `extra`.

        An entry that differs from one that is there only in time and host is not added again, so
        that a resumed conversion may say the same twice.
        """
        entry = provenance_entry(facts)
        entries = self._open.state["provenance"]
        if not any(same_provenance(entry, other) for other in entries):
            entries.append(entry)

    def set_split(self, scheme: str, parts: Sequence[str], codes: npt.ArrayLike) -> None:
        """Set a split scheme; its length is checked at the end.

        Args:
            scheme: name, letters, digits, `_`, `-`, `.`
            parts: names; the first three are train, val, test, further test parts follow
            codes: (G,) index into `parts`, -1 unused
        """
        names = tuple(parts)
        values = np.asarray(codes)
        if not SCHEME.fullmatch(scheme):
            raise StoreError(f"split: expected a name of letters, digits, '_', '-' and '.', found {scheme!r}")
        if names[:3] != ("train", "val", "test")[: len(names)] or len(set(names)) != len(names) or not names:
            raise StoreError(f"split {scheme}: expected distinct parts that begin with train, val, test, found {names}")
        good = values.ndim == 1 and values.dtype.kind in "iu"
        if not good or (len(values) and not -1 <= values.min() <= values.max() < len(names)):
            raise StoreError(f"split {scheme}: expected codes (G,) from -1 to {len(names) - 1}")
        self._splits[scheme] = (names, values.astype(np.int8))

    def abandon(self) -> None:
        """Stop without a store at `path`; what was begun is kept only with `resume=True`."""
        if self._spool is None:
            return
        spool, self._spool = self._spool, None
        if self._resume:
            if self._appender.between and not spool.broken:
                spool.flush()
        else:
            shutil.rmtree(spool.folder, ignore_errors=True)
        spool.close()

    def finish(self) -> None:
        """Finish the store and put it at `path`; a clean exit does it.

        Raises:
            StoreError: no geometry at all, or a split of another length.
        """
        try:
            with self._disk():
                self._finish(self._open)
        except BaseException:
            self.abandon()
            raise

    # -- how ---------------------------------------------------------------------------------

    @property
    def _open(self) -> Spool:
        if self._spool is None:
            raise StoreError(f"{self.path}: the writer is closed")
        return self._spool

    @contextlib.contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:  # full, read-only, gone
            raise StoreWriteError(f"{self.path}: cannot be written: {exc.strerror or exc}") from exc

    def _finish(self, spool: Spool) -> None:
        count = len(self)
        if count == 0:
            raise StoreError(f"{self.path}: no geometry was appended, so there is no store to write")
        for scheme, (_, codes) in self._splits.items():
            if len(codes) != count:
                raise StoreError(f"split {scheme}: expected {count} codes, one a geometry, found {len(codes)}")
        self._appender.finish()
        built = spool.folder / "store"
        shutil.rmtree(built, ignore_errors=True)
        builder = Builder(built, self._profile)
        self._build_arrays(spool, builder)
        for scheme, (parts, codes) in sorted(self._splits.items()):
            builder.add_split(scheme, parts, codes)
        builder.finish(self._root_attributes(spool))
        self._target.publish(built)
        self._spool = None
        shutil.rmtree(spool.folder, ignore_errors=True)
        spool.close()

    def _build_arrays(self, spool: Spool, builder: Builder) -> None:
        paths = [path for path in WRITTEN if spool.started(path)]
        total = sum((spool.folder / name).stat().st_size for name in os.listdir(spool.folder) if name.endswith(".bin"))
        projected = spool.state["projected"]
        free = {"frequency/value": {"projected": projected[0] if len(projected) == 1 else None}}
        with tqdm(total=total, unit="B", unit_scale=True, desc=self.path.name, disable=None, delay=3) as progress:
            for path in paths:
                builder.add_spooled(path, spool, progress, **free.get(path, {}))

    def _root_attributes(self, spool: Spool) -> dict[str, Any]:
        state = spool.state
        offsets = spool.read("hessian/offset", 0, spool.rows("hessian/offset"))
        counts = {
            "geometries": state["geometries"],
            "atoms": state["atoms"],
            "hessians": int(np.count_nonzero(np.diff(offsets))),
            "hessian_elements": int(offsets[-1]),
            "groups": len(self._appender.groups),
        }
        written = {"routine": "store", "options": {"dtype": self._dtype, "profile": self._profile}}
        return {
            "version": VERSION,
            **self._attributes,
            "counts": counts,
            "levels_of_theory": state["levels"],
            "provenance": [*state["provenance"], provenance_entry(written)],
        }


def unfinished_state(path: str | Path) -> dict[str, Any] | None:
    """Say how far an unfinished store at `path` has come: its journal's state, `None` where there is none."""
    journal = beside(path, ".unfinished") / "journal.json"
    try:
        state = json.loads(journal.read_text())["state"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as exc:
        raise StoreError(f"{journal}: unreadable: {exc}") from exc
    return dict(state)
