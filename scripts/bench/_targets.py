"""Builds the targets of a bench: the upstream, the peers, and the router itself with its registrations."""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from _load import Target, Upstream
from _servers import Absent, Caller, Rig, Server, free_port

HERE = Path(__file__).resolve().parent
AUTOPILOT = Path(sys.executable).with_name("autopilot")
CAPABILITY = "web.pages.generate"
WORKERD_VERSION = "1.20261117.1"
WORKERD_DATE = "2026-01-01"
ANSWER = '{"done":true,"html":"<!doctype html><title>Welcome</title>"}'

NGINX = """
daemon off; worker_processes 1; pid {name}.pid; error_log {name}.error.log crit;
events {{ worker_connections 1024; }}
http {{
  access_log off; default_type application/json;
  keepalive_timeout 1h; keepalive_requests 1000000000; client_body_buffer_size 1m;
  client_body_temp_path {name}-body; proxy_temp_path {name}-proxy; fastcgi_temp_path {name}-fastcgi;
  uwsgi_temp_path {name}-uwsgi; scgi_temp_path {name}-scgi;
  {outside}
  server {{ listen 127.0.0.1:{port}; {inside} }}
}}
"""

WORKERD = """
using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [ (name = "plan", worker = .plan), (name = "loopback", network = (allow = ["private"])) ],
  sockets = [ (name = "http", address = "127.0.0.1:{port}", http = (), service = "plan") ],
);
const plan :Workerd.Worker = (
  modules = [ (name = "worker.js", esModule = embed "worker.js") ],
  bindings = [ (name = "UPSTREAM", text = "{endpoint}") ],
  compatibilityDate = "{date}",
  globalOutbound = "loopback",
);
"""


def start_upstream(rig: Rig) -> Upstream:
    """Start the nginx that stands for the autopilot, on the core of the load."""
    inside = f"location = /count {{ stub_status; }} location / {{ return 200 '{ANSWER}'; }}"
    upstream = Upstream(_nginx(rig, "upstream", rig.load_core, inside))
    Target("upstream", upstream.server, "/tasks").wait()
    return upstream


def upstream_itself(_rig: Rig, upstream: Upstream, _cache: Path) -> Target:
    """No router at all: what load and upstream can do."""
    return Target("upstream", upstream.server, "/tasks")


def nginx(rig: Rig, upstream: Upstream, _cache: Path) -> Target:
    """A reverse proxy with kept connections: it forwards, and decides nothing."""
    kept = "keepalive 64; keepalive_requests 1000000000;"
    pool = f"upstream autopilot {{ server 127.0.0.1:{upstream.server.port}; {kept} }}"
    inside = (
        "location = /autopilot/plan { proxy_pass http://autopilot/tasks;"
        ' proxy_http_version 1.1; proxy_set_header Connection ""; }'
    )
    return Target("nginx", _nginx(rig, "nginx", rig.server_core, inside, pool))


def workerd(rig: Rig, upstream: Upstream, cache: Path) -> Target:
    """The original's shape: a Worker on workerd that parses, looks up, fetches and serialises again."""
    binary = workerd_binary(cache)
    port = free_port()
    shutil.copy(HERE / "peers" / "worker.js", rig.folder)
    config = rig.folder / "worker.capnp"
    config.write_text(WORKERD.format(port=port, endpoint=upstream.endpoint, date=WORKERD_DATE))
    server = rig.start("workerd", port, [str(binary), "serve", str(config)])
    return Target("workerd", server, expects={"autopilot": "ai-stylist", "ok": True})


def workerd_binary(cache: Path) -> Path:
    """The workerd program in *cache*, fetched by npm the first time; raises Absent when it cannot be."""
    if not shutil.which("npm"):
        raise Absent("needs npm (Debian: apt-get install npm), not found")
    place = cache / f"workerd-{WORKERD_VERSION}"
    pattern = "node_modules/@cloudflare/workerd-*/bin/workerd"
    if not any(place.glob(pattern)):
        place.mkdir(parents=True, exist_ok=True)
        # The binary is in the platform's own package, so no install script has to run.
        npm = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(place)]
        run = subprocess.run(
            [*npm, f"workerd@{WORKERD_VERSION}"], capture_output=True, text=True, check=False, timeout=300
        )
        if run.returncode != 0:
            raise Absent(
                f"npm could not install it: {(run.stderr.strip().splitlines() or ['no reason given'])[0]}"
            )
    found = next(iter(place.glob(pattern)), None)
    if found is None:
        raise Absent("its npm package has no program for this platform")
    return found


def starlette_aiohttp(rig: Rig, upstream: Upstream, _cache: Path) -> Target:
    """Bare Starlette, forwarding with one shared aiohttp session."""
    return _starlette(rig, upstream, "aiohttp")


