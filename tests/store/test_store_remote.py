"""Stores behind a network: moto's S3 and a plain web server on loopback; the same numbers, few requests."""

from __future__ import annotations

import os
import pickle
import shutil
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from molecules import labelled

from nequip_hessian.cli import main
from nequip_hessian.errors import MissingExtraError, StoreError
from nequip_hessian.store import HessianStore, StoreWriter, differences, validate
from nequip_hessian.store.files import open_files
from nequip_hessian.store.quality import quality
from nequip_hessian.store.remote import as_url
from nequip_hessian.store.repack import repack

RICH = Path(__file__).parents[1] / "conformance" / "valid" / "rich.zarr.zip"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """local.zarr and remote.zarr, the same store in two profiles, and one with a chunk less."""
    root = tmp_path_factory.mktemp("web")
    for profile in ("local", "remote"):
        repack(RICH, root / f"{profile}.zarr", profile=profile)
    shutil.copytree(root / "remote.zarr", root / "lost.zarr")
    shutil.rmtree(root / "lost.zarr" / "hessian" / "data" / "c")
    return root


class Counted(SimpleHTTPRequestHandler):
    """A file server with ranges that writes down what it is asked for."""

    asked: list[str]

    def do_GET(self):
        type(self).asked.append(self.path)
        path = Path(self.translate_path(self.path))
        wanted = self.headers.get("Range")
        if wanted is None or not path.is_file():
            super().do_GET()
            return
        raw, (low, high) = path.read_bytes(), wanted.removeprefix("bytes=").split("-")
        begin = int(low) if low else len(raw) - int(high)
        end = min(int(high) + 1, len(raw)) if low and high else len(raw)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(raw)}")
        self.send_header("Content-Length", str(end - begin))
        self.end_headers()
        self.wfile.write(raw[begin:end])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def web(folder):
    """Address of the folder, and the list of requests."""
    handler = type("Handler", (Counted,), {"asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *a, **k: handler(*a, directory=str(folder), **k))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", handler.asked
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def s3(folder):
    """A bucket in moto's server that holds the folder."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    names = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1",
             "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ALLOW_HTTP": "true"}  # fmt: skip
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    client = boto3.client("s3", endpoint_url=names["AWS_ENDPOINT_URL"], region_name="us-east-1")
    client.create_bucket(Bucket="bucket")
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        client.put_object(Bucket="bucket", Key=f"data/{path.relative_to(folder).as_posix()}", Body=path.read_bytes())
    yield "s3://bucket/data"
    server.stop()
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


def same_records(address: str, path: Path) -> None:
    there, here = HessianStore(address), HessianStore(path)
    assert len(there) == len(here)
    for a, b in zip(there, here, strict=True):
        for name in ("numbers", "positions", "forces", "hessian", "active", "probes", "frequencies", "masses"):
            x, y = getattr(a, name), getattr(b, name)
            assert (x is None) == (y is None)
            assert x is None or (x.dtype == y.dtype and x.tobytes() == y.tobytes())
        assert (a.label, a.group, a.kind, a.level, a.energy) == (b.label, b.group, b.kind, b.level, b.energy)
    assert there.split_schemes == here.split_schemes


@pytest.mark.parametrize("name", ["local.zarr", "remote.zarr"])
def test_s3_gives_the_numbers_of_the_disk(s3, folder, name, capsys):
    same_records(f"{s3}/{name}", folder / name)
    assert validate(f"{s3}/{name}").valid
    assert differences(f"{s3}/{name}", folder / name) == []
    assert main(["info", f"{s3}/{name}"]) == 0
    assert f"{s3}/{name}: hessian_zarr" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["local.zarr", "remote.zarr"])
def test_web_server_gives_the_numbers_of_the_disk(web, folder, name):
    address, _ = web
    same_records(f"{address}/{name}/", folder / name)
    assert validate(f"{address}/{name}").valid
    assert differences(f"{address}/{name}", folder / name) == []


def test_page_of_a_store_behind_a_network(web, tmp_path, capsys):
    assert main(["info", f"{web[0]}/remote.zarr", "--html", str(tmp_path / "r.html")]) == 0
    text = (tmp_path / "r.html").read_text()
    assert "remote.zarr" in text
    assert "<th>bytes</th>" not in text


def test_few_requests(web, folder):
    address, asked = web
    store = HessianStore(f"{address}/remote.zarr")
    assert asked == ["/remote.zarr/zarr.json"]
    records = list(store)
    arrays = len(store.attributes["checksums"])
    assert len(asked) <= 2 * arrays + 5  # the metadata and the one shard of each array, never twice
    assert len(set(asked)) == len(asked)
    assert len(records) == len(store)
    before = len(asked)
    for index in (3, 0, 2, 1, 0):
        store.packed(index)
    assert len(asked) == before


def test_a_store_with_a_chunk_less_is_refused(web, s3):
    for address in (f"{web[0]}/lost.zarr", f"{s3}/lost.zarr"):
        with pytest.raises(StoreError, match="is not there"):
            HessianStore(address).packed(0)
        assert {message.rule for message in validate(address).errors} == {"HZ-3.1"}


def test_pickled_and_repacked_to_a_local_copy(s3, folder, tmp_path):
    store = pickle.loads(pickle.dumps(HessianStore(f"{s3}/remote.zarr")))
    np.testing.assert_array_equal(store.energy, HessianStore(folder / "local.zarr").energy)
    assert main(["repack", f"{s3}/remote.zarr", "-o", str(tmp_path / "copy.zarr")]) == 0
    assert [d for d in differences(folder / "local.zarr", tmp_path / "copy.zarr") if "provenance" not in d] == []


def test_residuals_come_with_a_copy_from_a_web_server(web, folder, tmp_path):
    with StoreWriter(folder / "quality.zarr", profile="remote") as writer:
        for seed in range(2):
            writer.append(labelled("H2O", seed), {"largest": 40.0 + seed, "translation": 1e-6})
    assert main(["repack", f"{web[0]}/quality.zarr", "-o", str(tmp_path / "copy.zarr")]) == 0
    found = quality(HessianStore(tmp_path / "copy.zarr"))
    assert found["extra/quality/largest"].tolist() == [40.0, 41.0]
    assert found.keys() == quality(HessianStore(folder / "quality.zarr")).keys()
    assert validate(tmp_path / "copy.zarr", 4).valid


def test_training_data_come_over_the_network(s3, folder):
    from nequip_hessian.data import HessianDataset

    there, here = (
        HessianDataset(store=str(path), level=0, charge_and_spin=True, hessian={"mode": "full"})
        for path in (f"{s3}/remote.zarr", folder / "remote.zarr")
    )
    for a, b in zip(there[:], here[:], strict=True):
        assert set(a) == set(b)
        assert all(np.array_equal(a[key], b[key], equal_nan=True) for key in a)


def test_forked_worker_is_told_what_to_do(web):
    """A network client does not survive a fork: an error that says what to do, not a hang."""
    import multiprocessing

    store = HessianStore(f"{web[0]}/remote.zarr")
    assert len(store) > 0
    with multiprocessing.get_context("fork").Pool(1) as pool:
        outcome = pool.apply_async(_read_first, (pickle.dumps(store),)).get(timeout=60)
    assert "spawn" in outcome


def _read_first(pickled: bytes) -> str:
    try:
        pickle.loads(pickled).packed(0)
    except StoreError as exc:
        return str(exc)
    return "read"


def test_what_goes_wrong_is_said_in_a_line(web, s3, monkeypatch, capsys):
    for address, words in (
        (f"{web[0]}/nothing.zarr", "no zarr.json there"),
        ("http://127.0.0.1:9/x.zarr", "is the network up"),
        (f"{s3}/nothing.zarr", "no zarr.json there"),
        ("ftp://host/x.zarr", "expected a path, or an address"),
        ("s3://bucket/x.zarr.zip", "copy it first"),
    ):
        assert main(["info", address]) == 1
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1
    monkeypatch.setitem(__import__("sys").modules, "obstore.store", None)
    with pytest.raises(MissingExtraError, match=r"nequip-hessian\[s3\]"):
        open_files("s3://bucket/x.zarr")


def test_denied_access_names_the_credentials(monkeypatch):
    class Denied(SimpleHTTPRequestHandler):
        def do_GET(self):
            body = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
            self.send_response(403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Denied)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    with pytest.raises(StoreError, match="AWS_ACCESS_KEY_ID"):
        HessianStore("s3://private/x.zarr")
    server.shutdown()
    server.server_close()


def test_paths_are_no_addresses():
    assert as_url("C:/data/x.zarr") is None
    assert as_url("./s3/x.zarr") is None
    assert as_url("s3://b/x.zarr/") == "s3://b/x.zarr"
    assert as_url("s3://b/x.zarr").name == "x.zarr"
