"""StoreWriter: labelled geometries in, one finished store out, or nothing at all.

What is not finished lies beside the target, in `<target>.unfinished`; the
target appears in one step when everything is in it. Memory holds one batch of
records, never the whole.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from nequip_hessian.errors import StoreError
from nequip_hessian.record import LabelledGeometry, LevelOfTheory
from nequip_hessian.store.attributes import (
    SCHEME,
    author_attributes,
    level_from_dict,
    provenance_entry,
    same_provenance,
)
from nequip_hessian.store.build import PROFILES, Builder, zip_directory
from nequip_hessian.store.files import open_files, read_metadata
from nequip_hessian.store.layout import BY_PATH, FLOATS, NAME, NONE, RAGGED, VERSION
from nequip_hessian.store.rows import AnyArray, rows_of, utf8
from nequip_hessian.store.spool import Spool, discard

_FOLLOWS_DTYPE = ("hessian/data", "product/probe", "product/value")
_OPTIONAL_OFFSETS = {data[0]: offset for offset, data in RAGGED.items() if not BY_PATH[offset].required}
_ALWAYS = tuple(spec.path for spec in BY_PATH.values() if spec.required)


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
        self.path = Path(os.path.abspath(path))
        if dtype not in (None, *FLOATS):
            raise StoreError(f"dtype: expected None, 'float32' or 'float64', found {dtype!r}")
        if profile not in PROFILES:
            raise StoreError(f"profile: expected one of {', '.join(PROFILES)}, found {profile!r}")
        self._dtype, self._profile, self._overwrite, self._resume = dtype, profile, overwrite, resume
        self._attributes = author_attributes(attributes)
        self._splits: dict[str, tuple[tuple[str, ...], npt.NDArray[np.int8]]] = {}
        self._check_target()
        folder = self.path.with_name(self.path.name + ".unfinished")
        if folder.exists() and not (overwrite or resume):
            raise StoreError(
                f"{folder}: an unfinished store is there; go on with resume=True or start again with overwrite=True"
            )
        if folder.exists() and not resume:
            discard(folder)
        self._between = True  # between two records, where what is buffered is consistent
        self._spool: Spool | None = Spool(folder)
        self._restore(self._spool)

    def _check_target(self) -> None:
        if self.path.suffix == ".zip" and self._profile != "publish":
            raise StoreError(f"{self.path}: a zip file is written by profile 'publish', not {self._profile!r}")
        if not self.path.parent.is_dir():
            raise StoreError(f"{self.path}: the folder {self.path.parent} does not exist; make it first")
        if not os.path.lexists(self.path):
            return
        if not self._overwrite:
            raise StoreError(f"{self.path}: exists already; name another path or say overwrite")
        try:
            attributes = (read_metadata(open_files(self.path)) or {}).get("attributes")
        except StoreError:
            attributes = None
        if not isinstance(attributes, dict) or NAME not in attributes:
            raise StoreError(f"{self.path}: is no Hessian store, so it is not replaced; move it away first")

    def _restore(self, spool: Spool) -> None:
        options = {"dtype": self._dtype, "profile": self._profile}
        state = spool.state
        if state and state["options"] != options:
            spool.close()
            raise StoreError(
                f"{spool.folder}: was begun with {state['options']}, now {options}; use the same options to go on, "
                "or overwrite=True to start again"
            )
        if not state:
            state.update(options=options, geometries=0, atoms=0, levels=[], provenance=[], projected=[])
            for path in _ALWAYS:
                if path not in ("hessian/data", "atom/force"):
                    spool.start(BY_PATH[path], BY_PATH[path].dtypes[0], 0)
            for offset in ("geometry/atom_offset", "hessian/offset"):
                spool.append(offset, np.zeros(1, dtype=np.int64))
            spool.flush()
        self._levels = [level_from_dict(entry, str(spool.folder)) for entry in state["levels"]]
        self._groups = {name: i for i, name in enumerate(self._texts("geometry/group_label"))}

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
        return int(self._open.state["geometries"])

    def labels(self) -> list[str]:
        """Labels of the geometries appended so far, in order, empty where there is none."""
        self._open.flush()
        return self._texts("geometry/label") or [""] * len(self)

    def append(self, record: LabelledGeometry) -> None:
        """Append one geometry.

        Raises:
            StoreError: a charge or multiplicity outside 16 bits, or more than 65536 levels of theory.
        """
        self._check_range(record)
        rows = rows_of(record)
        self._promote(rows)
        self._between = False
        rows["geometry/level"] = np.array([self._level(record.level)], dtype=np.uint16)
        rows["geometry/group"] = np.array([NONE if record.group is None else self._group(record.group)], dtype=np.int64)
        self._append_rows(rows, len(record))
        if record.frequencies is not None and record.frequencies_projected not in self._open.state["projected"]:
            self._open.state["projected"].append(record.frequencies_projected)
        self._between = True
        self._open.flush_if_full()

    def extend(self, records: Iterable[LabelledGeometry]) -> None:
        """Append several geometries."""
        for record in records:
            self.append(record)

    def flush(self) -> None:
        """Make everything appended so far survive a kill (it happens by itself every 16 MiB)."""
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
            if self._between and not spool.broken:
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

    def _check_range(self, record: LabelledGeometry) -> None:
        for name, low in (("charge", -32767), ("multiplicity", 1)):
            value = getattr(record, name)
            if value is not None and not low <= value <= 32767:
                raise StoreError(f"{name}: expected {low} to 32767, found {value} (geometry {len(self)})")
        if record.level not in self._levels and len(self._levels) == 65536:
            raise StoreError("more than 65536 levels of theory; what differs from record to record is no level")

    def _promote(self, rows: Mapping[str, AnyArray | None]) -> None:
        """Widen what was float32 so far where float64 arrives and no `dtype` was asked for."""
        for path, value in rows.items():
            forced = self._dtype is not None and path in _FOLLOWS_DTYPE
            if value is None or forced or len(BY_PATH[path].dtypes) == 1 or not self._open.started(path):
                continue
            if self._open.dtype(path) == "float32" and value.dtype == np.float64:
                self._open.promote(BY_PATH[path], "float64")

    def _level(self, level: LevelOfTheory) -> int:
        if level not in self._levels:
            self._levels.append(level)
            self._open.state["levels"].append(level.as_dict())
        return self._levels.index(level)

    def _group(self, name: str) -> int:
        if name not in self._groups:
            self._groups[name] = len(self._groups)
            self._append("geometry/group_label_data", utf8(name), 0)
            self._append_offset("geometry/group_label_offset", "geometry/group_label_data", 0)
        return self._groups[name]

    def _append_rows(self, rows: Mapping[str, AnyArray | None], atoms: int) -> None:
        spool, state = self._open, self._open.state
        before = {"G": state["geometries"], "A": state["atoms"]}
        adds = {"G": 1, "A": atoms}
        for path, value in rows.items():
            symbol = str(BY_PATH[path].shape[0])
            if value is not None:
                self._append(path, value, before.get(symbol, 0))
            elif symbol in adds and (spool.started(path) or path in _ALWAYS):
                spec = BY_PATH[path]
                self._append(
                    path, np.full((adds[symbol], *spec.row_shape), spec.fill, dtype=np.float32), before[symbol]
                )
        state["geometries"] += 1
        state["atoms"] += atoms
        self._append_offset("geometry/atom_offset", "atom/number", before["G"])
        self._append_offset("hessian/offset", "hessian/data", before["G"])
        for data, offset in _OPTIONAL_OFFSETS.items():
            if offset != "geometry/group_label_offset" and spool.started(data):
                self._append_offset(offset, data, before["G"])

    def _append(self, path: str, rows: AnyArray, filled: int) -> None:
        """Append rows; an array that begins now is filled up for the geometries before."""
        spool, spec = self._open, BY_PATH[path]
        free = len(spec.dtypes) > 1
        forced = self._dtype if path in _FOLLOWS_DTYPE else None
        wanted = spec.dtypes[0] if not free else forced or str(rows.dtype.name)
        if not spool.started(path):
            spool.start(spec, wanted, filled)
        spool.append(path, rows)

    def _append_offset(self, offset: str, data: str, filled: int) -> None:
        spool = self._open
        if not spool.started(offset):  # zeros: nothing for the geometries before
            spool.start(BY_PATH[offset], "int64", filled + 1)
        end = spool.rows(data) if spool.started(data) else 0
        spool.append(offset, np.array([end], dtype=np.int64))

    def _texts(self, stem: str) -> list[str]:
        spool = self._open
        if not spool.started(f"{stem}_offset"):
            return []
        offset = spool.read(f"{stem}_offset", 0, spool.rows(f"{stem}_offset"))
        data = spool.read(f"{stem}_data", 0, int(offset[-1])).tobytes()
        return [data[a:b].decode("utf-8") for a, b in itertools.pairwise(offset)]

    def _finish(self, spool: Spool) -> None:
        count = len(self)
        if count == 0:
            raise StoreError(f"{self.path}: no geometry was appended, so there is no store to write")
        for scheme, (_, codes) in self._splits.items():
            if len(codes) != count:
                raise StoreError(f"split {scheme}: expected {count} codes, one a geometry, found {len(codes)}")
        for path in ("hessian/data", "atom/force"):
            if not spool.started(path):
                spool.start(BY_PATH[path], self._dtype or "float64", 0)
        spool.flush()
        built = spool.folder / "store"
        shutil.rmtree(built, ignore_errors=True)
        builder = Builder(built, self._profile)
        self._build_arrays(spool, builder)
        for scheme, (parts, codes) in sorted(self._splits.items()):
            builder.add_split(scheme, parts, codes)
        builder.finish(self._root_attributes(spool, builder))
        if self._profile == "publish":
            zip_directory(built, spool.folder / "store.zip")
            built = spool.folder / "store.zip"
        self._publish(spool, built)

    def _build_arrays(self, spool: Spool, builder: Builder) -> None:
        paths = [path for path in BY_PATH if spool.started(path)]
        total = sum((spool.folder / name).stat().st_size for name in os.listdir(spool.folder) if name.endswith(".bin"))
        projected = spool.state["projected"]
        free = {"frequency/value": {"projected": projected[0] if len(projected) == 1 else None}}
        with tqdm(total=total, unit="B", unit_scale=True, desc=self.path.name, disable=None, delay=3) as progress:
            for path in paths:
                builder.add_spooled(path, spool, progress, **free.get(path, {}))

    def _root_attributes(self, spool: Spool, builder: Builder) -> dict[str, Any]:
        state = spool.state
        offsets = spool.read("hessian/offset", 0, spool.rows("hessian/offset"))
        counts = {
            "geometries": state["geometries"],
            "atoms": state["atoms"],
            "hessians": int(np.count_nonzero(np.diff(offsets))),
            "hessian_elements": int(offsets[-1]),
            "groups": len(self._groups),
        }
        written = {"routine": "store", "options": {"dtype": self._dtype, "profile": self._profile}}
        return {
            "version": VERSION,
            **self._attributes,
            "counts": counts,
            "levels_of_theory": state["levels"],
            "provenance": [*state["provenance"], provenance_entry(written)],
            "checksums": builder.checksums,
        }

    def _publish(self, spool: Spool, built: Path) -> None:
        old = self.path.with_name(self.path.name + ".old")
        if os.path.lexists(self.path):
            if not self._overwrite:
                raise StoreError(f"{self.path}: appeared while the store was written; it is left as it is")
            _remove(old)  # a copy from a replacement that was killed; the store itself is here
            os.rename(self.path, old)
        os.rename(built, self.path)
        self._spool = None
        _remove(old)
        shutil.rmtree(spool.folder, ignore_errors=True)
        spool.close()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def unfinished_state(path: str | Path) -> dict[str, Any] | None:
    """Say how far an unfinished store at `path` has come: its journal's state, `None` where there is none."""
    path = Path(path)
    journal = path.with_name(path.name + ".unfinished") / "journal.json"
    try:
        state = json.loads(journal.read_text())["state"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as exc:
        raise StoreError(f"{journal}: unreadable: {exc}") from exc
    return dict(state)
