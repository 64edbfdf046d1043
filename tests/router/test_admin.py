"""The admin page's files: what is served, how, and under which policy."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from router import admin
from router.settings import read
from router.wiring import build

FOLDER = Path(admin.__file__).parent / "static"
FILES = sorted(file.name for file in FOLDER.iterdir())
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}


def path_of(name: str) -> str:
    """Return where a file is served."""
    return {"admin.html": "/admin", "preview.html": "/admin/preview"}.get(name, f"/admin/{name}")


def directives(answer: httpx.Response) -> dict[str, str]:
    """Return the content security policy of an answer, by directive."""
    policy = answer.headers["content-security-policy"]
    pairs = (part.strip().partition(" ") for part in policy.split(";"))
    return {name: value for name, _, value in pairs}


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """Give a client of an app that has the page's routes only."""
    transport = httpx.ASGITransport(app=Starlette(routes=admin.routes()))
    async with httpx.AsyncClient(transport=transport, base_url="http://router.test") as opened:
        yield opened


@pytest.mark.parametrize("name", FILES)
async def test_each_file_is_served_as_what_it_is(client: httpx.AsyncClient, name: str) -> None:
    """Every file of the folder arrives byte by byte, with its type, and is not guessed at."""
    answer = await client.get(path_of(name))
    assert answer.status_code == 200
    assert answer.content == (FOLDER / name).read_bytes()
    assert answer.headers["content-type"] == f"{TYPES[Path(name).suffix]}; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("name", FILES)
async def test_a_file_somebody_has_is_not_sent_again(client: httpx.AsyncClient, name: str) -> None:
    """The tag of a file brings 304 without a body, alone, in a list, weak or as a star; another does not."""
    tag = (await client.get(path_of(name))).headers["etag"]
    for known in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        answer = await client.get(path_of(name), headers={"if-none-match": known})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag), known
        assert "content-security-policy" in answer.headers
    answer = await client.get(path_of(name), headers={"if-none-match": '"other"'})
    assert answer.status_code == 200


async def test_head_tells_the_length_without_the_body(client: httpx.AsyncClient) -> None:
    """HEAD answers the headers of GET."""
    got, head = await client.get("/admin"), await client.head("/admin")
    assert head.content == b""
    assert head.headers == got.headers


async def test_nothing_is_taken(client: httpx.AsyncClient) -> None:
    """The page can be read only."""
    assert (await client.post("/admin", content=b"x")).status_code == 405


@pytest.mark.parametrize("path", ["/admin/orchestrator", "/autopilot-admin", "/admin/"])
async def test_former_addresses_lead_to_the_page(client: httpx.AsyncClient, path: str) -> None:
    """Where the page used to be, a permanent redirect leads to where it is."""
    answer = await client.get(path)
    assert answer.status_code == 308
    assert answer.url.join(answer.headers["location"]) == "http://router.test/admin"


async def test_the_page_may_load_and_run_nothing_but_its_own_files(client: httpx.AsyncClient) -> None:
    """The policy names our own origin, for what the page uses, and forbids all else."""
    assert directives(await client.get("/admin")) == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": "'self'",
        "img-src": "'self' data:",
        "frame-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'self'",
        "frame-ancestors": "'none'",
    }


async def test_the_preview_is_sandboxed_away_from_our_origin(client: httpx.AsyncClient) -> None:
    """The frame between the page and a preview has no origin, reaches nothing, and only we may show it."""
    policy = directives(await client.get("/admin/preview"))
    assert policy["sandbox"] == "allow-scripts"
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert policy["form-action"] == "'none'"
    assert policy["frame-ancestors"] == "'self'"
    assert "connect-src" not in policy
    inner = re.findall(r"<iframe[^>]*>", (FOLDER / "preview.html").read_text())
    assert inner == ['<iframe title="The page" sandbox>']


