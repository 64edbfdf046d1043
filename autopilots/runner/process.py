"""One process with all that it starts: begun, fed, listened to, and ended, whatever happens to us."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, cast

from infra.clock import Clock
from router.errors import Invalid

# The shell becomes the program. Before that it starts a guard in the same process group, which reads from a
# pipe that we hold and never write to: when we are gone, however that came, it kills the group, so that
# nothing goes on that nobody knows of. There is no moment in which the program runs without it.
_SCRIPT = """
( ( read -r _ <"/dev/fd/$1" || kill -KILL 0 ) >/dev/null 2>&1 & )
shift
exec "$@"
"""
_GRACE = 2.0
"""Seconds in which the last output has to be there once the group is killed. A process that left the group
may hold the pipe open for ever."""


class Capture:
    """Output as it comes: its beginning and its end, and which texts were anywhere in it."""

    def __init__(self, most: int, texts: Iterable[str] = ()) -> None:
        """`most` is how many bytes are kept; what is more falls out of the middle."""
        self.found: set[str] = set()
        self._half = most // 2
        self._head = bytearray()
        self._tail = bytearray()
        self._size = 0
        self._sought = {text: text.encode() for text in texts}
        self._overlap = max((len(one) for one in self._sought.values()), default=1) - 1
        self._window = b""

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        self._size += len(data)
        room = self._half - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        if len(self._tail) > 2 * self._half:
            del self._tail[: -self._half]
        window = self._window + data
        self.found |= {text for text, one in self._sought.items() if one in window}
        self._window = window[len(window) - self._overlap :] if self._overlap else b""

    @property
    def pieces(self) -> list[bytes]:
        """All that came, or its beginning and its end."""
        if self.left_out:
            return [bytes(self._head), bytes(self._tail[-self._half :])]
        return [bytes(self._head + self._tail)]

    @property
    def left_out(self) -> int:
        """How many bytes are missing between the two."""
        return max(self._size - 2 * self._half, 0)


class Ending(NamedTuple):
    """How a process ended. A negative exit code is the signal that ended it."""

    exit_code: int
    seconds: float
    late: bool


class _Watch(asyncio.SubprocessProtocol):
    def __init__(self, out: Capture, err: Capture) -> None:
        self._captures = {1: out, 2: err}
        self.exited = asyncio.Event()
        self.closed = asyncio.Event()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self._captures[fd].feed(data)

    def process_exited(self) -> None:
        self.exited.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()


async def run(
    arguments: Sequence[str],
    *,
    cwd: Path,
    environment: Mapping[str, str],
    stdin: bytes,
    seconds: float,
    out: Capture,
    err: Capture,
    monotonic: Clock,
) -> Ending:
    """Run a program to its end, or kill it after `seconds`.

    It is over when the program itself ends: what it left running in its process group is killed then. The
    same goes for a cancelled call. Raises `Invalid` when it cannot be begun.
    """
    began = monotonic()
    reading, writing = os.pipe()
    try:
        transport, watch = await _begin(
            arguments, reading, cwd, environment, _Watch(out, err), fed=bool(stdin)
        )
    except BaseException:
        os.close(writing)
        raise
    finally:
        os.close(reading)
    late = False
    try:
        if stdin:
            pipe = cast(asyncio.WriteTransport, transport.get_pipe_transport(0))
            pipe.write(stdin)
            pipe.close()
        try:
            async with asyncio.timeout(seconds):
                await watch.exited.wait()
        except TimeoutError:
            late = True
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(transport.get_pid(), signal.SIGKILL)
            os.close(writing)
        with suppress(TimeoutError):
            async with asyncio.timeout(_GRACE):
                await watch.closed.wait()
    finally:
        transport.close()
    code = transport.get_returncode()
    return Ending(-signal.SIGKILL if code is None else code, round(monotonic() - began, 3), late)


async def _begin(
    arguments: Sequence[str],
    guarded_by: int,
    cwd: Path,
    environment: Mapping[str, str],
    watch: _Watch,
    *,
    fed: bool,
) -> tuple[asyncio.SubprocessTransport, _Watch]:
    try:
        return await asyncio.get_running_loop().subprocess_exec(
            lambda: watch,
            *("/bin/sh", "-c", _SCRIPT, "sh", str(guarded_by), *arguments),
            stdin=asyncio.subprocess.PIPE if fed else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=cwd,
            env=environment,
            start_new_session=True,
            pass_fds=(guarded_by,),
        )
    except (OSError, ValueError) as error:
        raise Invalid([("meta.run", f"cannot be begun: {error}")]) from None
