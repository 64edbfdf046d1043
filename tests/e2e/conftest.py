"""One server process per module, with the built-in autopilots registered."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.process import Served, autopilot, serving


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Give a server with the built-in autopilots registered."""
    with serving(tmp_path_factory.mktemp("served")) as one:
        done = autopilot("register", "--built-in", "--url", one.url)
        assert done.returncode == 0, done.stderr
        yield one
