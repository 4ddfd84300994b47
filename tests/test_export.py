"""A store out to every format and back; the foreign programs' own libraries open what was written."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.io import read as ase_read
from molecules import labelled

from nequip_hessian.checks import check
from nequip_hessian.cli import main
from nequip_hessian.curvature import normal_modes
from nequip_hessian.errors import ConfigError, FormatError, StoreError
from nequip_hessian.export import LABELS, MANIFEST, TARGETS, chosen, export
from nequip_hessian.formats import format_of, read
from nequip_hessian.record import LabelledGeometry
from nequip_hessian.store import HessianStore, StoreWriter
from nequip_hessian.units import BOHR, HARTREE

NAMES = ("H2O", "HCN", "NH3")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Three molecules with all labels, one without a Hessian, one with a partial one, one crystal."""
    path = tmp_path_factory.mktemp("store") / "s.zarr"
    rng = np.random.default_rng(0)
    whole = [
        labelled(name, seed, group=f"g{seed % 2}").replace(
            dipole_derivatives=rng.normal(size=(3 * n, 3)), masses=rng.uniform(1, 20, n)
        )
        for seed, (name, n) in enumerate(zip(NAMES, (3, 3, 4), strict=True))
    ]
    roles = ("reactant", "transition_state", "product")
    whole = [record.replace(role=None if i == 2 else roles[i]) for i, record in enumerate(whole)]
    partial = whole[0].replace(hessian=whole[0].hessian[:3, :3], active=[0], label="partial", role=None)
    crystal = bulk("Cu", cubic=True)
    springs = 10 * (np.eye(12) - np.tile(np.eye(3), (4, 4)) / 4)
    with StoreWriter(path) as writer:
        writer.extend(whole)
        writer.append(labelled("H2CO", 4, hessian=False, group="g2"))
        writer.append(partial)
        writer.append(
            LabelledGeometry(
                numbers=crystal.numbers,
                positions=crystal.positions,
                cell=crystal.cell.array,
                pbc=True,
                hessian=springs,
                label="../copper <b>",
            )
        )
        writer.set_split("random", ["train", "val", "test"], np.array([0, 0, 2, 1, -1, 0], dtype=np.int8))
    return path


def run(store, tmp_path, *arguments, status=0, out="out"):
    assert main(["export", str(store), "-o", str(tmp_path / out), *arguments]) == status
    return tmp_path / out


def back(path: Path) -> LabelledGeometry:
    (record,) = read(path)
    return record


def close(record, made, hessian, positions=1e-8):
    """The printed precision of a format: an absolute bound on each element of the Hessian, eV/angstrom^2."""
    assert record.numbers.tolist() == made.numbers.tolist()
    assert np.max(np.abs(record.positions - made.positions)) < positions
    assert np.max(np.abs(record.hessian - made.hessian)) < hessian


# -- there and back -------------------------------------------------------------------------


def test_orca(store, tmp_path):
    out = run(store, tmp_path, "--format", "orca-hess", "--select", "0-2")
    for index, name in enumerate(NAMES):
        made = HessianStore(store)[index]
        path = out / f"{index}_{name}-{index}.hess"
        assert format_of(path).name == "orca-hess"
        record = back(path)
        close(record, made, 1e-8)
        assert np.allclose(record.masses, made.masses, atol=1e-8)
        assert np.allclose(record.dipole_derivatives, made.dipole_derivatives, atol=1e-8)
        assert check(record)[1].frequency_deviation < 0.01  # the frequencies written follow from the Hessian


def test_modes_of_the_orca_file_are_those_of_the_hessian(store, tmp_path):
    out = run(store, tmp_path, "--format", "orca-hess", "--select", "2", out="ts.hess")
    text = out.read_text()
    assert sorted(tmp_path.iterdir()) == [out]
    made = HessianStore(store)[2]
    body = text.split("$normal_modes\n12 12\n")[1].split("#")[0]
    blocks = re.split(r"\n(?= {12,})", body)
    columns = [[row.split()[1:] for row in block.strip("\n").split("\n")[1:]] for block in blocks]
    modes = np.concatenate([np.array(block, dtype=float) for block in columns], axis=1)
    values = np.array([float(row.split()[1]) for row in text.split("_frequencies\n12\n")[1].split("\n")[:12]])
    weighted = modes * np.sqrt(np.repeat(made.masses, 3))[:, None]
    for value, mode in zip(values[6:], weighted.T[6:], strict=True):
        root = np.sqrt(np.repeat(made.masses, 3))
        curvature = mode @ (made.hessian / root[:, None] / root[None]) @ mode / (mode @ mode)
        assert np.sign(curvature) * np.sqrt(abs(curvature)) * 521.4708983725064 == pytest.approx(value, abs=0.01)
    assert np.allclose(values[6:], normal_modes(made.hessian, made.positions, made.masses)[0], atol=1e-5)


