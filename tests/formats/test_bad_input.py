"""Damaged files: a sound record or a HessianDataError that names the file, never anything else."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import emitters
import numpy as np
import pytest

from nequip_hessian.errors import FormatError, HessianDataError
from nequip_hessian.formats import format_of, formats, read
from nequip_hessian.formats.extxyz import write_extxyz

DATA = Path(__file__).parent / "data"
FIXTURES = ("a.fchk", "a.log", "a.hess", "q.out", "n.out", "water.json", "hessian", "a.xyz")
READERS = {
    "a.fchk": "fchk",
    "a.log": "gaussian-log",
    "a.hess": "orca-hess",
    "q.out": "qchem-out",
    "n.out": "qchem-out",
    "water.json": "qcschema",
    "hessian": "xtb-hessian",
    "a.xyz": "extxyz",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One sound file of each format."""
    path = tmp_path_factory.mktemp("sound")
    isotopic, average = emitters.made(), emitters.made(average=True)
    emitters.write(path / "a.fchk", emitters.fchk(isotopic))
    emitters.write(path / "a.log", emitters.gaussian_log(isotopic))
    emitters.write(path / "a.hess", emitters.orca_hess(average))
    emitters.write(path / "q.out", emitters.qchem_out(isotopic))
    emitters.write(path / "n.out", emitters.qchem_out(isotopic, numerical=True))
    shutil.copy(DATA / "water_hf_pyscf.json", path / "water.json")
    write_extxyz(path / "a.xyz", [isotopic])
    (path / "xtb").mkdir()
    for name in ("hessian", "nh3.xyz", "vibspectrum", "xtb.out"):
        shutil.copy(DATA / "xtb_planar_ammonia" / name, path / "xtb" / name)
    return path


def place(folder: Path, name: str, tmp_path: Path) -> Path:
    """Copy a fixture, with its companions, to a folder of its own."""
    if name == "hessian":
        shutil.copytree(folder / "xtb", tmp_path, dirs_exist_ok=True)
    else:
        shutil.copy(folder / name, tmp_path / name)
    return tmp_path / name


def outcome(path: Path, reader: str | None) -> list | HessianDataError:
    """Read all records, or return the error; any other exception is a failure of the test."""
    try:
        return list(read(path, reader))
    except HessianDataError as exc:
        return exc


def refused(result: list | HessianDataError, path: Path) -> bool:
    """Whether reading was refused, in one line that names the file."""
    if isinstance(result, list):
        return False
    assert path.name in str(result)
    assert "\n" not in str(result)
    return True


def attempt(path: Path, reader: str | None, reference) -> str:
    """Read; what comes back has the numbers of the sound file, or the error names the file."""
    records = outcome(path, reader)
    if refused(records, path):
        return "refused"
    assert len(records) == 1
    assert records[0].numbers.tolist() == reference.numbers.tolist()
    assert np.max(np.abs(records[0].hessian - reference.hessian)) < 1e-9
    assert np.max(np.abs(records[0].positions - reference.positions)) < 1e-9
    assert np.allclose(records[0].masses, reference.masses, rtol=1e-12)
    if records[0].energy is not None:
        assert records[0].energy == reference.energy
    if records[0].forces is not None:
        assert np.array_equal(records[0].forces, reference.forces, equal_nan=True)
    return "read"


@pytest.mark.parametrize("name", FIXTURES)
def test_cut_at_any_byte(folder, tmp_path, name):
    path = place(folder, name, tmp_path)
    whole = path.read_bytes()
    (reference,) = read(path)
    outcomes = []
    for cut in np.linspace(0, len(whole) - 2, 40).astype(int):
        path.write_bytes(whole[:cut])
        outcomes.append(attempt(path, READERS[name], reference))
        attempt(path, None, reference)
    assert outcomes.count("refused") > 10  # a cut before the end of the Hessian is noticed


@pytest.mark.parametrize("name", FIXTURES)
def test_damaged_at_any_line(folder, tmp_path, name):
    """A line lost, doubled, or with a number replaced by text or NaN: refused, or the same record."""
    path = place(folder, name, tmp_path)
    lines = path.read_text().split("\n")
    rng = np.random.default_rng(3)
    for index in rng.integers(0, len(lines), 25):
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
            records = outcome(path, READERS[name])
            if not refused(records, path):
                assert all(record.hessian is None or np.all(np.isfinite(record.hessian)) for record in records)


@pytest.mark.parametrize("name", FIXTURES)
def test_random_bytes_inside(folder, tmp_path, name):
    path = place(folder, name, tmp_path)
    whole = bytearray(path.read_bytes())
    rng = np.random.default_rng(5)
    for _ in range(25):
        noisy = bytearray(whole)
        at = int(rng.integers(0, len(whole) - 8))
        noisy[at : at + 8] = rng.integers(1, 256, 8, dtype=np.uint8).tobytes()
        path.write_bytes(bytes(noisy))
        refused(outcome(path, READERS[name]), path)


@pytest.mark.parametrize("name", FIXTURES)
def test_line_ends_of_windows_and_latin_1(folder, tmp_path, name):
    path = place(folder, name, tmp_path)
    (reference,) = read(path)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert attempt(path, None, reference) == "read"
    if name in ("a.fchk", "a.log", "q.out", "n.out"):
        text = path.read_bytes().replace(b"Title", b"T\xeftle").replace(b"Pleasanton", b"Pl\xe9asanton")
        path.write_bytes(text.replace(b"A title", b"\xc5ngstr\xf6m"))
        assert attempt(path, None, reference) == "read"


@pytest.mark.parametrize("reader", sorted(formats()))
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b" \n\n", "empty"),
        (bytes(range(256)) * 4, "binary"),
        (b"\x93NUMPY\x01\x00" + bytes(100), "NumPy"),
        (b"x" * 3_000_000, None),
        (b"1 2 3\n" * 50, None),
        (b"\xff\xfe" * 40, None),
    ],
)
def test_files_of_no_format(tmp_path, reader, content, message):
    path = tmp_path / "file.dat"
    path.write_bytes(content)
    for chosen in (reader, None):
        with pytest.raises(FormatError, match=message) as caught:
            list(read(path, chosen))
        assert "file.dat" in str(caught.value)
        assert len(str(caught.value)) < 1000  # the list of all formats is the longest


@pytest.mark.parametrize("reader", sorted(formats()))
def test_folder_and_missing_file(tmp_path, reader):
    with pytest.raises(FormatError, match="found a folder"):
        list(read(tmp_path, reader))
    with pytest.raises(FormatError, match="No such file"):
        list(read(tmp_path / "absent", reader))


def test_unknown_format_name(tmp_path):
    with pytest.raises(FormatError, match=r"expected one of .*extxyz, fchk"):
        list(read(tmp_path / "a", "gaussian"))


def test_hessian_of_another_number_of_atoms(folder, tmp_path):
    path = place(folder, "a.hess", tmp_path)
    lines = path.read_text().split("\n")
    at = lines.index("$atoms")
    del lines[at + 2]
    lines[at + 1] = "3"
    path.write_text("\n".join(lines))
    with pytest.raises(FormatError, match=r"expected 9 rows for 3 atoms, found 12"):
        list(read(path))


def test_programs_that_are_recognised_but_not_read(tmp_path):
    path = tmp_path / "a.out"
    path.write_text("              *        TeraChem v1.9-2018.10-dev        *\n")
    with pytest.raises(FormatError, match="looks like TeraChem output, not supported yet"):
        format_of(path)
