"""What every adapter of the `Blobs` port does."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from infra.blobs import Blob, Blobs
from infra.blobs.folder import FolderBlobs
from router.errors import Conflict, Invalid, StoreUnavailable

BUCKET = "some-pages"
PAGE = Blob(b"<p>", "text/html; charset=utf-8", {"made-by": "test"})


class TestOneBlob:
    """put, get and delete."""

    async def test_absent(self, blobs: Blobs) -> None:
        """What was never put is None to get, False to delete and missing from the list."""
        assert await blobs.get(BUCKET, "a/b.html") is None
        assert await blobs.delete(BUCKET, "a/b.html") is False
        assert await blobs.list(BUCKET) == []

    @pytest.mark.parametrize(
        "blob",
        [
            PAGE,
            Blob(b"", "text/plain"),
            Blob(b"\n\n", "text/plain", {}),
            Blob(bytes(range(256)) * 5000, "application/octet-stream"),
            Blob(b"x", 'multipart/form-data; boundary="a\\b"', {"k": "v", "empty": "", "long": "l" * 500}),
        ],
        ids=["page", "empty", "newlines", "binary", "quotes"],
    )
    async def test_comes_back(self, blobs: Blobs, blob: Blob) -> None:
        """Bytes, content type and metadata come back exactly."""
        await blobs.put(BUCKET, "a/b.html", blob)
        assert await blobs.get(BUCKET, "a/b.html") == blob

    async def test_overwrite(self, blobs: Blobs) -> None:
        """A second put replaces everything: bytes, content type and metadata."""
        await blobs.put(BUCKET, "a", PAGE)
        await blobs.put(BUCKET, "a", Blob(b"{}", "application/json"))
        assert await blobs.get(BUCKET, "a") == Blob(b"{}", "application/json")
        assert await blobs.list(BUCKET) == ["a"]

    async def test_same_bytes_of_another_type(self, blobs: Blobs) -> None:
        """Putting the same bytes again with another type changes the type."""
        for turn in range(4):
            blob = Blob(b"same", f"text/{turn}", {"turn": str(turn)})
            await blobs.put(BUCKET, "a", blob)
            assert await blobs.get(BUCKET, "a") == blob

    async def test_delete(self, blobs: Blobs) -> None:
        """A deleted blob is gone, once, and its key may be used anew."""
        await blobs.put(BUCKET, "a/b", PAGE)
        assert await blobs.delete(BUCKET, "a/b") is True
        assert await blobs.delete(BUCKET, "a/b") is False
        assert await blobs.get(BUCKET, "a/b") is None
        assert await blobs.list(BUCKET) == []
        await blobs.put(BUCKET, "a", PAGE)
        assert await blobs.get(BUCKET, "a") == PAGE

    async def test_delete_leaves_neighbours(self, blobs: Blobs) -> None:
        """A delete takes its own key only."""
        for key in ("a/b", "a/c", "ab"):
            await blobs.put(BUCKET, key, PAGE)
        await blobs.delete(BUCKET, "a/b")
        assert await blobs.list(BUCKET) == ["a/c", "ab"]
        assert await blobs.get(BUCKET, "a/c") == PAGE

    async def test_buckets_are_separate(self, blobs: Blobs) -> None:
        """The same key in another bucket is another blob."""
        await blobs.put(BUCKET, "a", PAGE)
        assert await blobs.get("other-pages", "a") is None
        assert await blobs.list("other-pages") == []
        assert await blobs.delete("other-pages", "a") is False


class TestList:
    """Keys by prefix."""

    async def test_prefix(self, blobs: Blobs) -> None:
        """A prefix is of the whole key, letter by letter, and the answer is sorted."""
        for key in ("b/2", "b/10", "b.txt", "bc", "a/b/c/d", "B"):
            await blobs.put(BUCKET, key, PAGE)
        assert await blobs.list(BUCKET) == ["B", "a/b/c/d", "b.txt", "b/10", "b/2", "bc"]
        assert await blobs.list(BUCKET, "b/") == ["b/10", "b/2"]
        assert await blobs.list(BUCKET, "a/b/c") == ["a/b/c/d"]
        assert await blobs.list(BUCKET, "b") == ["b.txt", "b/10", "b/2", "bc"]
        assert await blobs.list(BUCKET, "../") == []

    async def test_names_like_our_own_files(self, blobs: Blobs) -> None:
        """Keys that look like an adapter's own files are kept and listed like any other."""
        keys = [".about", ".lock", ".parts/1-2", "a", "a.meta.json", "a.part", "a.tmp"]
        for key in keys:
            await blobs.put(BUCKET, key, Blob(key.encode(), "text/plain"))
        assert await blobs.list(BUCKET) == keys
        for key in keys:
            assert await blobs.get(BUCKET, key) == Blob(key.encode(), "text/plain")


