"""Real outputs of many programs: each converts to the reference, or is refused in one line that says why."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from nequip_hessian.checks import check
from nequip_hessian.cli import main
from nequip_hessian.curvature import normal_modes, rotate_vectors
from nequip_hessian.formats import format_of, read
from nequip_hessian.frequencies import match_frequencies
from nequip_hessian.identities import dipole_sum
from nequip_hessian.store import HessianStore
from nequip_hessian.units import BOHR, DEBYE

CASES = Path(__file__).resolve().parents[2] / "shared" / "cases"
EXPECTED = json.loads((CASES / "expected.json").read_text()) if (CASES / "expected.json").is_file() else {}
READ_NOW = {
    "gaussian-log": "gaussian-log",
    "fchk": "fchk",
    "orca-hess": "orca-hess",
    "qchem-out": "qchem-out",
    "qcschema-json.xz": "qcschema",
    "xtb-hessian": "xtb-hessian",
    "psi4-out": "psi4-out",
    "psi4-hess": "psi4-hess",
    "nwchem-out": "nwchem-out",
    "gamess-dat": "gamess-dat",
    "gamess-out": "gamess-out",
    "molpro-out": "molpro-out",
    "turbomole-control": "turbomole",
    "dftb-hessian": "dftb-hessian",
    "npy": "q2mm-npy",
    "jaguar-in": "jaguar-in",
    "cfour-out": "cfour-out",
    "dalton-out": "dalton-out",
    "gamess-uk-out": "gamess-uk-out",
    "pysis-h5": "pysisyphus-h5",
}
# Readable, but no true Hessian of their geometry, and so refused by `convert`.
STALE = "fchk_peroxide_irc"  # its Hessian belongs to an earlier geometry
NOT_INVARIANT = "nw_butane"  # block columns sum to a third of the largest element
OTHER_FREQUENCIES = "h5_ts60"  # the frequencies stored beside it are of another Hessian, by up to 22 cm^-1
REFUSED_BY_PHYSICS = (STALE, NOT_INVARIANT, OTHER_FREQUENCIES)
WITHOUT_REFERENCE = ("guk_dvb",)  # five printed decimals: the independent reader left it out
# The independent reader took the last geometry before the Hessian, which in a job of differences of
# gradients is the one with an atom moved by 0.001 angstrom; the file prints the undisplaced one behind it.
DISPLACED_REFERENCE = ("qc_sn2", "qc_co")

CONVERT = [name for name, case in EXPECTED.items() if case["expect"] == "convert" and case["format"] in READ_NOW]
DATASETS = [name for name, case in EXPECTED.items() if case["expect"] == "dataset"]  # in tests/formats
REFUSE = [name for name in EXPECTED if name not in (*CONVERT, *DATASETS)]
NO_CASES = [pytest.param("none", marks=pytest.mark.skip(reason=f"the folder of real outputs is not there: {CASES}"))]

pytestmark = pytest.mark.cases


@pytest.fixture(scope="module")
def reference():
    with np.load(CASES / "reference.npz") as arrays:
        return dict(arrays)


def tolerance(verdict: str) -> tuple[float, float]:
    """Absolute (cm^-1) and relative tolerance of recomputed frequencies."""
    if verdict.startswith(("SOUND-const", "REF INCOMPLETE")):
        return 0.03, 3.5e-5
    if verdict.startswith("UNSOUND"):  # DALTON: an independent reader finds the same scatter of 5e-4
        return 1.6, 0.0
    return (0.5, 0.0) if verdict.startswith("FAIR") else (0.03, 0.0)


def deviation(printed, record):
    """Largest difference of printed and recomputed vibrations, cm^-1.

    Where the program printed all 3N modes, those below 60 cm^-1 may be rigid motions: six printed digits of a
    matrix with elements of 3000 cm^-1 leave them uncertain by half a wavenumber.
    """
    if len(printed) <= 3 * len(record) - 5:
        return match_frequencies(printed, record.hessian, record.positions, record.masses).deviation
    values = normal_modes(record.hessian, record.positions, record.masses, project=False)[0]
    printed = np.sort(printed)
    difference = np.abs(values[np.abs(values) > 60.0] - printed[np.abs(values) > 60.0])
    assert np.max(np.abs(values - printed)) < 0.5
    return np.max(difference)


@pytest.mark.parametrize("name", CONVERT or NO_CASES)
def test_hessian_and_geometry_are_those_of_the_reference(name, reference):
    case = EXPECTED[name]
    path = CASES / case["file"]
    assert format_of(path).name == READ_NOW[case["format"]]
    (record,) = read(path)
    assert record.masses is not None
    assert record.provenance["source"] == path.name
    assert record.provenance["size"] == path.stat().st_size
    if name in WITHOUT_REFERENCE:
        assert record.formula == case["formula"]
        return
    assert record.numbers.tolist() == reference[f"{name}__Z"].tolist()
    wanted = reference[f"{name}__H"]
    assert np.max(np.abs(record.hessian - wanted)) <= 1e-6 * np.max(np.abs(wanted))
    allowed = 1.1e-3 if name in DISPLACED_REFERENCE else 1e-6
    assert np.max(np.abs(record.positions - reference[f"{name}__x"])) < allowed


@pytest.mark.parametrize("name", [name for name in CONVERT if name != OTHER_FREQUENCIES] or NO_CASES)
def test_frequencies_are_those_printed(name):
    case = EXPECTED[name]
    printed = np.array([value for value in case.get("printed_frequencies_cm") or [] if value != 0.0])
    (record,) = read(CASES / case["file"])
    if len(printed) == 0:
        assert record.frequencies is None or name == "gv_Al_atom"
        return
    absolute, relative = tolerance(case["verdict"])
    if record.frequencies is not None:  # the reader finds the same list in the file, perhaps without rigid motions
        assert len(printed) - 6 <= len(record.frequencies) <= len(printed)
        assert all(np.min(np.abs(printed - value)) < 0.01 for value in record.frequencies)
        printed = record.frequencies
    assert deviation(printed, record) <= absolute + relative * np.max(np.abs(printed))


@pytest.mark.parametrize("name", [name for name in CONVERT if name not in REFUSED_BY_PHYSICS] or NO_CASES)
def test_conversion_of_one_file(name, tmp_path, capsys):
    case = EXPECTED[name]
    path = CASES / case["file"]
    assert main(["convert", str(path), "-o", str(tmp_path / "s.zarr")]) == 0
    printed = capsys.readouterr()
    assert "1 taken" in printed.out
    assert printed.err == ""
    (record,) = read(path)
    with_kind, found = check(record)
    store = HessianStore(tmp_path / "s.zarr")
    assert len(store) == 1
    assert np.array_equal(store[0].hessian, record.hessian)
    assert store[0].kind == with_kind.kind
    assert found.verdict in ("ok", "undetermined")
    kinds = {"minimum": 0, "transition_state": 1, "higher_saddle": 2}
    if "NON-STATIONARY" in case["kind"]:
        assert with_kind.kind == "other"
    elif with_kind.kind in kinds:
        imaginary = {"TS (1 imag)": 1, "2 imag": 2}.get(case["kind"], 0)
        assert kinds[with_kind.kind] == imaginary


@pytest.mark.parametrize("name", REFUSE or NO_CASES)
def test_refusal_is_one_line_and_writes_nothing(name, tmp_path, capsys):
    path = CASES / EXPECTED[name]["file"]
    assert main(["convert", str(path), "-o", str(tmp_path / "s.zarr")]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert str(path) in line
    reason = line.split(str(path), 1)[1]
    assert any(word in reason for word in ("no Hessian", "no Cartesian Hessian", "failed", "not supported", "without",
                                           "NumPy", "did not end"))  # fmt: skip
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(STALE not in EXPECTED, reason=f"the folder of real outputs is not there: {CASES}")
def test_stale_hessian_is_refused_by_the_rotational_identity(tmp_path, capsys):
    path = CASES / EXPECTED[STALE]["file"]
    assert main(["convert", str(path), "-o", str(tmp_path / "s.zarr")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "does not turn with the geometry" in line
    assert "belongs to another geometry" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(NOT_INVARIANT not in EXPECTED, reason=f"the folder of real outputs is not there: {CASES}")
def test_hessian_that_feels_translations_is_refused(tmp_path, capsys):
    path = CASES / EXPECTED[NOT_INVARIANT]["file"]
    assert main(["convert", str(path), "-o", str(tmp_path / "s.zarr")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "do not sum to zero" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "pattern", "text"),
    [
        ("fchk_pil_ZE", r"Dipole Moment .*\n(.*)", None),
        ("fchk_h2o", r"Dipole Moment .*\n(.*)", None),
        ("orca_pyv_h2o", r"Total Dipole Moment\s+:(.*)", "pyvibms/orca_h2o/h2o.out"),
    ],
)
def test_dipole_derivatives_obey_their_exact_identities(name, pattern, text):
    """They sum to the charge, and a rotation of the molecule turns its dipole: order, frame and unit are right."""
    path = CASES / EXPECTED[name]["file"]
    (record,) = read(path)
    derivatives = record.dipole_derivatives
    charge = record.charge or 0
    assert np.allclose(derivatives.reshape(-1, 3, 3).sum(axis=0), charge * np.eye(3), atol=1e-3)
    content = (CASES / (text or EXPECTED[name]["file"])).read_text()
    moment = np.array([float(value) for value in re.findall(pattern, content)[-1].split()])  # e a0
    turned = rotate_vectors(record.positions / BOHR)
    assert np.allclose(derivatives.T @ turned, rotate_vectors(moment[None]), atol=1e-3)


PRINTS_DIPOLE_DERIVATIVES = ("gaussian-log", "gamess-out", "gamess-dat", "nwchem-out")
NOT_PRINTED = ("g09_tmp",)  # frozen atoms: the archive has no DipoleDeriv
MOVES_WITH_THE_ATOMS = ("orca_reopt", "orca_rmg_TS")  # ions: ORCA's dipole is about the centre of mass


@pytest.mark.parametrize(
    "name",
    [n for n in CONVERT if EXPECTED[n]["format"] in PRINTS_DIPOLE_DERIVATIVES and n not in NOT_PRINTED] or NO_CASES,
)
def test_dipole_derivatives_of_outputs_sum_to_the_charge(name):
    (record,) = read(CASES / EXPECTED[name]["file"])
    assert record.dipole_derivatives is not None
    if name != NOT_INVARIANT:
        assert dipole_sum(record.dipole_derivatives, record.charge)[0] < 0.02


@pytest.mark.parametrize("name", MOVES_WITH_THE_ATOMS if EXPECTED else NO_CASES)
def test_dipole_derivatives_about_a_moving_origin_are_a_warning(name):
    (record,) = read(CASES / EXPECTED[name]["file"])
    found = check(record)[1]
    assert any("do not sum to the charge (-1 e)" in text for text in found.warnings)


@pytest.mark.parametrize(
    ("name", "moment"),
    [("aaron_freq", r"\\Dipole=([^\\]*)"), ("gms_bicarb", r"DX +DY +DZ +/D/ +\(DEBYE\)\n((?: *-?\d+\.\d+){3})")],
)
def test_dipole_derivatives_of_outputs_turn_with_the_molecule(name, moment):
    """Order and frame: the transposed table breaks this identity."""
    path = CASES / EXPECTED[name]["file"]
    (record,) = read(path)
    text = path.read_text().replace("\n ", "") if name == "aaron_freq" else path.read_text()
    printed = np.array([float(value) for value in re.findall(moment, text)[-1].replace(",", " ").split()])
    dipole = printed if name == "aaron_freq" else printed * DEBYE / BOHR
    turned = rotate_vectors(record.positions / BOHR)
    expected = rotate_vectors(dipole[None])
    table = record.dipole_derivatives
    assert np.max(np.abs(table.T @ turned - expected)) < 0.01
    assert np.max(np.abs(table.reshape(-1, 3, 3).transpose(0, 2, 1).reshape(-1, 3).T @ turned - expected)) > 0.05


@pytest.mark.skipif(not EXPECTED, reason=f"the folder of real outputs is not there: {CASES}")
def test_whole_folder_of_cases(tmp_path, capsys):
    """Everything at once: nothing sound is refused, companions are not reported, exit status 3."""
    assert main(["convert", str(CASES), "-o", str(tmp_path / "s.zarr"), "--group", "none"]) == 3
    report = json.loads((tmp_path / "s.zarr.report.json").read_text())
    status = {}
    for entry in report["entries"]:
        status.setdefault(entry["source"], entry["status"])
    for name in CONVERT:
        if name not in REFUSED_BY_PHYSICS:
            assert status[str(CASES / EXPECTED[name]["file"])] in ("taken", "duplicate"), name
    own = {case["file"] for case in EXPECTED.values()}
    for name in CONVERT:
        for companion in EXPECTED[name].get("aux") or []:
            if companion in own or companion.endswith("unimovib_job.out"):
                continue  # converted for itself; the output of another program on the same data
            assert status.get(str(CASES / companion), "companion") == "companion", companion
    assert report["counts"]["taken"] == len(HessianStore(tmp_path / "s.zarr"))
    printed = capsys.readouterr()
    assert all(line.startswith("nequip-hessian convert: ") for line in printed.err.splitlines())


@pytest.mark.skipif(not EXPECTED, reason=f"the folder of real outputs is not there: {CASES}")
def test_table_in_the_documentation_has_every_case():
    """`python tests/cases_table.py` makes it; what it says of a case is what the tests above find."""
    page = (Path(__file__).resolve().parents[1] / "docs" / "formats.md").read_text()
    rows = [
        line.split(" | ") for line in page.partition("<!-- cases: begin -->")[2].splitlines() if line.startswith("| ")
    ]
    table = {row[0].strip("| "): row for row in rows if row[0] != "| case"}
    assert set(table) == set(EXPECTED)
    for name, row in table.items():
        taken = name in CONVERT and name not in REFUSED_BY_PHYSICS
        if name not in DATASETS:
            assert row[4].startswith("taken" if taken else "refused: "), name
