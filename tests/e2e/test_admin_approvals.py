"""The admin page's approvals and events in a real browser, on a router where some tasks wait."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from tests.e2e.browser import CONTRASTS, INJECTED, MANY, MARKUP, NEEDS_BROWSER, Page, browsing
from tests.process import autopilot, serving

PAGE = {"pageType": "home", "description": "A page for 3 people"}
LATEST = ".events tbody tr:first-child td:nth-child"

pytestmark = NEEDS_BROWSER


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    """Give a browser with a profile of its own."""
    with browsing() as opened:
        yield opened


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the URL of a router where pages wait for approval, and whatever `hostile` is asked for."""
    environment = {"AUTOPILOT_REQUIRE_APPROVAL": "web.pages.generate"}
    with serving(tmp_path_factory.mktemp("guarded"), env=environment) as one:
        assert autopilot("register", "--built-in", "--url", one.url).returncode == 0
        capability = {"name": "hostile.answer", "requires_approval": True}
        register(one.url, "hostile", capability)
        yield one.url


@pytest.fixture
def api(url: str) -> Iterator[httpx.Client]:
    """Give a client that has no key."""
    with httpx.Client(base_url=f"{url}/autopilot/", trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def keys(url: str) -> dict[str, str]:
    """Give keys by whom they are for."""
    scopes = {
        "ann": ["plan:*", "operate", "read"],
        "bob": ["operate", "read"],
        "eve": ["read"],
        "op": ["operate"],
    }
    made = {
        name: httpx.post(f"{url}/autopilot/keys", json={"name": name, "scopes": some}, trust_env=False).json()
        for name, some in scopes.items()
    }
    return {name: one["key"] for name, one in made.items()}


@pytest.fixture
def page(browser: Chrome, url: str, api: httpx.Client) -> Iterator[Page]:
    """Give the page, loaded, with no key and nothing that waits; what a test leaves waiting is refused."""
    browser.get(f"{url}/health")
    browser.execute_script("sessionStorage.clear()")
    browser.get_log("browser")  # type: ignore[no-untyped-call]
    opened = Page(browser, url)
    opened.waits(".autopilots tbody tr")
    opened.waits("#approvals .empty", "No task waits")
    yield opened
    header = key_of(api, "cleaner", "operate")
    for one in api.get("approvals?status=awaiting_approval").json()["approvals"]:
        api.post(f"approvals/{one['id']}/refuse", headers=header)


def register(url: str, name: str, capability: object) -> None:
    """Register an autopilot that never answers."""
    body = {"name": name, "endpoint": "http://127.0.0.1:9/nobody", "capabilities": [capability]}
    httpx.post(f"{url}/autopilot/registry", json=body, trust_env=False).raise_for_status()


def key_of(api: httpx.Client, name: str, *scopes: str) -> dict[str, str]:
    """Return the header of a new key, which takes the place of one of that name."""
    for one in api.get("keys").json()["keys"]:
        if one["name"] == name:
            api.delete(f"keys/{one['id']}")
    key = api.post("keys", json={"name": name, "scopes": scopes}).json()["key"]
    return {"authorization": f"Bearer {key}"}


def as_holder(page: Page, key: str) -> None:
    """Load the page as somebody who has entered a key."""
    page.browser.execute_script("sessionStorage.setItem('autopilot.key', arguments[0])", key)
    page.browser.refresh()
    page.waits("#forget-key")


def asked(page: Page, task: str, meta: dict[str, Any]) -> str:
    """Run a task that waits, and return the id of its approval."""
    page.run(task, meta)
    page.waits("#result-status", "waits for approval")
    return page.find("#result-body code").text


def test_a_task_waits_is_read_and_approved_by_a_second_person(
    page: Page, api: httpx.Client, keys: dict[str, str]
) -> None:
    """What waits is told to whoever asked, and shown whole; a decision asks for a key, then sends it."""
    approval = asked(page, "task:generate_page", PAGE)
    assert f"autopilot approvals approve {approval}" in page.find("#result-body").text
    assert page.find("#result-body time").get_attribute("datetime")
    shown = page.waits(f'.card[aria-label*="{approval}"] pre').text
    assert json.loads(shown)["meta"] == PAGE
    assert page.texts(".waiting") == ["1", "1"]
    page.waits("#approvals-key", "autopilot keys create second operate")

    page.click(".card .main")
    page.waits("#key-title", "A key to decide with")
    page.find("#key-input").send_keys(keys["bob"], Keys.ENTER)
    page.until(lambda: not page.all("#approvals-key .notice"))
    page.settles()
    page.js(
        "const real = fetch; window.sent = []; window.fetch = (to, o) => (sent.push(o.body), real(to, o))"
    )
    digest = api.get(f"approvals/{approval}").json()["approval"]["digest"]
    page.click(".card .main")
    page.waits("#confirm", digest)
    page.find("#confirm").send_keys(Keys.ESCAPE)
    page.settles()
    assert page.js("return sent.filter(Boolean)") == []

    page.click(".card .main")
    page.waits("#confirm-yes").click()
    page.waits("#approvals-status", "ai-stylist answered 200")
    assert page.js("return sent.filter(Boolean).map(JSON.parse)") == [{"digest": digest}]
    page.waits("#approvals-body iframe")
    page.waits("#approvals .empty", "No task waits")
    assert api.get(f"approvals/{approval}").json()["approval"]["decided_by"] == "bob"
    page.until(lambda: page.texts(f"{LATEST}(2)") == ["approval.approve"])
    assert page.texts(f"{LATEST}(3)") + page.texts(f"{LATEST}(4)") == ["bob", approval]
    assert page.complaints() == []


def test_whoever_asked_is_told_that_somebody_else_decides(
    page: Page, api: httpx.Client, keys: dict[str, str]
) -> None:
    """A refusal says who asked and what key it takes; with that key the task is refused, and never sent."""
    as_holder(page, keys["ann"])
    approval = asked(page, "task:generate_page", PAGE)
    page.waits(".card .danger")
    page.click(".card .main")
    page.waits("#confirm-yes").click()
    told = page.waits("#approvals-body .notice").text
    assert "asked for by ann" in told
    assert "autopilot keys create second operate" in told
    assert "nothing was decided" in page.find("#approvals-status").text
    assert page.browser.switch_to.active_element.get_attribute("id") == "approvals-result"

    page.click("#approvals-body .notice p:last-child button")
    page.waits("#key-input").send_keys(keys["bob"], Keys.ENTER)
    page.until(lambda: not page.find("#approvals-result").is_displayed())
    page.settles()
    page.click(".card .danger")
    page.waits("#confirm-yes").click()
    page.waits("#approvals-status", "nothing was sent")
    page.waits("#approvals .empty", "No task waits")
    assert api.get(f"approvals/{approval}").json()["approval"]["status"] == "refused"


def test_a_key_that_may_not_look_is_told_what_that_takes(page: Page, keys: dict[str, str]) -> None:
    """Where a scope is missing the section names it, and the other one works."""
    as_holder(page, keys["eve"])
    page.waits("#approvals .empty", "the scope operate")
    page.waits("#events-status", "live")
    as_holder(page, keys["op"])
    page.waits("#events .empty", "the scope read")
    page.waits("#approvals .empty", "No task waits")


def test_what_happens_appears_filtered_paused_and_no_more_than_200(
    page: Page, url: str, api: httpx.Client
) -> None:
    """Events come as they happen, newest on top, of one type if wanted; the oldest make room."""
    page.waits("#events-status", "live")
    register(url, "newest", "text.newest")
    page.until(lambda: page.texts(f"{LATEST}(4)") == ["newest"])
    page.click(f"{LATEST}(5) summary")
    page.waits(f"{LATEST}(5) pre", "trace_id")

    page.click("#event-pause")
    page.waits("#events-status", "paused")
    for number in range(205):
        body = {"name": "often", "endpoint": f"http://127.0.0.1:9/{number}", "capabilities": ["text.often"]}
        api.post("registry", json=body).raise_for_status()
    api.delete("registry/often").raise_for_status()
    assert page.texts(f"{LATEST}(4)") == ["newest"]
    page.click("#event-pause")
    page.until(lambda: page.texts(f"{LATEST}(2)") == ["autopilot.delete"])
    assert len(page.all(".events tbody tr")) == 200

    Select(page.find("#event-type")).select_by_value("autopilot.delete")
    page.until(lambda: set(page.texts(".events td:nth-child(2)")) == {"autopilot.delete"})
    api.delete("registry/newest").raise_for_status()
    page.waits(f"{LATEST}(4)", "registry/newest")
    Select(page.find("#event-type")).select_by_value("")
    page.until(lambda: len(page.all(".events tbody tr")) == 200)  # read again, of more than a page
    page.waits(f"{LATEST}(4)", "registry/newest")
    assert page.complaints() == []


def test_markup_in_events_and_in_what_waits_stays_text(
    page: Page, api: httpx.Client, keys: dict[str, str]
) -> None:
    """Markup in a meta or a path is shown as it is, and so are signs that nobody sees: nothing runs."""
    image = MARKUP.partition("<script")[0]
    path = quote(f"registry/{image}")
    assert api.delete(path, headers={"authorization": f"Bearer {keys['eve']}"}).status_code == 403
    page.waits(f"{LATEST}(4)", image)
    page.click(f"{LATEST}(5) summary")
    asked(page, "capability:hostile.answer", {MARKUP: MANY, "unseen": "\u202e\u200b", "long": 2**70})
    shown = page.waits(".card pre").text
    assert json.dumps(MARKUP) in shown
    assert json.dumps(MANY) in shown
    assert '"\\u202e\\u200b"' in shown
    assert str(2**70) in shown
    as_holder(page, keys["bob"])
    page.waits(f"{LATEST}(4)", image)
    page.click(".card .main")
    page.waits("#confirm-yes").click()
    page.waits("#approvals-status", "is approved, but got no answer")
    assert page.texts("#approvals-body .buttons button") == ["Send again"]
    assert page.js(INJECTED) == []
    assert page.complaints() == []


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1440, "dark")])
def test_what_waits_and_what_happened_fit_and_can_be_read(page: Page, width: int, scheme: str) -> None:
    """With both sections full nothing is wider than the screen, and every text stands out from its ground."""
    with page.sized(width, scheme):
        asked(page, "task:generate_page", {**PAGE, "description": "w" * 300})
        page.waits(".card .main")
        page.waits("#approvals-key .notice")
        page.click(f"{LATEST}(5) summary")
        page.waits(f"{LATEST}(5) pre")
        page.find("#approvals-title").click()  # no button is under the pointer
        assert page.js("return document.documentElement.scrollWidth") <= width
        assert page.js(CONTRASTS) == []