def test_fchk_here_and_in_cclib(store, tmp_path, monkeypatch):
    from cclib.io import ccread
    from cclib.parser.fchkparser import FChk

    monkeypatch.setattr(FChk, "after_parsing", lambda self: None)  # it insists on orbital energies

    out = run(store, tmp_path, "--format", "fchk", "--select", "0-2")
    for index, name in enumerate(NAMES):
        made = HessianStore(store)[index]
        path = out / f"{index}_{name}-{index}.fchk"
        record = back(path)
        close(record, made, 1e-8 * np.max(np.abs(made.hessian)), 1e-7)
        assert record.energy == pytest.approx(made.energy, abs=1e-10)
        assert np.allclose(record.forces, made.forces, atol=1e-7)
        assert np.allclose(record.masses, made.masses, rtol=1e-8)
        assert (record.charge, record.multiplicity) == (0, 1)
        assert record.level.method == made.level.method
        assert check(record)[1].verdict == "ok"
        theirs = ccread(str(path))
        assert theirs.atomnos.tolist() == made.numbers.tolist()
        assert np.allclose(theirs.atomcoords[-1], made.positions, atol=1e-6)
        assert np.allclose(theirs.hessian * HARTREE / BOHR**2, made.hessian, atol=1e-5)
        assert np.allclose(theirs.atommasses, made.masses, rtol=1e-6)


def test_xtb(store, tmp_path):
    out = run(store, tmp_path, "--format", "xtb", "--select", "0-2")
    for index, name in enumerate(NAMES):
        made = HessianStore(store)[index]
        assert format_of(out / f"{index}_{name}-{index}" / "hessian").name == "xtb-hessian"
        record = back(out / f"{index}_{name}-{index}" / "hessian")
        close(record, made, 1e-8)
        assert record.energy == pytest.approx(made.energy, abs=1e-9)
        assert (record.charge, record.multiplicity) == (0, 1)


def test_turbomole(store, tmp_path):
    out = run(store, tmp_path, "--format", "turbomole", "--select", "1")
    made = HessianStore(store)[1]
    assert sorted(path.name for path in out.iterdir()) == [
        "control", "coord", "energy", MANIFEST, "gradient", "hessian", "nprhessian"]  # fmt: skip
    record = back(out / "control")
    close(record, made, 1e-8)
    assert record.energy == pytest.approx(made.energy, abs=1e-8)
    assert np.allclose(record.forces, made.forces, atol=1e-9)
    assert check(record)[1].verdict == "ok"
    projected = back_projected(out / "hessian", made)
    moved = made.positions + 0.1 * np.array([1.0, 2.0, 3.0]) - made.positions
    assert np.max(np.abs(projected @ moved.ravel())) < 1e-7  # translations cost nothing


def back_projected(path, made):
    values = [line[6:] for line in path.read_text().split("\n")[1:-2]]
    numbers = [float(line[i : i + 15]) for line in values for i in range(0, len(line), 15)]
    return np.array(numbers).reshape(3 * len(made), -1) * HARTREE / BOHR**2


def test_geometric_here_and_in_geometric(store, tmp_path):
    from geometric.normal_modes import frequency_analysis

    out = run(store, tmp_path, "--format", "geometric", "--select", "label=NH3*")
    made = HessianStore(store)[2]
    assert format_of(out / "hessian.txt").name == "geometric-txt"
    record = back(out / "hessian.txt")
    close(record, made, 1e-11)
    matrix = np.loadtxt(out / "hessian.txt")
    atoms = ase_read(out / "coords.xyz")
    values = frequency_analysis(
        atoms.positions.ravel() / BOHR, matrix, elem=atoms.get_chemical_symbols(), mass=made.masses, verbose=0
    )[0]
    ours = normal_modes(made.hessian, made.positions, made.masses)[0]
    assert np.allclose(np.sort(values), ours, rtol=1e-4, atol=0.5)


