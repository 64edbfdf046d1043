"""A secret key in a file of its own, for an installation that was given none."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_CHARACTERS = 64


def key_in(path: Path) -> bytes:
    """Return the key in a file; one that does not exist is made, for its owner to read only.

    Raises `ValueError` when the file holds something else.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f"{path.name}.{os.getpid()}")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(os.urandom(_CHARACTERS // 2).hex().encode())
        with contextlib.suppress(FileExistsError):  # another process was first: then its key is the one
            os.link(fresh, path)  # whole or not at all
        fresh.unlink()
    key = path.read_bytes().strip()
    if len(key) != _CHARACTERS:
        raise ValueError(f"{path} does not hold a key of {_CHARACTERS} characters")
    return key
