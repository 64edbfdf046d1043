"""W3C trace context: a good traceparent is continued, anything else starts a trace."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.trace import Trace

ID = "4bf92f3577b34da6a3ce929d0e0e4736"
GOOD = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-0[0-3]")


@pytest.mark.parametrize(
    ("flags", "kept"), [("00", "00"), ("01", "01"), ("03", "03"), ("ff", "03"), ("fc", "00")]
)
def test_a_callers_trace_goes_on(flags: str, kept: str) -> None:
    """The trace id and the known flags are kept, reserved flags are cleared, the parent is new."""
    trace = Trace(f"00-{ID}-00f067aa0ba902b7-{flags}".encode())
    children = {trace.child() for _ in range(50)}
    assert trace.id == ID
    assert len(children) == 50
    for child in children:
        assert GOOD.fullmatch(child)
        assert child.startswith(f"00-{ID}-")
        assert child.endswith(f"-{kept}")
        assert "00f067aa0ba902b7" not in child


@pytest.mark.parametrize(
    "traceparent",
    [
        None,
        b"",
        b"garbage",
        f"00-{'0' * 32}-00f067aa0ba902b7-01".encode(),
        f"00-{ID}-{'0' * 16}-01".encode(),
        f"00-{ID.upper()}-00f067aa0ba902b7-01".encode(),
        f"ff-{ID}-00f067aa0ba902b7-01".encode(),
        f"00-{ID}-00f067aa0ba902b7-01-more".encode(),
        f"00-{ID}-00f067aa0ba902b7-01\n".encode(),
        f" 00-{ID}-00f067aa0ba902b7-01".encode(),
        f"00-{ID}-00f067aa0ba902b7".encode(),
        f"00-{ID}-00f067aa0ba902b7-0\xb2".encode(),
    ],
)
def test_anything_else_starts_a_trace(traceparent: bytes | None) -> None:
    """What is missing or malformed gives a new trace, another one each time."""
    first, second = Trace(traceparent), Trace(traceparent)
    assert first.id not in {ID, second.id}
    assert GOOD.fullmatch(first.child())


@given(st.binary(max_size=80))
def test_no_bytes_get_through(junk: bytes) -> None:
    """Whatever a caller sends, what goes on is a well-formed traceparent."""
    assert GOOD.fullmatch(Trace(junk).child())