def test_extended_xyz_here_and_in_ase(store, tmp_path):
    out = run(store, tmp_path, "--format", "extxyz", out="all.xyz")
    found, opened = list(read(out)), HessianStore(store)
    assert len(found) == len(opened)
    for record, made in zip(found, opened, strict=True):
        assert record.label == made.label
        assert record.group == made.group
        if made.hessian is not None:
            assert np.array_equal(record.hessian, made.hessian)
        assert np.array_equal(record.positions, made.positions)
    frames = ase_read(out, index=":")
    assert [atoms.get_chemical_formula(mode="hill") for atoms in frames] == [record.formula for record in opened]


def test_qcschema(store, tmp_path):
    out = run(store, tmp_path, "--format", "qcschema", status=3, out="all.json")
    opened = HessianStore(store)
    found = list(read(out))
    assert len(found) == 4
    for index, record in enumerate(found):
        made = opened[index]
        if made.hessian is not None:
            close(record, made, 1e-11, 1e-12)
        assert record.energy == pytest.approx(made.energy, abs=1e-10)
        assert np.allclose(record.forces, made.forces, atol=1e-12)
        assert (record.role, record.group, record.label) == (made.role, made.group, made.label)
        assert record.level == made.level.__class__(**{**made.level.as_dict(), "displacement": None})
    first = json.loads(out.read_text())[0]
    assert first["driver"] == "hessian"
    assert first["return_result"] == first["properties"]["return_hessian"]


def test_deepmd(store, tmp_path):
    out = run(store, tmp_path, "--format", "deepmd-npy", "--select", "random:train", "--select", "hessian")
    opened = HessianStore(store)
    content = json.loads((out / MANIFEST).read_text())
    assert [entry["geometry"] for entry in content["geometries"]] == [0, 1, 5]
    for entry in content["geometries"]:
        folder, frame = entry["path"].split("#")
        record = list(read(out / folder / "hessian.npy"))[int(frame)]
        assert np.array_equal(record.hessian, opened[entry["geometry"]].hessian)


def test_phonopy(store, tmp_path):
    out = run(store, tmp_path, "--format", "phonopy", "--select", "5")
    record, made = back(out / "phonopy.yaml"), HessianStore(store)[5]
    close(record, made, 1e-13)
    assert np.allclose(record.cell, made.cell)


def test_store_exported_and_converted_again(store, tmp_path):
    """Through the command line both ways: the Hessians of all molecules come back."""
    out = run(store, tmp_path, "--format", "fchk", "--select", "0-2")
    assert main(["convert", str(out), "-o", str(tmp_path / "again.zarr")]) == 0
    again = HessianStore(tmp_path / "again.zarr")
    assert len(again) == 3
    for index, record in enumerate(again):
        close(record, HessianStore(store)[index], 1e-6, 1e-7)


def everything(atoms: int) -> LabelledGeometry:
    """A molecule with every label that a molecule can have."""
    rng, name = np.random.default_rng(1), {1: "He", 3: "H2O"}[atoms]
    values = {} if atoms > 1 else {"hessian": np.zeros((3, 3)), "forces": np.zeros((1, 3))}
    return (
        labelled(name, 1) if atoms > 1 else LabelledGeometry(numbers=np.array([2]), positions=np.zeros((1, 3)))
    ).replace(
        charge=0,
        multiplicity=1,
        energy=-1.5,
        masses=rng.uniform(1, 20, atoms),
        dipole_derivatives=rng.normal(size=(3 * atoms, 3)),
        **(values or {"frequencies": np.array([500.0, 600.0, 700.0])}),
    )


READ_BACK = {"orca-hess": "0.hess", "fchk": "0.fchk", "xtb": "0/hessian", "turbomole": "0/control",
             "geometric": "0/hessian.txt", "phonopy": "0/phonopy.yaml", "deepmd-npy": "*/set.000/hessian.npy",
             "extxyz": "", "qcschema": ""}  # fmt: skip