def starlette_httpx(rig: Rig, upstream: Upstream, _cache: Path) -> Target:
    """Bare Starlette, forwarding with one shared httpx client."""
    return _starlette(rig, upstream, "httpx")


def router(rig: Rig, upstream: Upstream, _cache: Path) -> Target:
    """Our router, the whole product: key, strict body, and one autopilot registered at the upstream."""
    target = start_router(rig, "router", rig.folder / "router-data", secrets.token_urlsafe(24))
    register(target, "bench-target", upstream.endpoint, CAPABILITY)
    return target


def router_limited(rig: Rig, upstream: Upstream, _cache: Path) -> Target:
    """Our router with what is off unless it is set: a rate limit, and capabilities that wait for approval."""
    settings = {
        "AUTOPILOT_RATE_LIMIT": "100000000/60",
        "AUTOPILOT_REQUIRE_APPROVAL": "payouts.*,payment.*,lms.enrollment.create,files.intake.upload",
    }
    data, key = rig.folder / "limited-data", secrets.token_urlsafe(24)
    target = start_router(rig, "router-limited", data, key, settings)
    register(target, "bench-target", upstream.endpoint, CAPABILITY)
    return target


# In the order of the table.
BUILDERS: dict[str, Callable[[Rig, Upstream, Path], Target]] = {
    "upstream": upstream_itself,
    "nginx": nginx,
    "workerd": workerd,
    "starlette-aiohttp": starlette_aiohttp,
    "starlette-httpx": starlette_httpx,
    "router": router,
    "router-limited": router_limited,
}


def start_router(
    rig: Rig, name: str, data: Path, key: str, settings: Mapping[str, str] | None = None
) -> Target:
    """Start `autopilot serve` over *data* with *key* as its admin key; answers once /health is 200.

    The target it answers waits for a plan done by the autopilot `bench-target`. Raises Absent.
    """
    if not AUTOPILOT.exists():
        raise Absent(f"no {AUTOPILOT}")
    server = spawn_router(rig, name, data, key, settings)
    server.wait_until_good(lambda: ill(server))
    headers = {"authorization": f"Bearer {key}"}
    return Target(name, server, headers=headers, expects={"autopilot": "bench-target", "ok": True})


def spawn_router(
    rig: Rig, name: str, data: Path, key: str, settings: Mapping[str, str] | None = None
) -> Server:
    """Start `autopilot serve` and wait for nothing."""
    port = free_port()
    argv = [str(AUTOPILOT), "serve", "--host", "127.0.0.1", "--port", str(port), "--data", str(data)]
    own = {"AUTOPILOT_API_KEY": key, "AUTOPILOT_ALLOW_ENDPOINTS": "127.0.0.1"}
    return rig.start(name, port, argv, env={**own, **(settings or {})})


def ill(server: Server) -> str:
    """What is wrong with its answer to GET /health, or nothing; raises OSError when nobody listens."""
    caller = Caller(server.port)
    try:
        status, body = caller.ask("GET", "/health")
    finally:
        caller.close()
    return "" if status == 200 else f"/health was answered {status}: {body[:300].decode(errors='replace')}"


def register(
    target: Target, name: str, endpoint: str, *capabilities: str, caller: Caller | None = None
) -> None:
    """Register an autopilot with the router; raises Absent with its answer when it is not taken."""
    body = json.dumps({"name": name, "endpoint": endpoint, "capabilities": list(capabilities)}).encode()
    own = caller or Caller(target.server.port, target.headers)
    status, answer = own.ask("POST", "/autopilot/registry", body)
    if caller is None:
        own.close()
    if status not in (200, 201):
        raise Absent(f"registering {name} was answered {status}: {answer[:300].decode(errors='replace')}")


def default_cache() -> Path:
    """Where fetched peers are kept between runs."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "autopilot-bench"


def _nginx(rig: Rig, name: str, core: int, inside: str, outside: str = "") -> Server:
    port = free_port()
    config = rig.folder / f"{name}.conf"
    config.write_text(NGINX.format(name=name, port=port, inside=inside, outside=outside))
    return rig.start(name, port, ["nginx", "-p", str(rig.folder), "-c", str(config)], core=core)


def _starlette(rig: Rig, upstream: Upstream, client: str) -> Target:
    missing = [
        one for one in ("starlette", "uvicorn", "uvloop", client) if importlib.util.find_spec(one) is None
    ]
    if missing:
        raise Absent(f"not installed: {', '.join(missing)}")
    port = free_port()
    argv = [
        sys.executable,
        "-m",
        "uvicorn",
        "forward:app",
        "--app-dir",
        str(HERE / "peers"),
        "--port",
        str(port),
    ]
    argv += ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
    name = f"starlette-{client}"
    env = {"BENCH_CLIENT": client, "BENCH_UPSTREAM": upstream.endpoint}
    return Target(name, rig.start(name, port, argv, env=env))
