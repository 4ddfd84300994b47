"""The data set reactions-xtb: how reactions are found, chosen and split, and what ships."""

import csv
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from nequip_hessian.curvature import normal_modes
from nequip_hessian.label.tblite import TbliteEngine
from nequip_hessian.record import LabelledGeometry
from nequip_hessian.store import HessianStore

FOLDER = Path(__file__).resolve().parents[2] / "datasets" / "reactions-xtb"
sys.path.insert(0, str(FOLDER))
import find  # noqa: E402
import graphs  # noqa: E402
import search  # noqa: E402
import selection  # noqa: E402


def load(name):
    """A module of the folder whose name other data sets use too."""
    spec = importlib.util.spec_from_file_location(f"reactions_xtb_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def product_smiles(smiles):
    return {graphs.smiles_of(product) for product in graphs.rearrangements(graphs.from_smiles(smiles)).values()}


def test_rearrangements_a_chemist_would_write():
    assert product_smiles("C#N") == {"[C-]#[NH+]"}
    assert {"C=CO", "C1CO1", "C.[C-]#[O+]", "C=C=O.[H][H]"} <= product_smiles("CC=O")
    assert "CON=O" in product_smiles("C[N+](=O)[O-]")
    assert "C1=CCCCC1" in product_smiles("C=CC=C.C=C")  # three bonds broken, three formed


@pytest.mark.parametrize("smiles", ["CC=O", "C=[N+]=[N-]", "c1ccoc1", "CNC=O"])
def test_rearrangements_keep_atoms_and_valences_and_are_other_molecules(smiles):
    graph = graphs.from_smiles(smiles)
    here = graphs.connectivity_name(graph.numbers, graph.bonds)
    products = graphs.rearrangements(graph)
    assert products
    for product in products.values():
        assert np.array_equal(product.numbers, graph.numbers)
        assert graphs.is_acceptable(product)
        assert graphs.connectivity_name(product.numbers, product.bonds) != here
        again = graphs.from_connectivity(product.numbers, product.bonds)
        assert again is not None
        assert graphs.is_acceptable(again)


def test_names_do_not_depend_on_the_order_of_atoms():
    graph = graphs.from_smiles("NC=O")
    order = np.random.default_rng(1).permutation(len(graph.numbers))
    shuffled = graphs.Graph(graph.numbers[order], graph.orders[np.ix_(order, order)])
    assert graphs.connectivity_name(graph.numbers, graph.bonds) == graphs.connectivity_name(
        shuffled.numbers, shuffled.bonds
    )
    assert sorted(graphs.rearrangements(graph)) == sorted(graphs.rearrangements(shuffled))


@pytest.mark.parametrize("smiles", ["[CH3]", "C[NH3+]", "CCl", "notasmiles"])
def test_molecules_out_of_scope_are_refused(smiles):
    with pytest.raises(ValueError, match="not a"):
        graphs.from_smiles(smiles)


@pytest.fixture(scope="module")
def journal(tmp_path_factory):
    """Two molecules searched by the command."""
    folder = tmp_path_factory.mktemp("search")
    (folder / "molecules.smi").write_text("# two molecules\nC#N\nC=O\n")
    run_search(folder)
    return folder


def run_search(folder):
    command = [sys.executable, str(FOLDER / "find.py"), "--rounds", "1", "--processes", "1"]
    command += ["--molecules", str(folder / "molecules.smi"), "--journal", str(folder / "journal")]
    subprocess.run(command, check=True, capture_output=True)
    return (folder / "journal" / "round-0.jsonl").read_text()


def test_a_reaction_is_found_and_confirmed(journal):
    records = find.read_journal(journal / "journal")[0]
    (record,) = [r for r in records if r["reactant"] == "C#N"]
    assert record["stage"] == "confirmed", record
    assert record["smiles"] == ["C#N", "[C-]#[NH+]"]
    numbers = np.array(record["numbers"])
    energies, modes = {}, {}
    for state in ("reactant_state", "transition_state", "product_state"):
        geometry = LabelledGeometry(
            numbers=numbers, positions=np.array(record[state]["positions"]), charge=0, multiplicity=1
        )
        labels = TbliteEngine().calculate(geometry, hessian=True)
        assert np.abs(labels.forces).max() < 0.004
        assert labels.energy == pytest.approx(record[state]["energy"], abs=1e-6)
        energies[state] = labels.energy
        masses = np.array([{1: 1.008, 6: 12.011, 7: 14.007}[n] for n in numbers.tolist()])
        hessian = (labels.hessian + labels.hessian.T) / 2
        modes[state] = int(np.sum(normal_modes(hessian, geometry.positions, masses)[0] < -20))
    assert modes == {"reactant_state": 0, "transition_state": 1, "product_state": 0}
    assert energies["transition_state"] - energies["reactant_state"] == pytest.approx(record["barrier"], abs=1e-6)
    path = [point for side in record["path"] for point in side]
    assert len(path) >= 8
    assert all(p["energy"] < energies["transition_state"] for p in path)
    assert {np.sign(p["arc"]) for p in path} == {-1, 1}


def test_a_cut_journal_is_completed_with_the_same_result(journal):
    path = journal / "journal" / "round-0.jsonl"
    before = path.read_text()
    assert run_search(journal) == before  # nothing left to do
    path.write_text(before[: len(before.rstrip().rsplit("\n", 1)[0]) + 40])
    after = {record["key"]: record for record in find.read_journal(journal / "journal")[0]}
    assert len(after) < len(before.splitlines())
    run_search(journal)
    for text in before.splitlines():
        old = json.loads(text)
        (new,) = [r for r in find.read_journal(journal / "journal")[0] if r["key"] == old["key"]]
        assert (new["stage"], new["reason"]) == (old["stage"], old["reason"])
        if "barrier" in old:
            assert new["barrier"] == pytest.approx(old["barrier"], abs=1e-5)


def test_a_bad_molecule_file_ends_with_one_line(tmp_path):
    (tmp_path / "m.smi").write_text("C[Si]\n")
    command = [sys.executable, str(FOLDER / "find.py"), "--molecules", str(tmp_path / "m.smi")]
    done = subprocess.run([*command, "--journal", str(tmp_path / "j")], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "C[Si]" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def shipped():
    return selection.accepted(find.read_journal(FOLDER / "journal"))


def test_what_is_accepted(shipped):
    records, funnel = shipped
    assert len(records) >= 500
    assert funnel["duplicate"] > 0
    barriers = np.array([record["barrier"] for record in records])
    assert barriers.max() <= 5
    assert np.mean(barriers < 3) >= 1 / 3
    seen = set()
    for record in records:
        waves = record["transition_state"]["wavenumbers"]
        assert waves[0] < -50
        assert waves[1] > -20
        assert record["kind"] == "conformational" or record["names"][0] != record["names"][1]
        assert max(len(record["numbers"]), 3) <= 20
        assert sum(n > 1 for n in record["numbers"]) <= 7
        key = (*sorted(record["names"]), round(record["transition_state"]["energy"], 3))
        assert key not in seen
        seen.add(key)
        for state in ("reactant_state", "transition_state", "product_state"):
            found = record[state]["configuration"]
            assert found["fractional"] < 0.01
            assert found["triplet"] > 0
    assert np.mean([record["kind"] == "conformational" for record in records]) < 0.1


@pytest.mark.parametrize("split", [selection.by_reaction, selection.by_composition])
def test_no_species_of_a_test_reaction_is_trained_on(shipped, split):
    records, _ = shipped
    parts = split(records, 7)
    of = {
        part: {s for r, p in zip(records, parts, strict=True) if p == part for s in selection.species(r)}
        for part in parts
    }
    assert not of["test"] & (of["train"] | of["val"])
    assert not of["val"] & of["train"]
    share = {part: parts.count(part) / len(parts) for part in parts}
    assert share["test"] > 0.1
    assert share["val"] > 0.05
    assert share["train"] > 0.5
    if split is selection.by_composition:
        formulas = [
            {selection.formula(r) for r, p in zip(records, parts, strict=True) if p == part}
            for part in ("train", "test")
        ]
        assert not formulas[0] & formulas[1]


def test_the_list_of_reactions_marks_what_a_chemist_would_not_count(shipped):
    records, _ = shipped
    with (FOLDER / "reactions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(records)
    kinds = [row["kind"] for row in rows]
    assert kinds.count("reaction") >= 500
    for row, record in zip(rows, records, strict=True):
        assert row["name"].endswith(f"{record['smiles'][0]} >> {record['smiles'][1]}")
        assert float(row["barrier_eV"]) == pytest.approx(record["barrier"], abs=1e-3)
        if row["kind"] == "reaction":
            assert record["names"][0] != record["names"][1]
        if row["kind"] == "degenerate":  # the same moments of inertia, too: no distance was taken for another
            moments = [
                Atoms(record["numbers"], np.reshape(record[end]["positions"], (-1, 3))).get_moments_of_inertia()
                for end in ("reactant_state", "product_state")
            ]
            assert np.allclose(*moments, rtol=5e-3, atol=0.05)


def test_a_minimum_is_found_again_in_another_order_and_as_a_mirror_image(shipped):
    record = shipped[0][0]
    state, order = record["reactant_state"], np.random.default_rng(0).permutation(len(record["numbers"]))
    turned = np.reshape(state["positions"], (-1, 3))[order] * [1, 1, -1] + 3.0
    numbers = [record["numbers"][i] for i in order]
    assert selection.alike(record["numbers"], state, numbers, {**state, "positions": turned})
    turned[0] += 0.1
    assert not selection.alike(record["numbers"], state, numbers, {**state, "positions": turned})
    assert not selection.alike(record["numbers"], state, numbers, {**state, "energy": state["energy"] + 0.01})


def test_what_test_reactions_share_with_the_others_is_what_the_card_says(shipped):
    records, _ = shipped
    parts = selection.by_reaction(records, load("build").SEED)
    shared = selection.shared_minima(records, parts)
    assert len({first for first, _ in shared}) == 3
    for pair in shared:  # of ends made of small fragments only, as README.md says
        common = set.intersection(*({p for n in records[i]["names"] for p in n.split(".")} for i in pair))
        assert all(graphs.heavy_atoms_of(part) <= selection.SMALL for part in common)
    known = {name for r, p in zip(records, parts, strict=True) if p in ("train", "val") for name in r["names"]}
    tests = [r for r, p in zip(records, parts, strict=True) if p == "test"]
    assert sum(bool(set(r["names"]) & known) for r in tests) == 5
    card = " ".join((FOLDER / "card.yaml").read_text().split())
    assert (
        "27 share a fragment of at most two heavy atoms with training or validation, five a whole end of the same "
        "molecules, three of these the same minimum" in card
    )


def test_displaced_points_leave_out_the_path(shipped):
    build = load("build")
    record = min(shipped[0], key=lambda r: len(r["numbers"]))
    numbers = np.array(record["numbers"])
    engine = TbliteEngine()
    points = []
    for geometry in build.geometries(record, "one"):
        labels = engine.calculate(geometry, hessian=True)
        points.append(geometry.replace(energy=labels.energy, forces=labels.forces, hessian=labels.hessian))
    moved = build.displaced(points, "one")
    assert len(moved) == build.DISPLACED
    top = next(p for p in points if p.role == "transition_state")
    from ase.data import atomic_masses

    masses = atomic_masses[numbers]
    mode = normal_modes(np.asarray(top.hessian), top.positions, masses)[1][:, 0]
    step = ((moved[0].positions - top.positions) * np.sqrt(masses)[:, None]).ravel()
    assert np.linalg.norm(step) > 0.01
    assert abs(step @ mode) < 1e-6 * np.linalg.norm(step)
    assert np.abs((np.sqrt(masses)[:, None] * step.reshape(-1, 3)).sum(axis=0)).max() < 1e-8  # centre of mass rests


def test_attempts_that_cannot_work_say_why():
    methane = graphs.from_smiles("C")
    carbene = next(iter(graphs.rearrangements(methane).values()))
    record = search.attempt(methane, carbene, 99, 1)
    assert record["reason"] == "no further conformer"
    assert record["stage"] == "tried"


def test_the_store_that_ships_is_the_recipe_s(shipped, tmp_path):
    """Two reactions built again agree with what ships."""
    records, _ = shipped
    build = load("build")
    store = HessianStore(FOLDER / "reactions-xtb.zarr")
    names = build.names_of(records)
    chosen = [0, len(records) // 2]
    for index in chosen:
        for geometry in build.geometries(records[index], names[index])[:4]:
            (found,) = [i for i in range(len(store)) if store.label(i) == geometry.label]
            labels = TbliteEngine().calculate(geometry, hessian=True)
            old = store[found]
            assert old.energy == pytest.approx(labels.energy, abs=1e-6)
            np.testing.assert_allclose(old.forces, labels.forces, atol=1e-4)
            np.testing.assert_allclose(old.hessian, (labels.hessian + labels.hessian.T) / 2, atol=5e-3)


def test_the_small_store_is_part_of_the_large_one():
    """Same names, same parts, same labels: a model trained on the training part of one can be tested on the other."""
    small, large = HessianStore(FOLDER / "small.zarr.zip"), HessianStore(FOLDER / "reactions-xtb.zarr")
    place = {large.label(i): i for i in range(len(large))}
    found = np.array([place[small.label(i)] for i in range(len(small))])
    assert small.split_schemes == large.split_schemes
    for scheme in small.split_schemes:
        (codes, parts), (all_codes, all_parts) = small.split(scheme), large.split(scheme)
        assert parts == all_parts
        np.testing.assert_array_equal(codes, all_codes[found])
    assert set(small.split("reaction_all")[0]) == set(range(len(parts)))
    for i in range(0, len(small), 40):
        np.testing.assert_allclose(small[i].hessian, large[int(found[i])].hessian, atol=5e-3)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["build.py", "-o", "x.zarr", "--reactions", "1"], "--reactions: expected 3 or more"),
        (["build.py", "-o", "x.zarr", "--processes", "0"], "--processes: expected 1 or more"),
        (["report.py", "--journal", "nowhere"], "--journal nowhere: expected a folder of attempts"),
    ],
    ids=["too few reactions", "no process", "no journal"],
)
def test_commands_say_what_they_expect_before_anything_is_written(command, said, tmp_path):
    done = subprocess.run(
        [sys.executable, FOLDER / command[0], *command[1:]], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_building_refuses_what_it_would_replace_or_mistake_before_it_labels_anything(tmp_path):
    def build(*options):
        command = [sys.executable, FOLDER / "build.py", "--reactions", "3", "--processes", "1", *options]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        return done.stderr

    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("kept")
    assert "is no Hessian store, so it is not replaced" in build("-o", "notes", "--overwrite")
    assert "exists already" in build("-o", "notes")
    (tmp_path / "file").touch()
    assert "--work file: expected a folder" in build("-o", "x.zarr", "--work", "file")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "points.sha256").write_text("of other reactions")
    assert "holds labels of other geometries" in build("-o", "x.zarr", "--work", "work")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "notes", "work"]
    assert (tmp_path / "notes" / "mine.txt").read_text() == "kept"
