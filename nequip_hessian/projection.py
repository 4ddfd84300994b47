"""Restoring the exact identities of a record's Hessian on the way into a store."""

from __future__ import annotations

from typing import Final

import numpy as np

from nequip_hessian.curvature import project_out
from nequip_hessian.errors import PhysicsError
from nequip_hessian.identities import restore_identities
from nequip_hessian.record import LabelledGeometry

PROJECTIONS: Final = ("none", "asr", "asr+rot")


def projected(record: LabelledGeometry, project: str) -> tuple[LabelledGeometry, tuple[str, ...]]:
    """Restore the exact identities of a record's Hessian.

    Args:
        record: any record; one without a Hessian or with a partial one comes back unchanged
        project: one of PROJECTIONS; periodic records have translations only

    Returns:
        The record, and a note on how much was changed, or none.

    Raises:
        PhysicsError: `asr+rot` for a geometry that is not stationary and has no forces.
    """
    if project == "none" or record.hessian is None or record.active is not None:
        return record, ()
    hessian = np.asarray(record.hessian, dtype=np.float64)
    if project == "asr" or np.any(record.pbc):
        mended = project_out(hessian, np.tile(np.eye(3), (len(record), 1)) / np.sqrt(len(record)))
    else:
        forces = record.forces
        known = forces is not None and bool(np.all(np.isfinite(forces)))
        if not known and record.kind == "other":
            raise PhysicsError(
                "--project asr+rot needs the forces of a geometry that is not stationary, and this file has none; "
                "use --project asr"
            )
        mended = restore_identities(hessian, record.positions, forces if known else None)
    change = float(np.max(np.abs(mended - hessian)))
    changed = record.replace(
        hessian=mended.astype(np.asarray(record.hessian).dtype),
        asymmetry=record.asymmetry,
        provenance={**record.provenance, "projected": project, "projection_change": change},
    )
    return changed, (f"projected ({project}), which changed the Hessian by up to {change:.2g} eV/A^2",)
