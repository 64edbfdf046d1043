"""Who is let in: this machine without a key, or a key and nothing else."""

from __future__ import annotations

import asyncio
import hmac
from typing import Any

import pytest

from router.auth import ANYONE, LOCAL, Gate, Scope
from router.errors import AutopilotError, Forbidden, Unauthenticated
from router.keys import Identity

KEY = "0123456789abcdef-key"
PRIVATE = [scope for scope in Scope if scope is not Scope.PUBLIC]


def admitted(gate: Gate, need: Scope = Scope.READ, *, client: Any = ("127.0.0.1", 5), **headers: str) -> str:
    """Return the name of who is let in; headers by name, `host` is local unless given."""
    sent = {"host": "127.0.0.1:8080", **headers}
    given = {name.encode(): value.encode("latin-1") for name, value in sent.items() if value}
    return asyncio.run(gate.admit({"client": client}, given, need)).name


def refused(gate: Gate, *more: Any, **changes: Any) -> type[AutopilotError]:
    """Return how a call is refused."""
    with pytest.raises((Unauthenticated, Forbidden)) as error:
        admitted(gate, *more, **changes)
    assert KEY not in str(error.value)
    return type(error.value)


def bearer(key: str) -> str:
    """Return the header of a key."""
    return f"Bearer {key}"


@pytest.mark.parametrize("gate", [Gate("local"), Gate("local", KEY), Gate("required", KEY), Gate("required")])
def test_what_is_public_needs_nothing(gate: Gate) -> None:
    """From anywhere, with any headers, valid or not."""
    for authorization in ("", "Bearer nonsense", bearer(KEY)):
        name = admitted(
            gate, Scope.PUBLIC, client=("8.8.8.8", 1), host="evil.example", authorization=authorization
        )
        assert name == ANYONE.name


@pytest.mark.parametrize("need", PRIVATE)
@pytest.mark.parametrize(
    ("client", "host"),
    [
        ("127.0.0.1", "127.0.0.1:8080"),
        ("127.0.0.1", "localhost:8080"),
        ("127.0.0.1", "localhost"),
        ("127.8.8.8", "127.0.0.1"),
        ("::1", "[::1]:8080"),
        ("::1", "[::1]"),
    ],
)
def test_without_a_key_this_machine_may_do_all(need: Scope, client: str, host: str) -> None:
    """By every name it has for itself."""
    assert admitted(Gate("local"), need, client=(client, 1), host=host) == LOCAL.name


@pytest.mark.parametrize(
    "client", [("192.168.1.5", 1), ("8.8.8.8", 1), ("2001:db8::1", 1), ("", 0), ("x", 0), None]
)
def test_without_a_key_other_machines_may_do_nothing(client: Any) -> None:
    """Whatever they call themselves in headers."""
    assert refused(Gate("local"), client=client) is Forbidden
    for name in ("x-forwarded-for", "x-real-ip", "forwarded"):
        assert refused(Gate("local"), client=client, **{name: "127.0.0.1"}) is Forbidden


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example#localhost",
        "10.0.0.1:8080",
        "0.0.0.0:8080",
        "[::]:8080",
        "[::1",
        "[::1].evil.example",
        "[::1]:80.evil.example",
        "localhost:8080@evil.example",
        "localhost:80:evil",
        "localhost/",
        "2130706433",
        "",
    ],
)
def test_a_page_that_had_its_name_point_here_is_refused(host: str) -> None:
    """DNS rebinding: the browser is on this machine, but the Host header says where the page comes from."""
    assert refused(Gate("local"), host=host) is Forbidden


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://localhost:3000",
        "http://127.0.0.1",
        "null",
        "file://",
        "http://evil.example#127.0.0.1:8080",
    ],
)
def test_a_page_of_another_site_is_refused(origin: str) -> None:
    """Cross-site requests carry an Origin: another port of this machine is another site."""
    assert refused(Gate("local"), origin=origin) is Forbidden


def test_the_admin_page_itself_may_call() -> None:
    """Its Origin is the host it was served from."""
    assert admitted(Gate("local"), origin="http://127.0.0.1:8080") == LOCAL.name
    assert admitted(Gate("local"), host="localhost:8080", origin="http://localhost:8080") == LOCAL.name
    assert refused(Gate("local"), host="localhost:8080", origin="http://127.0.0.1:8080") is Forbidden


def test_a_wrong_key_changes_nothing_on_this_machine() -> None:
    """A client with a key in its environment may talk to a local router that has none."""
    assert admitted(Gate("local"), authorization=bearer(KEY)) == LOCAL.name
    assert refused(Gate("local"), client=("8.8.8.8", 1), authorization=bearer(KEY)) is Forbidden


def test_a_key_works_in_local_mode_too() -> None:
    """Then from anywhere."""
    gate = Gate("local", KEY)
    assert admitted(gate, client=("8.8.8.8", 1), host="evil.example", authorization=bearer(KEY)) == "admin"


@pytest.mark.parametrize("need", PRIVATE)
def test_the_admin_key_may_do_all(need: Scope) -> None:
    """From anywhere, under any name and with any origin: a page does not have the key."""
    for spelling in (bearer(KEY), f"bearer {KEY}", f"BEARER  {KEY} "):
        name = admitted(
            Gate("required", KEY),
            need,
            client=("8.8.8.8", 1),
            host="router.example",
            origin="https://other.example",
            authorization=spelling,
        )
        assert name == "admin"


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        KEY,
        f"Basic {KEY}",
        f"Bearer {KEY}x",
        f"Bearer {KEY[:-1]}",
        f"Bearer {KEY.upper()}",
        f"Bearer {KEY} {KEY}",
        "Bearer \xff\xfe",
        "Bearer " + "x" * 10_000,
        f"Bearer{KEY}",
    ],
)
@pytest.mark.parametrize("client", ["127.0.0.1", "8.8.8.8"])
def test_without_the_key_nobody_may_do_anything(authorization: str, client: str) -> None:
    """Not this machine either."""
    gate = Gate("required", KEY)
    assert refused(gate, client=(client, 1), authorization=authorization) is Unauthenticated


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer ", bearer(KEY)])
def test_without_any_key_set_none_is_valid(authorization: str) -> None:
    """An empty key is no key."""
    assert refused(Gate("required", ""), authorization=authorization) is Unauthenticated


def test_a_key_without_the_scope_is_forbidden_what_needs_it() -> None:
    """And the answer names the scope."""
    gate = Gate("required", KEY)
    reader = Identity("reader", frozenset({"read", "plan:web.*"}))
    gate._keys[0] = (gate._keys[0][0], reader)
    assert admitted(gate, Scope.READ, authorization=bearer(KEY)) == "reader"
    assert admitted(gate, Scope.PLAN, authorization=bearer(KEY)) == "reader"
    for need in (Scope.REGISTER, Scope.OPERATE, Scope.ADMIN):
        with pytest.raises(Forbidden) as error:
            admitted(gate, need, authorization=bearer(KEY))
        assert error.value.extra["scope"] == need.value


def test_keys_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only digests are kept and compared, all of them, whichever is right."""
    compared: list[tuple[bytes, bytes]] = []

    def noted(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", noted)
    gate = Gate("required", KEY)
    gate._keys *= 3
    assert admitted(gate, authorization=bearer(KEY)) == "admin"
    assert refused(gate, authorization="Bearer x") is Unauthenticated
    assert len(compared) == 6
    assert {len(one) for pair in compared for one in pair} == {32}
    assert KEY not in str(vars(gate))