@pytest.mark.parametrize("atoms", [1, 3])
@pytest.mark.parametrize("name", sorted(TARGETS))
def test_what_a_format_keeps_is_what_is_read_back_and_the_rest_is_said(tmp_path, capsys, name, atoms):
    made = everything(atoms).replace(label=None)
    if name == "phonopy":
        made = made.replace(cell=9 * np.eye(3), pbc=True, supercell_matrix=np.eye(3, dtype=int))
        made = made.replace(born_charges=np.zeros((atoms, 3, 3)), dielectric=np.eye(3), dipole_derivatives=None)
    with StoreWriter(tmp_path / "s.zarr") as writer:
        writer.extend([made, made.replace(group="again")])
    out = run(tmp_path / "s.zarr", tmp_path, "--format", name, out="o.json" if name == "qcschema" else "o.xyz")
    pattern = READ_BACK[name]
    (path,) = out.glob(pattern) if pattern else [out]
    record = next(iter(read(path)))
    assert np.allclose(record.hessian, made.hessian, atol=1e-6)
    said = capsys.readouterr().err
    lost = dict(re.findall(r"(?:for: |, )([a-z ]+) of (\d+)", said))
    for label in LABELS:
        value = getattr(made, label)
        if value is None:
            continue
        kept = getattr(record, label)
        if label in TARGETS[name].keeps:
            assert np.allclose(kept, value, atol=1e-5), label
            assert label.replace("_", " ") not in lost
        else:
            assert lost[label.replace("_", " ")] == "2"


def test_unknown_charge_and_multiplicity_of_a_qcschema_file_of_ours_stay_unknown(tmp_path):
    with StoreWriter(tmp_path / "s.zarr") as writer:
        writer.extend([everything(3).replace(charge=None, multiplicity=None), everything(3).replace(charge=None)])
    out = run(tmp_path / "s.zarr", tmp_path, "--format", "qcschema", out="o.json")
    assert [(record.charge, record.multiplicity) for record in read(out)] == [(None, None), (None, 1)]


def test_the_table_of_the_page_says_what_each_format_keeps():
    page = (Path(__file__).parents[1] / "docs" / "export.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| `")]
    table = {row[0].strip("`"): row for row in rows if len(row) == 9}
    head = next(line for line in page.splitlines() if line.startswith("| `--format` | what is written"))
    columns = [cell.strip() for cell in head.split("|")[1:-1]]
    assert sorted(set(table) - {"--format"}) == sorted(TARGETS)
    for name, target in TARGETS.items():
        for label in ("energy", "forces", "masses", "dipole derivatives"):
            said = table[name][columns.index(label)] == "yes"
            assert said == (label.replace(" ", "_") in target.keeps), (name, label)
        assert (table[name][columns.index("charge, multiplicity")] == "yes") == ("charge" in target.keeps)


# -- what is left out, refused, kept --------------------------------------------------------


def test_what_a_format_has_no_place_for_is_left_out_and_said(store, tmp_path, capsys):
    out = run(store, tmp_path, "--format", "fchk", status=3)
    printed = capsys.readouterr()
    assert "3 of 6 geometries written" in printed.out
    lines = printed.err.splitlines()
    assert len(lines) == 3
    assert "geometry 3 left out: expected a geometry with a Hessian" in lines[0]
    assert "geometry 4 left out: the Hessian is of 1 of 3 atoms only" in lines[1]
    assert "geometry 5 left out: expected a molecule" in lines[2]
    assert len(list(out.glob("*.fchk"))) == 3


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_nothing_is_written_where_nothing_fits(store, tmp_path, capsys, name):
    index = "5" if TARGETS[name].molecule else "3"
    if not TARGETS[name].hessian and not TARGETS[name].molecule:
        index = "4" if name == "deepmd-npy" else None
    if index is None:
        return  # extended XYZ takes everything
    run(store, tmp_path, "--format", name, "--select", index, status=1)
    assert "nothing to write" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_clobbered(store, tmp_path, capsys):
    (tmp_path / "all.xyz").write_text("mine")
    run(store, tmp_path, "--format", "extxyz", status=1, out="all.xyz")
    assert (tmp_path / "all.xyz").read_text() == "mine"
    run(store, tmp_path, "--format", "extxyz", "--overwrite", out="all.xyz")
    assert len(list(read(tmp_path / "all.xyz"))) == 6
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("mine")
    run(store, tmp_path, "--format", "xtb", "--select", "0-1", "--overwrite", status=1, out="home")
    assert "no export made" in capsys.readouterr().err
    assert (tmp_path / "home" / "thesis.tex").read_text() == "mine"
    out = run(store, tmp_path, "--format", "xtb", "--select", "0-1")
    run(store, tmp_path, "--format", "fchk", "--select", "0-1", "--overwrite")
    assert sorted(path.suffix for path in out.iterdir()) == [".fchk", ".fchk", ".json"]


