"""How many callers a server on this machine takes."""

from __future__ import annotations

import resource

import pytest

from router.serve import _most_connections
from router.strict import MAX_CONNECTIONS

UNLIMITED = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("soft", "hard", "raised", "most"),
    [
        (1024, 1024, 1024, 512),
        (1024, 4096, 4096, 2048),
        (1024, 1 << 20, 2 * MAX_CONNECTIONS, MAX_CONNECTIONS),
        (1024, UNLIMITED, 2 * MAX_CONNECTIONS, MAX_CONNECTIONS),
        (1 << 20, 1 << 20, 1 << 20, MAX_CONNECTIONS),
        (UNLIMITED, UNLIMITED, UNLIMITED, MAX_CONNECTIONS),
        (1, 1, 1, 1),
    ],
)
@pytest.mark.parametrize("allowed", [True, False])
def test_callers_may_have_half_of_the_files(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, raised: int, most: int, allowed: bool
) -> None:
    """As many files are asked for as the most callers need; what is not given is not counted on."""
    now = (soft, hard)

    def change(_: int, limits: tuple[int, int]) -> None:
        nonlocal now
        if not allowed:
            raise ValueError("not allowed to raise maximum limit")
        now = limits

    monkeypatch.setattr(resource, "getrlimit", lambda _: now)
    monkeypatch.setattr(resource, "setrlimit", change)
    found = _most_connections()
    if allowed or raised == soft:
        assert (now, found) == ((raised, hard), most)
    else:
        assert (now, found) == ((soft, hard), soft // 2)
