"""`Blobs` in a folder: `BUCKET/KEY` is exactly the bytes, `.about/BUCKET/KEY` says what they are.

A description names the digest of the bytes it is for, and the one before stays beside it. So replacing the
bytes is the one moment at which a blob changes: whoever reads before or crashes before has the old one, with
its own content type.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from infra.blobs import Blob, check_bucket, check_key
from router.errors import Conflict, StoreUnavailable

T = TypeVar("T")

# No bucket can have a name that begins with a dot.
_ABOUT = ".about"
_PARTS = ".parts"
_LOCK = ".lock"

_UNKNOWN = {"content_type": "application/octet-stream", "metadata": {}}
"""What is known of a file that somebody laid there by hand."""


class FolderBlobs:
    """Blobs under `root`, which is made when missing. Threads and processes may share it."""

    def __init__(self, root: Path | str) -> None:
        self._root = Path(root)

    async def put(self, bucket: str, key: str, blob: Blob) -> None:
        """See `Blobs.put`. Raises `Conflict` when another key stands in the way, `a` in that of `a/b`."""
        data, about = self._paths(bucket, key)
        described = {
            "digest": _digest(blob.data),
            "content_type": blob.content_type,
            "metadata": dict(blob.metadata),
        }

        def work() -> None:
            (self._root / bucket).mkdir(parents=True, exist_ok=True)
            with self._alone():
                self._replace(about, msgspec.json.encode([described, *_present(data, about)]))
                self._replace(data, blob.data)

        await _do(work, f"write blob {bucket}/{key}")

    async def get(self, bucket: str, key: str) -> Blob | None:
        """See `Blobs.get`."""
        data, about = self._paths(bucket, key)

        def work() -> Blob | None:
            for _ in range(10):
                try:
                    found = data.read_bytes()
                except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                    return None
                descriptions = _descriptions(about)
                for description in descriptions:
                    if description["digest"] == _digest(found):
                        return _blob(found, description)
            # Not replaced between the two reads, ten times over: so the file was edited by hand.
            return _blob(found, descriptions[0] if descriptions else _UNKNOWN)

        return await _do(work, f"read blob {bucket}/{key}")

    async def delete(self, bucket: str, key: str) -> bool:
        """See `Blobs.delete`. Directories left empty go too, so that they stand in no key's way."""
        data, about = self._paths(bucket, key)

        def work() -> bool:
            if not data.is_file():
                return False
            with self._alone():
                if not data.is_file():
                    return False
                data.unlink()
                about.unlink(missing_ok=True)
                _prune(data, self._root / bucket)
                _prune(about, self._root / _ABOUT / bucket)
            return True

        return await _do(work, f"delete blob {bucket}/{key}")

    async def list(self, bucket: str, prefix: str = "") -> list[str]:
        """See `Blobs.list`."""
        root = self._root / check_bucket(bucket)

        def work() -> list[str]:
            keys = (path.relative_to(root).as_posix() for path in _files(root))
            return sorted(key for key in keys if key.startswith(prefix))

        return await _do(work, f"list bucket {bucket}")

    def _paths(self, bucket: str, key: str) -> tuple[Path, Path]:
        place = Path(check_bucket(bucket), check_key(key))
        return self._root / place, self._root / _ABOUT / place

    def _replace(self, path: Path, data: bytes) -> None:
        part = self._root / _PARTS / f"{os.getpid()}-{threading.get_ident()}"
        part.parent.mkdir(exist_ok=True)
        try:
            part.write_bytes(data)
            path.parent.mkdir(parents=True, exist_ok=True)
            part.replace(path)
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise Conflict(f"a blob stands in the way of {path.name}") from error
        finally:
            part.unlink(missing_ok=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep all other writers out, those of other processes too."""
        with (self._root / _LOCK).open("w") as file:
            if sys.platform != "win32":  # there, two writers of one key at one instant may mix up their types
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX)
            yield


async def _do(work: Callable[[], T], what: str) -> T:
    try:
        return await asyncio.to_thread(work)
    except OSError as error:
        raise StoreUnavailable(f"cannot {what}: {error.strerror}") from error


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _descriptions(about: Path) -> list[dict[str, Any]]:
    try:
        return msgspec.json.decode(about.read_bytes(), type=list[dict[str, Any]])
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return []


def _present(data: Path, about: Path) -> list[dict[str, Any]]:
    """Return the description of the bytes there now, which need not be the newest after a crash."""
    if not (descriptions := _descriptions(about)) or not data.is_file():
        return []
    digest = _digest(data.read_bytes())
    return [description for description in descriptions if description["digest"] == digest][:1]


def _blob(data: bytes, description: Mapping[str, Any]) -> Blob:
    return Blob(data, description["content_type"], description["metadata"])


def _files(root: Path) -> Iterator[Path]:
    def failed(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise error

    for directory, _, names in os.walk(root, onerror=failed):
        yield from (Path(directory, name) for name in names)


def _prune(path: Path, root: Path) -> None:
    with suppress(OSError):  # one that is not empty ends it
        for parent in path.parents:
            if parent == root:
                return
            parent.rmdir()