@pytest.mark.parametrize("name", ["fchk", "deepmd-npy", "qcschema", "extxyz", "xtb"])
def test_a_failed_write_leaves_nothing(store, tmp_path, monkeypatch, name):
    """The third geometry cannot be read: no file, no folder, no temporary, and what was there stays."""
    real = HessianStore.__getitem__

    def broken(self, index):
        if index == 2:
            raise StoreError("the disk is gone")
        return real(self, index)

    target = tmp_path / ("out.json" if name == "qcschema" else "out")
    export(store, target, name, select=["0-1"])
    before = sorted((path.relative_to(tmp_path), path.is_file() and path.read_bytes()) for path in tmp_path.rglob("*"))
    monkeypatch.setattr(HessianStore, "__getitem__", broken)
    with pytest.raises(StoreError, match="the disk is gone"):
        export(store, target, name, select=["0-2"], overwrite=True)
    assert before == sorted(
        (path.relative_to(tmp_path), path.is_file() and path.read_bytes()) for path in tmp_path.rglob("*")
    )


def test_labels_make_harmless_names(store, tmp_path):
    out = run(store, tmp_path, "--format", "phonopy", "--select", "5", "--select", "hessian")
    assert (out / "phonopy.yaml").is_file()
    path = tmp_path / "two.zarr"
    with StoreWriter(path) as writer:
        writer.extend([HessianStore(store)[5], HessianStore(store)[5].replace(label="/etc/passwd")])
    folders = run(path, tmp_path, "--format", "phonopy", out="folders")
    assert sorted(entry.name for entry in folders.iterdir()) == ["0_copper_b", "1_etc_passwd", MANIFEST]


def test_selection(store):
    opened = HessianStore(store)
    assert chosen(opened) == [0, 1, 2, 3, 4, 5]
    assert chosen(opened, ["0,2-3"]) == [0, 2, 3]
    assert chosen(opened, ["hessian", "random:train"]) == [0, 1, 5]
    assert chosen(opened, ["role=transition_state"]) == [1]
    assert chosen(opened, ["group=g0"]) == [0, 2, 4]
    assert chosen(opened, ["label=H*"]) == [0, 1, 3]
    assert chosen(opened, ["kind=displaced", "0-4"]) == [0, 1, 2, 3, 4]
    for entry, message in (
        ("9", "expected geometries 0 to 5"),
        ("3-1", "expected geometries"),
        ("kind=foo", "expected one of minimum"),
        ("nonsense", "expected indices"),
        ("random:nope", "no part 'nope'"),
        ("group=zz", "is empty"),
    ):
        with pytest.raises(ConfigError, match=message):
            chosen(opened, [entry])
    with pytest.raises(StoreError, match="no split scheme"):
        chosen(opened, ["other:train"])


def test_folders_are_made(store, tmp_path, capsys):
    for form, out in (("orca-hess", "new/deep/a.hess"), ("extxyz", "other/a.xyz"), ("xtb", "third/run")):
        run(store, tmp_path, "--format", form, "--select", "0", out=out)
        assert (tmp_path / out).exists()
    (tmp_path / "file").write_text("mine")
    run(store, tmp_path, "--format", "orca-hess", "--select", "0", status=1, out="file/below/a.hess")
    assert "cannot be made" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


def test_one_file_takes_one_geometry(store, tmp_path, capsys):
    run(store, tmp_path, "--format", "orca-hess", status=1, out="a.hess")
    assert "a file of one geometry, but 6 are chosen" in capsys.readouterr().err
    with pytest.raises(FormatError, match="something already"):
        TARGETS["fchk"].writer()(store, HessianStore(store)[0])
    assert list(tmp_path.iterdir()) == []


def test_command_line_offers_all_formats():
    from nequip_hessian.cli.export import _FORMATS

    assert set(_FORMATS) == set(TARGETS)
