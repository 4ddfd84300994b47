"""Damaged outputs of programs: a sound record or a HessianDataError that names the file, never anything else."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import emitters
import numpy as np
import pytest
import sound_files
from test_bad_input import attempt, outcome, refused

from nequip_hessian.formats import read

DATA = Path(__file__).parent / "data"

# Name of the fixture -> reader, file; the folder of the fixture holds the companions.
FIXTURES = {
    "psi4": ("psi4-out", "water.out"),
    "psi4-hess": ("psi4-hess", "mp2.h2o.hess"),
    "nwchem": ("nwchem-out", "water.out"),
    "nwchem-hess": ("nwchem-hess", "water.hess"),
    "cp2k": ("cp2k-out", "water.out"),
    "cp2k-fixed": ("cp2k-out", "fixed.out"),
    "mopac": ("mopac-out", "water.out"),
    "outcar": ("vasp-outcar", "OUTCAR"),
    "outcar-free": ("vasp-outcar", "OUTCAR"),
    "vasprun": ("vasprun", "vasprun.xml"),
    "gamess": ("gamess-out", "a.out"),
    "punch": ("gamess-dat", "a.dat"),
    "molpro": ("molpro-out", "a.out"),
    "turbomole": ("turbomole", "control"),
    "dftb": ("dftb-hessian", "hessian.out"),
    "jaguar": ("jaguar-in", "a.01.in"),
    "cfour": ("cfour-out", "cfour.out"),
    "aces3": ("aces3-out", "a.out"),
    "dalton": ("dalton-out", "a.out"),
    "gamess-uk": ("gamess-uk-out", "a.out"),
    "unimovib": ("unimovib", "a.umv"),
}
COMPANIONS = {"psi4-hess": [("psi4", "mp2.out")], "nwchem-hess": [("nwchem", "water.out")]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One sound file of each format, with its companions, in a folder of its own."""
    path = tmp_path_factory.mktemp("sound")
    files = sound_files.each_format()
    for name, (_, main) in FIXTURES.items():
        for file, text in files.get(name, {}).items():
            emitters.write(path / name / file, text)
        for source, file in [(name.split("-")[0], main), *COMPANIONS.get(name, [])]:
            if name not in files:
                (path / name).mkdir(exist_ok=True)
                shutil.copy(DATA / source / file, path / name / file)
    return path


def place(folder: Path, name: str, tmp_path: Path) -> Path:
    shutil.copytree(folder / name, tmp_path, dirs_exist_ok=True)
    return tmp_path / FIXTURES[name][1]


@pytest.mark.parametrize("name", FIXTURES)
def test_cut_at_any_byte(folder, tmp_path, name):
    """Cut anywhere, also in the middle of a number: refused, or the numbers of the whole file."""
    path, reader = place(folder, name, tmp_path), FIXTURES[name][0]
    whole = path.read_bytes()
    (reference,) = read(path)
    rng = np.random.default_rng(11)
    cuts = [*np.linspace(0, len(whole) - 2, 15).astype(int), *rng.integers(1, len(whole) - 1, 10)]
    results = []
    for cut in cuts:
        path.write_bytes(whole[:cut])
        results.append(attempt(path, reader, reference))
        attempt(path, None, reference)
    assert results.count("refused") > 5


@pytest.mark.parametrize("name", FIXTURES)
def test_cut_inside_the_last_numbers_of_the_hessian(folder, tmp_path, name):
    """Where a cut could shorten a number without a sign of it."""
    path, reader = place(folder, name, tmp_path), FIXTURES[name][0]
    whole = path.read_bytes()
    (reference,) = read(path)
    last = [match.end() for match in re.finditer(rb"\d\.\d+", whole)]
    rng = np.random.default_rng(13)
    for end in [*last[-6:], *rng.choice(last, 15)]:
        path.write_bytes(whole[: end - 2])
        attempt(path, reader, reference)


@pytest.mark.parametrize("name", FIXTURES)
def test_damaged_at_any_line(folder, tmp_path, name):
    """A line lost, doubled, or with a number replaced by stars or NaN: refused, or a finite record."""
    path, reader = place(folder, name, tmp_path), FIXTURES[name][0]
    (reference,) = read(path)
    lines = path.read_text().split("\n")
    rng = np.random.default_rng(3)
    for index in rng.integers(0, len(lines), 12):
        for change in ("lost", "doubled", "stars", "nan"):
            new = list(lines)
            if change == "lost":
                del new[index]
            elif change == "doubled":
                new.insert(index, lines[index])
            else:
                word = "********" if change == "stars" else "NaN"
                new[index] = re.sub(r"-?\d+\.\d+", word, lines[index], count=1)
            path.write_text("\n".join(new))
            records = outcome(path, reader)
            if not refused(records, path):
                (record,) = records
                assert np.max(np.abs(record.hessian - reference.hessian)) < 1e-9, (index, change, lines[index])


@pytest.mark.parametrize("name", FIXTURES)
def test_random_bytes_inside(folder, tmp_path, name):
    path, reader = place(folder, name, tmp_path), FIXTURES[name][0]
    whole = bytearray(path.read_bytes())
    rng = np.random.default_rng(5)
    for _ in range(15):
        noisy = bytearray(whole)
        at = int(rng.integers(0, len(whole) - 8))
        noisy[at : at + 8] = rng.integers(1, 256, 8, dtype=np.uint8).tobytes()
        path.write_bytes(bytes(noisy))
        refused(outcome(path, reader), path)
        refused(outcome(path, None), path)


@pytest.mark.parametrize("name", FIXTURES)
def test_line_ends_of_windows(folder, tmp_path, name):
    path = place(folder, name, tmp_path)
    (reference,) = read(path)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert attempt(path, None, reference) == "read"


@pytest.mark.parametrize("name", ["psi4-hess", "nwchem-hess", "punch", "turbomole", "dftb", "jaguar", "cfour"])
def test_damaged_companions(folder, tmp_path, name):
    """A companion that is cut or full of noise makes the file refused, or is as good as absent."""
    path, reader = place(folder, name, tmp_path), FIXTURES[name][0]
    (reference,) = read(path)
    rng = np.random.default_rng(7)
    for beside in sorted(tmp_path.iterdir()):
        whole = beside.read_bytes()
        if beside == path:
            continue
        for cut in rng.integers(0, len(whole), 8):
            beside.write_bytes(whole[:cut])
            records = outcome(path, reader)
            if isinstance(records, list):
                assert np.array_equal(records[0].hessian, reference.hessian)
                assert np.max(np.abs(records[0].positions - reference.positions)) < 1e-7
            else:
                assert path.name in str(records) or beside.name in str(records)
        beside.write_bytes(whole)
