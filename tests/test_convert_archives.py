"""Archives as inputs of a conversion: read like the folder they hold, and never trusted."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import shutil
import sys
from pathlib import Path

import hostile
import numpy as np
import pytest
from hostile import TAR, tarred, zipped

from nequip_hessian import archives
from nequip_hessian.archives import is_archive, unpack
from nequip_hessian.cli import main
from nequip_hessian.convert import convert, convert_share
from nequip_hessian.errors import FormatError
from nequip_hessian.executors import Executor
from nequip_hessian.formats import read
from nequip_hessian.store import HessianStore, StoreWriter

sys.path.insert(0, str(Path(__file__).parent / "formats"))
import emitters

DATA = Path(__file__).parent / "formats" / "data"


@pytest.fixture(scope="module")
def outputs() -> dict[str, bytes]:
    """Real outputs with companions, a reaction, hidden and other files, by their names in an archive."""
    found = {f"{folder}/{path.name}": path.read_bytes()
             for folder in ("psi4", "xtb_formaldehyde") for path in (DATA / folder).iterdir()}  # fmt: skip
    for seed, role in enumerate(("reactant", "ts", "product"), 1):
        found[f"r/{role}.fchk"] = emitters.fchk(emitters.made("H2CO", seed=seed)).encode()
    return {"./notes.txt": b"nothing", ".hidden/x.fchk": found["r/ts.fchk"], **dict(sorted(found.items()))}


@pytest.fixture(scope="module")
def folder(outputs, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("plain") / "jobs"
    for name, content in outputs.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def content(target: Path) -> list:
    """What two stores of the same geometries have in common, whatever their files are called."""
    store = HessianStore(target)
    records = [(r.label, r.role, r.kind, r.energy, r.positions.tobytes(), r.hessian.tobytes()) for r in store[:]]
    return [records, [store.group_label(int(g)) for g in store.group]]


@pytest.fixture(scope="module")
def plain(folder, tmp_path_factory) -> list:
    target = tmp_path_factory.mktemp("plain") / "s.zarr"
    assert convert([folder], target).exit_status == 0
    return content(target)


@pytest.mark.parametrize("ending", [*TAR, ".zip", ".TAR.GZ"])
def test_an_archive_is_read_like_the_folder_in_it(outputs, plain, tmp_path, ending):
    path = tmp_path / f"jobs{ending}"
    path.write_bytes(zipped(outputs) if ending == ".zip" else TAR[ending.lower()](tarred(outputs)))
    report = convert([path], tmp_path / "s.zarr")
    assert report.exit_status == 0
    assert content(tmp_path / "s.zarr") == plain
    assert report.counts["taken"] == 6
    assert {str(Path(entry.source).relative_to(path)) for entry in report.entries if entry.status == "taken"} == {
        "psi4/mp2.h2o.hess", "psi4/water.h2o.hess", "xtb_formaldehyde/hessian",
        "r/reactant.fchk", "r/ts.fchk", "r/product.fchk"}  # fmt: skip
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name, "s.zarr", "s.zarr.report.json"]


def test_provenance_names_archive_and_member(outputs, tmp_path):
    path = tmp_path / "jobs.zip"
    path.write_bytes(zipped(outputs))
    convert([path], tmp_path / "s.zarr")
    entry = HessianStore(tmp_path / "s.zarr").attributes["provenance"][0]
    found = {source["name"]: source["size"] for source in entry["sources"]}
    assert found["jobs.zip"] == path.stat().st_size
    assert found["jobs.zip/r/ts.fchk"] == len(outputs["r/ts.fchk"])
    assert found["jobs.zip/xtb_formaldehyde/xtbopt.xyz"] == len(outputs["xtb_formaldehyde/xtbopt.xyz"])
    assert main(["validate", str(tmp_path / "s.zarr")]) == 0


def test_workers_and_shares_of_archives_make_the_same_store(outputs, plain, tmp_path):
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "jobs.tar.xz"
    path.write_bytes(TAR[".tar.xz"](tarred(outputs)))
    convert([tmp_path / "in"], tmp_path / "workers.zarr", executor=Executor(workers=2))
    assert content(tmp_path / "workers.zarr") == plain
    for rank in range(2):
        assert convert_share([path], tmp_path / "shares.zarr", rank, 2).read
    assert (tmp_path / "shares.zarr.unpacked").is_dir()
    convert([path], tmp_path / "shares.zarr", finalize=True)
    assert content(tmp_path / "shares.zarr") == plain
    assert not list(tmp_path.glob("*.unpacked"))


def test_conversion_of_an_archive_resumes(outputs, plain, tmp_path, monkeypatch):
    path, target = tmp_path / "jobs.zip", tmp_path / "s.zarr"
    path.write_bytes(zipped(outputs))
    append = StoreWriter.append

    def interrupted(self, record, quality):
        append(self, record, quality)
        if len(self) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(StoreWriter, "append", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert([path], target, resume=True)
    monkeypatch.undo()
    shutil.rmtree(tmp_path / "s.zarr.unpacked")  # unpacked again to the same files
    assert convert([path], target, resume=True).counts["taken"] == 6
    assert content(target) == plain


def test_what_is_wrong_in_an_archive_is_said_with_its_name(outputs, tmp_path, capsys):
    path = tmp_path / "jobs.zip"
    damaged = outputs["r/ts.fchk"][: len(outputs["r/ts.fchk"]) // 2] + b"\n"
    inner = zipped({"y.fchk": damaged})
    path.write_bytes(zipped({**outputs, "r/bad.fchk": damaged, "r/other.zip": inner}))
    assert main(["convert", str(path), "-o", str(tmp_path / "s.zarr")]) == 3
    refused = [line for line in capsys.readouterr().err.splitlines() if "refused: " in line]
    assert len(refused) == 2
    assert any(f"{path}/r/bad.fchk: line" in line for line in refused)
    assert any(f"{path}/r/other.zip: an archive in an archive; unpack it" in line for line in refused)
    assert not any(".unpacked" in line for line in refused)


def test_archives_in_a_folder_are_read_and_stray_ones_passed_over(outputs, tmp_path, capsys):
    root = tmp_path / "in"
    root.mkdir()
    (root / "a.tar.gz").write_bytes(TAR[".tar.gz"](tarred(outputs)))
    (root / "sources.zip").write_bytes(zipped({"main.c": b"int main(void) {return 0;}"}))
    with StoreWriter(root / "old.zarr.zip", profile="publish") as writer:
        writer.append(emitters.made("H2O"))
    assert main(["convert", str(root), "-o", str(tmp_path / "s.zarr")]) == 0
    assert "6 taken" in capsys.readouterr().out
    entries = json.loads((tmp_path / "s.zarr.report.json").read_text())["entries"]
    assert [e["status"] for e in entries if e["source"].endswith("sources.zip")] == ["ignored"]
    assert main(["convert", str(root / "old.zarr.zip"), "-o", str(tmp_path / "t.zarr")]) == 1
    assert "a Hessian store already" in capsys.readouterr().err


# -- never trusted --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ending", "name"),
    [(ending, name) for ending in (".zip", ".tar") for name in hostile.LEADING_OUT if ending == ".zip" or "/" in name],
)
def test_a_member_that_leads_out_refuses_the_archive(outputs, tmp_path, ending, name, capsys):
    path = tmp_path / "in" / f"jobs{ending}"
    path.parent.mkdir()
    members = {"a.fchk": outputs["r/ts.fchk"], name: outputs["r/product.fchk"]}
    path.write_bytes(zipped(members) if ending == ".zip" else tarred(members))
    assert main(["convert", str(path), "-o", str(tmp_path / "out" / "s.zarr")]) == 1
    assert "leads out of the archive; nothing of it was read" in capsys.readouterr().err
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path]


def test_absolute_names_are_taken_below_the_folder(outputs, tmp_path):
    path = tmp_path / "jobs.tar"
    path.write_bytes(tarred({f"{tmp_path}/elsewhere/x.fchk": outputs["r/ts.fchk"]}))
    assert convert([path], tmp_path / "s.zarr").counts["taken"] == 1
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("kind", hostile.LINKS)
def test_links_and_devices_are_left_out_and_named(outputs, tmp_path, kind, capsys):
    secret = tmp_path / "secret.fchk"
    secret.write_bytes(outputs["r/ts.fchk"])
    (tmp_path / "jobs.tar").write_bytes(hostile.linked(outputs["r/product.fchk"], secret, kind))
    assert main(["convert", str(tmp_path / "jobs.tar"), "-o", str(tmp_path / "s.zarr")]) == 3
    assert "jobs.tar/x.fchk: a link or a device" in capsys.readouterr().err
    assert len(HessianStore(tmp_path / "s.zarr")) == 1


def test_a_link_in_a_zip_is_left_out(outputs, tmp_path, capsys):
    path = tmp_path / "jobs.zip"
    path.write_bytes(hostile.linked_zip(tmp_path))
    assert main(["convert", str(path), "-o", str(tmp_path / "s.zarr")]) == 1
    assert "jobs.zip/x.fchk: a link or a device" in capsys.readouterr().err


@pytest.mark.parametrize("ending", [".zip", ".tar.gz", ".tar.xz"])
def test_a_bomb_is_stopped(tmp_path, monkeypatch, ending, capsys):
    monkeypatch.setattr(archives, "LEAST_LIMIT", 2**21)
    path = tmp_path / f"bomb{ending}"
    path.write_bytes(hostile.bomb(ending))
    assert path.stat().st_size * archives.RATIO < 2**23
    assert main(["convert", str(path), "-o", str(tmp_path / "s.zarr")]) == 1
    assert "unpacks to more than" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [path]


def test_a_zip_that_lies_about_its_size_is_stopped(tmp_path, monkeypatch):
    """What counts is what comes out, not the size that the archive declares."""
    monkeypatch.setattr(archives, "LEAST_LIMIT", 2**18)
    path = tmp_path / "bomb.zip"
    path.write_bytes(hostile.lying_zip())
    with pytest.raises(FormatError, match=r"damaged|more than"):
        unpack(path, tmp_path / "u", lambda name: True)
    assert sum(p.stat().st_size for p in (tmp_path / "u").rglob("*") if p.is_file()) == 0


def test_a_header_of_absurd_size_is_not_read_into_memory(tmp_path):
    path = tmp_path / "x.tar"
    path.write_bytes(hostile.absurd_header())
    with pytest.raises(FormatError, match="a header of"):
        unpack(path, tmp_path / "u", lambda name: True)


def test_encrypted_or_of_another_kind(outputs, tmp_path, capsys):
    (tmp_path / "locked.zip").write_bytes(hostile.encrypted({"x.fchk": outputs["r/ts.fchk"]}))
    (tmp_path / "text.tar.gz").write_text("this is no archive\n")
    (tmp_path / "none.zip").write_text("this is no archive\n")
    names = ("locked.zip", "text.tar.gz", "none.zip", "absent.zip")
    assert main(["convert", *(str(tmp_path / n) for n in names), "-o", str(tmp_path / "s.zarr")]) == 1
    err = capsys.readouterr().err
    assert "locked.zip: the archive is encrypted" in err
    assert err.count("a damaged archive, or none") == 2
    assert "absent.zip: " in err


@pytest.mark.parametrize("ending", [".zip", ".tar", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.lzma"])
def test_an_archive_that_is_cut_or_damaged_is_refused_never_read_in_part(outputs, tmp_path, ending):
    members = {name: outputs[name] for name in ("r/reactant.fchk", "r/ts.fchk", "r/product.fchk")}
    raw = zipped(members) if ending == ".zip" else TAR[ending](tarred(members))
    whole = len(raw) if ending != ".tar" else max(i for i, byte in enumerate(raw) if byte) + 1
    rng = np.random.default_rng(0)
    for number, length in enumerate(rng.integers(1, whole - 1, 25)):
        path = tmp_path / f"{number}{ending}"
        path.write_bytes(raw[:length])
        with pytest.raises(FormatError):
            unpack(path, tmp_path / "u", lambda name: True)
    for number, place in enumerate(rng.integers(0, whole - 1, 25), 100):
        path = tmp_path / f"{number}{ending}"
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 0x55]) + raw[place + 1 :])
        try:
            root = unpack(path, tmp_path / "u", lambda name: True).root
        except FormatError:
            continue
        found = {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}
        if ending != ".tar":  # a plain tar has no checksum of what is in it
            assert sorted(found.values()) == sorted(members.values())


# -- single compressed outputs --------------------------------------------------------------


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".xz", ".lzma"])
def test_a_compressed_output_is_read_like_the_plain_one(tmp_path, ending):
    compress = {**TAR, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".lzma": TAR[".tar.lzma"]}
    sources = [DATA / name for name in ("cp2k/water.out", "mopac/water.out", "nwchem/water.out", "psi4/water.out",
                                        "water_hf_pyscf.json")]  # fmt: skip
    for source in sources:
        path = tmp_path / source.parent.name / f"{source.name}{ending}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(compress[ending](source.read_bytes()))
        assert not is_archive(path)
        one, two = next(read(source)), next(read(path))
        assert (one.label, one.energy, one.hessian.tobytes()) == (two.label, two.energy, two.hessian.tobytes())
    counts = convert([tmp_path], tmp_path / "s.zarr").counts  # three of them are the same molecule at the same level
    assert (counts["taken"], counts["duplicate"]) == (3, 2)
