"""Jobs start from a geometry and its electronic state: no label of the file that is read is in a file they write."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import read, write

from nequip_hessian.analysis.geometries import read_geometries
from nequip_hessian.cli import main

OURS = {"charge", "multiplicity", "spin", "path_coordinate", "wavenumber_cm"}
STALE = {"kind": "minimum", "role": "reactant", "group": "g", "label": "stale", "level": "B3LYP", "tag_of_mine": 7}

# diazenylium, N2H+: the proton goes from one nitrogen to the other
END = Atoms("N2H", [[0, 0, 0], [1.1, 0, 0], [-1.04, 0.05, 0]])
OTHER = Atoms("N2H", [[0, 0, 0], [1.1, 0, 0], [2.14, 0.05, 0]])
TOP = Atoms("N2H", [[0, 0, 0], [1.15, 0, 0], [0.575, 1.15, 0]])


def labelled(path: Path, atoms: Atoms, charge: int = 1) -> str:
    """Write a geometry as `export` does, with labels of another level."""
    frame = atoms.copy()
    frame.info |= {**STALE, "charge": charge, "energy": -3.0, "path_coordinate": 3.5}
    frame.info["hessian"] = np.ones(9 * len(atoms) ** 2)
    frame.arrays["forces"] = np.full((len(atoms), 3), 9.0)
    frame.arrays["dipole_derivatives"] = np.ones((len(atoms), 9))
    write(path, frame, format="extxyz")
    return str(path)


def written(folder: Path) -> dict[str, list[Atoms]]:
    """All geometries that a command wrote, by file."""
    names = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix in (".xyz", ".extxyz") and path.name != "modes.jmol.xyz"
    ]
    return {str(path.relative_to(folder)): read(path, index=":", format="extxyz") for path in names}


def check(found: dict[str, list[Atoms]], charge: int | None = 1) -> None:
    for name, frames in found.items():
        for atoms in frames:
            assert set(atoms.info) <= OURS, name
            assert set(atoms.arrays) <= {"numbers", "positions", "masses"}, name
            assert atoms.info.get("charge") == charge, name
            if atoms.calc is not None:
                assert np.max(np.abs(atoms.get_forces())) < 8.9, name


def test_what_is_read_has_the_electronic_state_and_no_label(tmp_path):
    (atoms,) = read_geometries(labelled(tmp_path / "a.xyz", END))
    assert dict(atoms.info) == {"charge": 1}
    assert set(atoms.arrays) == {"numbers", "positions"}
    assert atoms.calc is None
    crystal = bulk("Al", cubic=True)
    crystal.set_masses([27.5, 27, 27, 27])
    write(tmp_path / "al.extxyz", crystal, columns=["symbols", "positions", "masses"])
    (again,) = read_geometries(tmp_path / "al.extxyz")
    assert again.get_masses().tolist() == [27.5, 27, 27, 27]
    np.testing.assert_allclose(again.cell, crystal.cell)
    assert again.pbc.all()


@pytest.mark.parametrize("verb", ["energy", "optimise"])
def test_a_file_of_results_cannot_be_taken_for_labels_of_the_input(verb, tmp_path, capsys):
    source, out = labelled(tmp_path / "a.xyz", END), tmp_path / "out" / "b.xyz"
    assert main([verb, "tblite:GFN1-xTB", source, "-o", str(out)]) == 0
    check(written(out.parent))
    assert read(out).get_potential_energy() < -100
    assert main(["convert", str(out), "-o", str(tmp_path / "b.zarr")]) == 1
    assert "no Hessian" in capsys.readouterr().err


def test_results_of_a_reaction_of_an_ion_are_the_ion_and_hold_no_labels_of_its_ends(tmp_path):
    pytest.importorskip("sella")
    ends = [labelled(tmp_path / f"{name}.xyz", atoms) for name, atoms in (("r", END), ("p", OTHER))]
    out = tmp_path / "reaction"
    assert main(["reaction", "tblite", *ends, "-o", str(out), "--images=5", "--irc-step=0.1"]) == 0
    found = written(out)
    expected = {"reactant.xyz", "transition_state.xyz", "product.xyz", "band.extxyz"}
    assert expected | {"irc/irc.extxyz", "irc/reverse.xyz", "irc/forward.xyz"} < set(found)
    check(found)
    ends_of_path = [found[f"irc/{name}.xyz"][0].get_potential_energy() for name in ("reverse", "forward")]
    assert ends_of_path == pytest.approx([found["reactant.xyz"][0].get_potential_energy()] * 2, abs=1e-4)
    # read back without --charge, the ion is an ion
    assert main(["energy", "tblite", str(out / "irc" / "forward.xyz"), "-o", str(tmp_path / "again.xyz")]) == 0
    assert read(tmp_path / "again.xyz").get_potential_energy() == pytest.approx(ends_of_path[1], abs=1e-5)
    # a band that is kept is the ion's too
    assert main(["reaction", "tblite", *ends, "-o", str(out), "--images=5", "--irc-step=0.1"]) == 0
    check(written(out))


def test_searches_bands_and_modes_hold_no_labels_of_the_input(tmp_path):
    pytest.importorskip("sella")
    top, end, other = (labelled(tmp_path / f"{k}.xyz", atoms) for k, atoms in enumerate((TOP, END, OTHER)))
    assert main(["ts", "tblite", top, "-o", str(tmp_path / "ts")]) == 0
    assert main(["neb", "tblite", end, other, "--images=5", "-o", str(tmp_path / "neb")]) == 0
    assert main(["vibrations", "tblite", end, "--optimise", "-o", str(tmp_path / "modes")]) == 0
    for name in ("ts/ts.xyz", "neb/band.extxyz", "neb/ts_guess.xyz", "modes/mode_000.extxyz"):
        assert (tmp_path / name).is_file()
    for name in ("ts", "neb", "modes"):
        check(written(tmp_path / name))