class TestNames:
    """Keys and buckets that are refused, and those at the border."""

    @pytest.mark.parametrize(
        "key",
        [
            "",
            ".",
            "..",
            "../a",
            "a/../../b",
            "a/..",
            "a/./b",
            "/etc/passwd",
            "a//b",
            "a/",
            "a\\..\\b",
            "a b",
            "a\x00b",
            "a\n",
            "a/..\n",
            "é",
            "a%2fb",
            "~root",
            "C:a",
            "a*",
            "x" * 201,
            "/".join(["x" * 100] * 6),
        ],
    )
    async def test_hostile_key(self, blobs: Blobs, key: str) -> None:
        """A key that could leave its bucket, or that not every store can hold, is `Invalid` everywhere."""
        with pytest.raises(Invalid):
            await blobs.put(BUCKET, key, PAGE)
        with pytest.raises(Invalid):
            await blobs.get(BUCKET, key)
        with pytest.raises(Invalid):
            await blobs.delete(BUCKET, key)

    @pytest.mark.parametrize(
        "bucket",
        [
            "",
            "ab",
            "..",
            "a..b",
            "a/b",
            "../pages",
            "Pages",
            "my_pages",
            ".about",
            "-ab",
            "ab-",
            "a" * 64,
            "abc\n",
        ],
    )
    async def test_hostile_bucket(self, blobs: Blobs, bucket: str) -> None:
        """What is no bucket name is `Invalid` in every verb."""
        with pytest.raises(Invalid):
            await blobs.put(bucket, "a", PAGE)
        with pytest.raises(Invalid):
            await blobs.get(bucket, "a")
        with pytest.raises(Invalid):
            await blobs.delete(bucket, "a")
        with pytest.raises(Invalid):
            await blobs.list(bucket)

    @pytest.mark.parametrize(
        "key", ["...", "a..b", "..a", "-", "_", "x" * 200, "/".join(["x" * 100] * 5), "a/.b"]
    )
    async def test_odd_but_fine(self, blobs: Blobs, key: str) -> None:
        """A key at the border of the grammar is stored."""
        await blobs.put(BUCKET, key, PAGE)
        assert await blobs.get(BUCKET, key) == PAGE
        assert await blobs.list(BUCKET) == [key]

    @pytest.mark.parametrize("keys", [("a", "a/b"), ("a/b", "a"), ("a", "a/b/c"), ("a/b/c", "a")])
    async def test_one_key_continues_another(self, blobs: Blobs, keys: tuple[str, str]) -> None:
        """When a key continues another the second is kept or a `Conflict`, and the first stays whole."""
        first, second = keys
        await blobs.put(BUCKET, first, PAGE)
        kept = True
        try:
            await blobs.put(BUCKET, second, Blob(b"2", "text/plain"))
        except Conflict:
            kept = False
        assert await blobs.get(BUCKET, first) == PAGE
        assert await blobs.get(BUCKET, second) == (Blob(b"2", "text/plain") if kept else None)
        assert await blobs.list(BUCKET) == (sorted(keys) if kept else [first])
        assert await blobs.delete(BUCKET, second) is kept


class TestTogether:
    """Readers and writers at the same time."""

    async def test_never_mixed(self, blobs: Blobs) -> None:
        """A reader beside two writers sees the bytes, type and metadata of one put, never of two."""
        versions = [Blob(str(n).encode() * 20_000, f"text/{n}", {"n": str(n)}) for n in range(4)]
        await blobs.put(BUCKET, "a", versions[0])

        async def write(mine: list[Blob]) -> None:
            for _ in range(15):
                for version in mine:
                    await blobs.put(BUCKET, "a", version)

        async def read() -> None:
            for _ in range(60):
                assert await blobs.get(BUCKET, "a") in versions

        await asyncio.gather(write(versions[:2]), write(versions[2:]), read(), read())
        assert await blobs.list(BUCKET) == ["a"]

    async def test_one_deletes(self, blobs: Blobs) -> None:
        """Of several who delete at once exactly one is told that it did."""
        await blobs.put(BUCKET, "a/b/c", PAGE)
        told = await asyncio.gather(*(blobs.delete(BUCKET, "a/b/c") for _ in range(6)))
        assert sorted(told) == [False] * 5 + [True]


