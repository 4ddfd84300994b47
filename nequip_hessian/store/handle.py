"""A store behind a Zarr store object that somebody else opened: icechunk's, fsspec's, one in memory; read-only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from nequip_hessian.errors import StoreError

if TYPE_CHECKING:
    from zarr.abc.store import Store


class Handle(str):
    """A Zarr store object, where a path would stand; as text, the name of its class."""

    def __new__(cls, store: Store) -> Handle:
        """Hold a Zarr store object."""
        self = super().__new__(cls, f"<{type(store).__name__}>")
        self.store = store
        return self

    store: Store

    def __getnewargs__(self) -> tuple[Any, ...]:
        return (self.store,)

    @property
    def name(self) -> str:
        """The name of its class."""
        return str(self)


def as_handle(path: object) -> Handle | None:
    """Return the handle that an object is, `None` where it is a path or an address; Zarr is not imported for those."""
    if isinstance(path, Handle):
        return path
    return Handle(cast("Store", path)) if hasattr(path, "get_partial_values") else None


class HandleFiles:
    """A store behind a Zarr store object; the same questions as of a directory, see `files`."""

    aligned = False

    def __init__(self, handle: Handle) -> None:
        self.path = handle
        self._store = handle.store

    def read(self, key: str) -> bytes | None:
        """Return the bytes of a key, `None` where there is none."""
        from zarr.core.buffer import default_buffer_prototype
        from zarr.core.sync import sync

        try:
            found = sync(self._store.get(key, default_buffer_prototype()))
        except FileNotFoundError:
            return None
        except Exception as exc:  # of the library behind it, in many kinds
            raise StoreError(f"{self.path}: {key}: cannot be read: {exc}") from exc
        return None if found is None else found.to_bytes()

    def has(self, key: str) -> bool:
        """Whether there is such a key."""
        from zarr.core.sync import sync

        return bool(sync(self._store.exists(key)))

    def names(self) -> Iterator[str]:
        """Yield all keys."""
        from zarr.core.sync import sync

        async def keys() -> list[str]:
            return [key async for key in self._store.list()]

        return iter(sync(keys()))

    def odd_names(self) -> list[str]:
        """Return keys that are no plain relative paths; they are the business of the library behind it."""
        return []

    def zarr_store(self) -> Store:
        """Return the object itself."""
        return self._store
