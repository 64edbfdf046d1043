"""`Blobs` in a folder: one file per blob, its content type and metadata in a file beside it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec

from infra.blobs import Blob, check_key
from router.errors import StoreUnavailable

_SIDE = ".meta.json"
_PART = ".part"


class FolderBlobs:
    """Blobs under `root`/BUCKET/KEY."""

    def __init__(self, root: Path | str) -> None:
        self._root = Path(root)

    async def put(self, bucket: str, key: str, blob: Blob) -> None:
        """See `Blobs.put`."""
        path = self._path(bucket, key)
        side = msgspec.json.encode({"content_type": blob.content_type, "metadata": dict(blob.metadata)})

        def work() -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            # The description goes first: a reader that sees new bytes never sees an old content type.
            _replace(path.with_name(path.name + _SIDE), side)
            _replace(path, blob.data)

        try:
            await asyncio.to_thread(work)
        except OSError as error:
            raise StoreUnavailable(f"cannot write blob {bucket}/{key}: {error.strerror}") from error

    async def get(self, bucket: str, key: str) -> Blob | None:
        """See `Blobs.get`."""
        path = self._path(bucket, key)

        def work() -> Blob | None:
            try:
                data = path.read_bytes()
                side = msgspec.json.decode(path.with_name(path.name + _SIDE).read_bytes())
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                return None
            return Blob(data, side["content_type"], side["metadata"])

        try:
            return await asyncio.to_thread(work)
        except OSError as error:
            raise StoreUnavailable(f"cannot read blob {bucket}/{key}: {error.strerror}") from error

    async def delete(self, bucket: str, key: str) -> bool:
        """See `Blobs.delete`."""
        path = self._path(bucket, key)

        def work() -> bool:
            try:
                path.unlink()
            except FileNotFoundError:
                return False
            path.with_name(path.name + _SIDE).unlink(missing_ok=True)
            return True

        return await asyncio.to_thread(work)

    async def list(self, bucket: str, prefix: str = "") -> list[str]:
        """See `Blobs.list`."""
        root = self._root / check_key(bucket)

        def work() -> list[str]:
            keys = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
            return sorted(key for key in keys if key.startswith(prefix) and not key.endswith((_SIDE, _PART)))

        return await asyncio.to_thread(work)

    def _path(self, bucket: str, key: str) -> Path:
        return self._root / check_key(bucket) / check_key(key)


def _replace(path: Path, data: bytes) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}{_PART}")
    part.write_bytes(data)
    part.replace(path)
