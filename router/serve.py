"""One process on a laptop: the app under uvicorn, and the loops that on AWS are functions of their own."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from typing import Any

import uvicorn
from croniter import croniter

from router.errors import AutopilotError, Conflict
from router.heal import Healer
from router.hurry import Hurry
from router.onewrite import OneWrite
from router.settings import Settings
from router.strict import MAX_CONNECTIONS
from router.wiring import System, build

log = logging.getLogger("router")

HEAL_SCHEDULE = "*/15 * * * *"
REFRESH_SECONDS = 1.0
PROBE_SECONDS = 10.0
HURRY_SECONDS = 1.0
SCHEDULE_SECONDS = 1.0
SCHEDULE_LOOPS = 3
WORK_SECONDS = 1.0
"""How soon the worker is started again, should it ever end by itself."""
STOP_SECONDS = 3


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises OSError when the address is taken, or cannot be one of ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named TCP, or asyncio would not switch off Nagle's algorithm, and each answer would wait for 40 ms.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except (OSError, OverflowError, TypeError, UnicodeError) as error:
        bound.close()
        raise error if isinstance(error, OSError) else OSError(str(error)) from None
    bound.listen(2048)
    bound.setblocking(False)  # noqa: FBT003  a name would not be taken
    return bound


def url_of(bound: socket.socket) -> str:
    """Return the URL a bound socket is reached at."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def serve(settings: Settings, bound: socket.socket, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; `ready` is called with the URL once it answers."""
    url = url_of(bound)
    system = build(settings, url=url)
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    server = _Server(
        uvicorn.Config(
            system.app,
            http=partial(OneWrite, most=_most_connections()),  # type: ignore[arg-type]
            access_log=False,
            lifespan="off",
            log_config=None,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=STOP_SECONDS,
            ws="none",
            proxy_headers=False,  # who calls is who is connected: nobody may say otherwise
        )
    )
    serving = asyncio.create_task(server.serve([bound]))
    loops = [asyncio.create_task(one) for one in [*_loops(system), _hurry(server.server_state.connections)]]
    # What was built so far lives as long as the process: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    try:
        await server.answering.wait()
        ready(url)
        await stopping.wait()
    finally:
        system.inside.events.close()  # whoever listens would hold the server up
        for task in loops:
            task.cancel()
        server.should_exit = True
        await serving
        await asyncio.gather(*loops, return_exceptions=True)
        await system.close()


def _most_connections() -> int:
    """Return how many callers may be connected at once: half of the files this process may open.

    The other half is for the store and for what is forwarded. As many are asked for as that needs.
    """
    try:
        import resource
    except ImportError:  # not to be had on Windows
        return MAX_CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MAX_CONNECTIONS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else min(MAX_CONNECTIONS, max(soft // 2, 1))


class _Server(uvicorn.Server):
    """uvicorn that says when it answers, and leaves signals to us: ours also stop the loops."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.answering = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.answering.set()

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        return nullcontext()


def _loops(system: System) -> list[Coroutine[Any, Any, None]]:
    return [
        _every(REFRESH_SECONDS, "refresh", system.inside.routes.refresh),
        _every(PROBE_SECONDS, "probes", system.prober.round),
        # A pass waits for the tasks it fires; while one does, the others see to what falls due meanwhile.
        *(_every(SCHEDULE_SECONDS, "schedules", system.fire_schedules) for _ in range(SCHEDULE_LOOPS)),
        _every(WORK_SECONDS, "work on what was queued", system.deferred.worker.run),
        _heal(system),
    ]


async def _hurry(connections: Collection[Any]) -> None:
    """Close connections whose callers take too long to say what they want."""
    hurry = Hurry(connections)
    now = asyncio.get_running_loop().time

    async def look() -> None:
        hurry.look(now())

    await _every(HURRY_SECONDS, "hurrying", look)


async def _every(seconds: float, name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Do something again and again; a failure is logged, once for as long as it lasts."""
    failing = False
    while True:
        try:
            await work()
            failing = False
        except AutopilotError as error:
            if not failing:
                log.warning("%s: %s", name, error)
            failing = True
        except Exception:
            if not failing:
                log.exception("%s failed", name)
            failing = True
        await asyncio.sleep(seconds)


async def _heal(system: System) -> None:
    """Run a self-heal pass at each moment of `HEAL_SCHEDULE`."""
    while True:
        now = time.time()
        await asyncio.sleep(croniter(HEAL_SCHEDULE, now).get_next(float) - now)
        await _pass(system.healer)


async def _pass(healer: Healer) -> None:
    """Run a self-heal pass and log what came of it; no failure ends the passes to come."""
    try:
        report = await healer.heal()
    except Conflict:
        return
    except AutopilotError as error:
        log.warning("self-heal: %s", error)
    except Exception:
        log.exception("self-heal failed")
    else:
        created = sum(len(names) for names in report["created"].values())
        log.info("self-heal: created %s, errors %s", created, len(report["errors"]))
        for alert in report["alerts"]:
            log.warning("self-heal: %s: %s", f"{alert['kind']} {alert['name']}".strip(), alert["message"])