def files(folder: Path) -> list[str]:
    """Return all files below a folder."""
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


class TestFolder:
    """What only the folder has."""

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        """Give the folder."""
        return tmp_path / "blobs"

    async def test_files_are_the_bytes(self, root: Path) -> None:
        """The file BUCKET/KEY holds the bytes and nothing else, so any program can open it."""
        await FolderBlobs(root).put(BUCKET, "a/b.html", PAGE)
        assert (root / BUCKET / "a" / "b.html").read_bytes() == PAGE.data
        assert files(root / BUCKET) == ["a/b.html"]

    async def test_outlives_the_process(self, root: Path) -> None:
        """Another instance on the same folder finds what the first one put."""
        await FolderBlobs(root).put(BUCKET, "a", PAGE)
        assert await FolderBlobs(root).get(BUCKET, "a") == PAGE

    @pytest.mark.parametrize("crashes", [1, 2])
    async def test_crash_in_the_middle(self, root: Path, crashes: int) -> None:
        """A put that died before its bytes were in place leaves the old blob, with the old type."""
        blobs = FolderBlobs(root)
        await blobs.put(BUCKET, "a", PAGE)
        file = root / BUCKET / "a"
        for number in range(crashes):
            await blobs.put(BUCKET, "a", Blob(f"new {number}".encode(), "text/new"))
            file.write_bytes(PAGE.data)  # as if the second of the two renames had never come
            assert await blobs.get(BUCKET, "a") == PAGE

    async def test_crash_of_the_first_put(self, root: Path) -> None:
        """A first put that died before its bytes were in place leaves nothing."""
        blobs = FolderBlobs(root)
        await blobs.put(BUCKET, "a", PAGE)
        (root / BUCKET / "a").unlink()
        assert await blobs.get(BUCKET, "a") is None
        assert await blobs.list(BUCKET) == []
        assert await blobs.delete(BUCKET, "a") is False

    async def test_laid_there_by_hand(self, root: Path) -> None:
        """A file somebody copied into the folder is a blob of unknown type; an edited one keeps its type."""
        blobs = FolderBlobs(root)
        await blobs.put(BUCKET, "a", PAGE)
        (root / BUCKET / "a").write_bytes(b"edited")
        (root / BUCKET / "b").write_bytes(b"copied")
        assert await blobs.get(BUCKET, "a") == Blob(b"edited", PAGE.content_type, PAGE.metadata)
        assert await blobs.get(BUCKET, "b") == Blob(b"copied", "application/octet-stream")
        assert await blobs.delete(BUCKET, "b") is True

    async def test_unwritable(self, tmp_path: Path) -> None:
        """Where no folder can be, put is `StoreUnavailable`, and there is nothing to read."""
        (tmp_path / "file").write_bytes(b"not a folder")
        blobs = FolderBlobs(tmp_path / "file" / "blobs")
        with pytest.raises(StoreUnavailable, match="cannot write blob some-pages/a"):
            await blobs.put(BUCKET, "a", PAGE)
        assert await blobs.get(BUCKET, "a") is None
        assert await blobs.list(BUCKET) == []

    async def test_full(self, root: Path) -> None:
        """A put that cannot write leaves the old blob whole."""
        blobs = FolderBlobs(root)
        await blobs.put(BUCKET, "a", PAGE)
        parts = root / ".parts"
        parts.rmdir()
        parts.write_bytes(b"in the way")
        with pytest.raises(StoreUnavailable):
            await blobs.put(BUCKET, "a", Blob(b"new", "text/new"))
        assert await blobs.get(BUCKET, "a") == PAGE

    async def test_no_litter(self, root: Path) -> None:
        """After overwrites, a conflict and deletes no file is left but the lock."""
        blobs = FolderBlobs(root)
        for key in ("a/b", "a/b", "c"):
            await blobs.put(BUCKET, key, PAGE)
        with pytest.raises(Conflict):
            await blobs.put(BUCKET, "a/b/c", PAGE)
        for key in ("a/b", "c"):
            await blobs.delete(BUCKET, key)
        assert files(root) == [".lock"]
