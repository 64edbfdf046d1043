"""Reading and writing one file: plain files only, whole or not at all."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from router.errors import Forbidden, Invalid, TooLarge

MAX_FILE = 16 << 20
"""Bytes of a file that is looked into or changed."""


class Found(NamedTuple):
    """A file as it is: its bytes and its permissions."""

    data: bytes
    mode: int


class About(NamedTuple):
    """What is at a path: a folder, or something of so many bytes."""

    is_folder: bool
    size: int


def about(path: Path) -> About | None:
    """Return what is there, None for nothing. Raises as `read`."""
    with _told(path):
        try:
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
    return About(stat.S_ISDIR(found.st_mode), found.st_size)


def sha256(data: bytes) -> str:
    """Return the SHA-256 of some bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def read(path: Path) -> Found | None:
    """Return a file, None where there is nothing.

    Raises `Invalid` for what is no plain file, `TooLarge`, and `Forbidden` where the system does not let us.
    """
    with _told(path):
        try:
            # Not blocking: a named pipe would wait for somebody who writes.
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        with os.fdopen(handle, "rb") as file:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode):
                raise Invalid([("meta.path", "is no plain file")])
            if found.st_size > MAX_FILE:
                raise TooLarge(f"a file of {found.st_size} bytes is over the limit of {MAX_FILE}")
            return Found(file.read(), stat.S_IMODE(found.st_mode))


def write(path: Path, data: bytes, mode: int | None, part: str) -> None:
    """Put bytes in place of a file, which has the same permissions then; folders are made.

    `mode` None leaves the permissions of a new file to the system. `part` is the name of the file that they
    are written to before. Raises as `read`.
    """
    with _told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(part)
        try:
            handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                if mode is not None:
                    os.fchmod(handle, mode)
                file.flush()
                os.fsync(handle)
            beside.replace(path)
        except BaseException:
            with suppress(OSError):
                beside.unlink()
            raise


def remove(path: Path) -> None:
    """Remove a file. Raises as `read`."""
    with _told(path):
        path.unlink(missing_ok=True)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError:
        raise Forbidden(f"the runner's user may not do that to {path.name!r}") from None
    except OSError as error:
        raise Invalid([("meta.path", f"cannot be used: {error.strerror}")]) from None
