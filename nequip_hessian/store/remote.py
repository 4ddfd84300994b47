"""A store behind a network: S3 and what speaks like it, or a plain web server; read-only, in few requests.

The metadata of a node is asked for once. A chunk that is not there is an error,
so that none has to be asked for by name first. Needs the extra `s3`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from nequip_hessian.errors import MissingExtraError, StoreError
from nequip_hessian.store.layout import NAME

if TYPE_CHECKING:
    from zarr.abc.store import Store

_SCHEMES: Final = ("s3", "s3a", "gs", "az", "abfs", "abfss", "http", "https")
_URL: Final = re.compile(r"^([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_WEB: Final = ("http", "https")
_SIGNED_BY: Final = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
_client_of: int | None = None
"""The process that opened the first store."""

CLIENT: Final = {"timeout": "120s", "connect_timeout": "10s", "allow_http": True}


class Url(str):
    """The address of a store, where a path would stand."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """Last component."""
        return self.rstrip("/").rsplit("/", 1)[-1]


def as_url(path: str | os.PathLike[str]) -> Url | None:
    """Return the address that a text is, `None` where it is a path.

    Raises:
        StoreError: an address of a kind that cannot be read.
    """
    text = os.fspath(path)
    match = _URL.match(text)
    if match is None:
        return None
    if match.group(1).lower() not in _SCHEMES:
        raise StoreError(f"{text}: expected a path, or an address that begins with {', '.join(_SCHEMES)}://")
    if text.rstrip("/").endswith(".zip"):
        raise StoreError(f"{text}: a zip file is read from a local disk only; copy it first")
    return Url(text.rstrip("/"))


class RemoteFiles:
    """A store behind an address; the same questions as of a directory, see `files`."""

    aligned = False

    def __init__(self, path: Url) -> None:
        self.path = path
        self._bucket = _connect(path)
        self._lists = not path.startswith(_WEB)
        self._metadata: dict[str, bytes | None] = {}
        self._listed: list[str] | None = None

    def read(self, key: str) -> bytes | None:
        """Return the bytes of a key, `None` where there is none; those of metadata are kept."""
        if key in self._metadata:
            return self._metadata[key]
        import obstore

        try:
            found = bytes(obstore.get(self._bucket, key).bytes())
        except FileNotFoundError:
            found = None
        except Exception as exc:  # of the network, in many kinds
            raise self._error(key, exc) from exc
        if key.endswith("zarr.json"):
            self._metadata[key] = found
        return found

    def has(self, key: str) -> bool:
        """Whether there is such a key."""
        return self.read(key) is not None if key.endswith("zarr.json") else key in set(self.names())

    @property
    def lists(self) -> bool:
        """Whether all keys can be listed; a web server lists none."""
        return self._lists

    def names(self) -> Iterator[str]:
        """Yield all keys; of a web server, which lists none, those of the metadata that the root speaks of."""
        if self._listed is None:
            self._listed = list(self._keys() if self._lists else self._spoken_of())
        return iter(self._listed)

    def _keys(self) -> Iterator[str]:
        import obstore

        try:
            for page in obstore.list(self._bucket):
                yield from (str(entry["path"]) for entry in page)
        except Exception as exc:  # of the network, in many kinds
            raise self._error("", exc) from exc

    def _spoken_of(self) -> Iterator[str]:
        from nequip_hessian.store.files import read_metadata

        attributes = (read_metadata(self) or {}).get("attributes")
        own = attributes.get(NAME) if isinstance(attributes, dict) else None
        checksums = own.get("checksums") if isinstance(own, dict) else None
        paths = [path for path in checksums if _plain(path)] if isinstance(checksums, dict) else []
        groups = {path.rsplit("/", 1)[0] for path in paths if "/" in path}
        return (f"{path}/zarr.json".lstrip("/") for path in ["", *sorted(groups), *paths])

    def odd_names(self) -> list[str]:
        """Return keys that are no plain relative paths."""
        return [key for key in self.names() if not _plain(key)]

    def zarr_store(self) -> Store:
        """Return a read-only Zarr store of the same bytes; it raises where a chunk is not there."""
        from zarr.storage import ObjectStore

        files = self

        class Bucket(ObjectStore[Any]):
            async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
                if key.endswith("zarr.json") and byte_range is None:
                    raw = files.read(key)
                    return None if raw is None else prototype.buffer.from_bytes(raw)
                return _there(key, await super().get(key, prototype, byte_range))

            async def get_partial_values(self, prototype: Any, key_ranges: Iterable[tuple[str, Any]]) -> list[Any]:
                wanted = list(key_ranges)
                found = await super().get_partial_values(prototype, wanted)
                return [_there(key, value) for (key, _), value in zip(wanted, found, strict=True)]

        return Bucket(self._bucket, read_only=True)

    def _error(self, key: str, exc: Exception) -> StoreError:
        return StoreError(f"{self.path}{f'/{key}' if key else ''}: cannot be read: {reason_of(exc)}")


def _plain(key: str) -> bool:
    return "\\" not in key and not key.startswith("/") and ".." not in key.split("/")


def _there(key: str, value: Any) -> Any:
    if value is None:
        raise StoreError(f"chunk {key} is not there, so the store is incomplete; its publisher must put it up again")
    return value


def _connect(url: Url) -> Any:
    _refuse_after_fork(url)
    try:
        from obstore.store import from_url
    except ImportError as exc:
        raise MissingExtraError(
            f'{url}: reading over a network needs the extra "s3": pip install "nequip-hessian[s3]"; or copy the '
            "store first"
        ) from exc
    options: dict[str, Any] = {
        "client_options": CLIENT,
        "retry_config": {"max_retries": 3, "retry_timeout": timedelta(seconds=60)},
    }
    if url.startswith("s3") and not any(name in os.environ for name in _SIGNED_BY):
        options["skip_signature"] = True  # a public bucket; asking a machine's role first would cost seconds
    try:
        return from_url(url, **options)
    except Exception as exc:  # obstore has an error tree of its own
        raise StoreError(f"{url}: cannot be opened: {reason_of(exc)}") from exc


def _refuse_after_fork(url: Url) -> None:
    """Refuse where the network client would wait for threads that a fork has left behind."""
    global _client_of
    if _client_of not in (None, os.getpid()):
        raise StoreError(
            f"{url}: this process was forked after a store had been read over the network, which the network client "
            "does not survive; start workers with multiprocessing_context: spawn, use num_workers: 0, or copy the store"
        )
    _client_of = os.getpid()


def reason_of(exc: BaseException) -> str:
    """Say in a line what a network or its server answered, and what may help."""
    text = re.split(r"\n|Debug source", str(exc).strip())[0].strip() or type(exc).__name__
    text = re.sub(r"^Generic \w+ error: ", "", text)
    lower = str(exc).lower()
    if "range request not supported" in lower:
        return "the web server hands out whole files only, no ranges; use another server, or copy the store"
    if re.search(r"status:? 40[13]|accessdenied|forbidden|unauthorized|invalidaccesskeyid|unauthenticated", lower):
        hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN), or ask who owns it"
        return f"access denied; {hint} ({text[:200]})"
    if re.search(r"status:? 301|permanentredirect|missing region|authorizationheadermalformed", lower):
        return f"{text[:200]}; set AWS_REGION to the region of the bucket"
    return f"{text[:300]}; is the address right, and is the network up?"