def test_the_page_has_no_inline_code_and_names_no_other_host() -> None:
    """No script or style stands in the page, no handler in an attribute, and no address leads elsewhere."""
    page = (FOLDER / "admin.html").read_text()
    assert re.findall(r"<script(?![^>]*\ssrc=)", page) == []
    assert re.findall(r"<style|\sstyle=|\son[a-z]+=", page) == []
    for name in FILES:
        text = (FOLDER / name).read_text().replace("http://www.w3.org/2000/svg", "")
        loaded = re.findall(
            r"""(?:src|href|action|import|from|url\()\s*[=(]?\s*["'](?:https?:)?//[^"']+""", text
        )
        assert loaded == [], name


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".js")])
def test_no_script_reads_text_as_markup_or_code(name: str) -> None:
    """What the API answers becomes text nodes: no script has a way by which text becomes elements or code."""
    text = (FOLDER / name).read_text()
    ways = (
        r"innerHTML|outerHTML|insertAdjacent|document\.write|setHTML|parseFromString|createContextual|eval\("
    )
    assert re.findall(ways, text) == []
    assert ("srcdoc" in text) == (name == "preview.js")


def test_every_label_and_description_leads_somewhere() -> None:
    """Each id is given once, and each label, description and inner link of the page names one."""
    page = (FOLDER / "admin.html").read_text()
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    named = re.findall(r'\s(?:for|href)="#?([a-z-]+)"', page)
    for several in re.findall(r'\saria-(?:describedby|labelledby)="([^"]+)"', page):
        named += several.split()
    assert set(named) <= set(ids)


def test_every_part_that_a_script_reaches_for_is_there() -> None:
    """Each id that a script asks for is in the page, and each module that it imports is served."""
    ids = set(re.findall(r'\sid="([^"]+)"', (FOLDER / "admin.html").read_text()))
    for name in [name for name in FILES if name.endswith(".js")]:
        text = (FOLDER / name).read_text()
        if name != "preview.js":
            assert set(re.findall(r'\$\("([^"]+)"\)', text)) <= ids, name
        assert set(re.findall(r'from "\./([^"]+)"', text)) <= set(FILES), name


async def test_markup_among_events_and_approvals_is_answered_as_json_only(tmp_path: Path) -> None:
    """Opened apart from the page too, what somebody stored is nothing that a browser takes for a page."""
    environment = {
        "AUTOPILOT_DATA": str(tmp_path),
        "AUTOPILOT_REQUIRE_APPROVAL": "*",
        "AUTOPILOT_ALLOW_ENDPOINTS": "127.0.0.1",
    }
    environment |= {"AUTOPILOT_API_KEY": "a-key-of-32-characters-for-tests"}
    system = build(read(environment), url="http://router.test")
    markup = "<script>alert(1)</script>"
    header = {"authorization": f"Bearer {environment['AUTOPILOT_API_KEY']}"}
    transport = httpx.ASGITransport(app=system.app)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://router.test", headers=header
    ) as opened:
        registered = {"name": "bank", "endpoint": "http://127.0.0.1:9/", "capabilities": ["text.greet"]}
        assert (await opened.post("/autopilot/registry", json=registered)).status_code == 201
        asked = {"capability": "text.greet", "meta": {markup: markup}}
        waiting = (await opened.post("/autopilot/plan", json=asked)).json()["id"]
        refused = await opened.post(f"/autopilot/approvals/{waiting}/approve", json={"digest": markup})
        key = (await opened.post("/autopilot/keys", json={"name": "eve", "scopes": ["read"]})).json()["key"]
        tried = f"/autopilot/registry/{markup.replace('/', '')}"
        denied = await opened.delete(tried, headers={"authorization": f"Bearer {key}"})
        approval = await opened.get(f"/autopilot/approvals/{waiting}")
        events = await opened.get("/autopilot/events")
    await system.close()
    assert (refused.status_code, denied.status_code) == (422, 403)
    assert markup in approval.text
    assert events.json()["events"][-1]["payload"]["target"] == tried
    for answer in (refused, denied):
        assert answer.headers["content-type"] == "application/problem+json"
    for answer in (approval, events):
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_the_router_serves_the_page_without_a_key(tmp_path: Path) -> None:
    """The page is open where everything else needs a key: it asks for one itself."""
    environment = {"AUTOPILOT_DATA": str(tmp_path), "AUTOPILOT_API_KEY": "a-key-of-32-characters-for-tests"}
    system = build(read(environment, host="0.0.0.0"), url="http://router.test")
    transport = httpx.ASGITransport(app=system.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://router.test") as opened:
        assert [(await opened.get(path_of(name))).status_code for name in FILES] == [200] * len(FILES)
        assert (await opened.get("/autopilot/list")).status_code == 401
    await system.close()
