"""Where files are: inside the runner's folder, wherever symbolic links lead."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from router.errors import Invalid, NotFound


def place(root: Path, cwd: str, path: str) -> Path:
    """Return where a path leads, all symbolic links followed; the end of it need not be there.

    `root` has none in its own path. Raises `Invalid` for what is absolute, has a `..`, or leads out. Who can
    put a link there after this was asked can run commands, and those may do what the runner's user may.
    """
    for field, text in (("meta.cwd", cwd), ("meta.path", path)):
        parts = PurePosixPath(text)
        if "\0" in text or parts.is_absolute() or ".." in parts.parts:
            raise Invalid([(field, "must be relative to the runner's folder, without ..")])
    try:
        found = (root / cwd / path).resolve()
    except (OSError, RuntimeError):
        raise Invalid([("meta.path", "leads nowhere")]) from None
    if not found.is_relative_to(root):
        raise Invalid([("meta.path" if path else "meta.cwd", "leads out of the runner's folder")])
    return found


def folder(root: Path, cwd: str) -> Path:
    """Return a folder that is there. Raises `Invalid`, and `NotFound` where there is none."""
    found = place(root, cwd, "")
    if not found.is_dir():
        raise NotFound(f"there is no folder {cwd[:200]!r} in the runner's")
    return found
