"""The admin page in a real browser, on a real server with the built-in autopilots."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from tests.e2e.browser import CONTRASTS, INJECTED, MANY, MARKUP, NEEDS_BROWSER, Page, browsing
from tests.process import Served, autopilot, serving

KEY = "a-key-of-32-characters-for-tests"
BUILT_IN = ["ai-employee", "ai-stylist", "page-deployer", "payout-batch"]

pytestmark = NEEDS_BROWSER


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    """Give a browser with a profile of its own."""
    with browsing() as opened:
        yield opened


@pytest.fixture
def url(served: Served) -> str:
    """Give the URL of a router that has the built-in autopilots."""
    return served.url


@contextmanager
def another(folder: Path, key: str = "") -> Iterator[str]:
    """Run one more router with the built-in autopilots, that wants `key`, and give its URL."""
    environment = {"AUTOPILOT_API_KEY": key} if key else {}
    with serving(folder, env=environment) as one:
        assert autopilot("register", "--built-in", "--url", one.url, env=environment).returncode == 0
        yield one.url


@pytest.fixture
def page(browser: Chrome, url: str) -> Page:
    """Give the page, loaded, with the browser's console empty."""
    browser.get_log("browser")  # type: ignore[no-untyped-call]
    opened = Page(browser, url)
    opened.waits(".autopilots tbody tr")
    opened.waits(".tiles li")
    return opened


@pytest.fixture
def hostile(url: str) -> Iterator[str]:
    """Give the name of an autopilot whose every text is markup, its answers included."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply({"status": "healthy"})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            address = f"javascript:alert(1)//{MARKUP}"
            self.reply({MARKUP: MANY, "url": address, "page": {"html": MARKUP + MANY}})

        def reply(self, value: Any) -> None:
            body = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the name is fixed
            pass

    served = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    body = {
        "name": "hostile",
        "endpoint": f"http://127.0.0.1:{served.server_port}/{MARKUP.split(chr(34))[1]}",
        "description": MARKUP + MANY,
        "capabilities": [
            {
                "name": "hostile.answer",
                "description": MARKUP,
                "input_schema": {
                    "properties": {MARKUP: {"type": "string", "description": MARKUP}},
                    "required": [MARKUP],
                },
            }
        ],
    }
    httpx.post(f"{url}/autopilot/registry", json=body, trust_env=False).raise_for_status()
    yield "hostile"
    httpx.delete(f"{url}/autopilot/registry/hostile", trust_env=False)
    served.shutdown()
    served.server_close()


def test_the_autopilots_are_listed_filtered_and_explained(page: Page) -> None:
    """The table has each autopilot with its health in words, and the filter narrows it."""
    assert page.texts(".autopilots tbody strong") == BUILT_IN
    assert page.find("#count").text == "4"
    assert "version" in page.waits("#router", "healthy").text
    assert "store sqlite" in page.find("#router").text
    first = page.find(".autopilots tbody tr").text
    for part in (
        "healthy",
        "local:ai-employee",
        "email.process",
        "R2 employee-private",
        "KV AI_EMPLOYEE_LOGS",
    ):
        assert part in first
    page.fill("#filter", "payouts.batch")
    assert page.texts(".autopilots tbody strong") == ["payout-batch"]
    page.fill("#filter", "nothing like it")
    page.waits("#autopilots .empty", "No autopilot matches")
    assert page.complaints() == []


def test_a_page_is_generated_shown_and_deployed(page: Page) -> None:
    """The prefilled example runs; the result has a styled preview; a deployed page comes with its link."""
    page.waits("#task-about", "ai-stylist")
    assert json.loads(page.find("#meta").get_attribute("value") or "") == {
        "pageType": "home",
        "description": "Welcome page for new students",
    }
    page.click("#run-form [type=submit]")
    assert "answered 200" in page.waits("#result-status", "ok").text
    assert '"title"' in page.find("#result-body pre").text
    page.browser.switch_to.frame(page.waits("#result-body iframe"))
    page.browser.switch_to.frame(page.find("iframe"))
    heading = page.waits("h1")
    assert "students" in heading.text
    assert (
        float(heading.value_of_css_property("font-size").removesuffix("px")) > 32
    )  # its styles are in force
    page.browser.switch_to.default_content()

    page.run("task:deploy_page", {"slug": "from-the-admin-page", "html": "<h1>Hello</h1>"})
    link = page.waits("#result-body a", "/pages/from-the-admin-page")
    assert link.get_attribute("rel") == "noopener noreferrer"
    assert "Hello" in httpx.get(link.text, trust_env=False).text
    assert page.complaints() == []


def test_an_explanation_says_who_would_get_the_task_and_why(page: Page) -> None:
    """Explain lists the candidates with the reason for each, and sends nothing."""
    page.run("task:generate_page", {}, "#explain")
    assert "nothing was sent" in page.waits("#result-status", "goes to ai-stylist").text
    assert page.texts("#result-body tbody td:nth-child(2)") == ["ai-stylist"]
    assert page.texts("#result-body tbody td:nth-child(3)") == ["chosen"]


def test_every_example_is_a_meta_that_its_schema_takes(page: Page) -> None:
    """For each task and capability the page offers, explaining the prefilled example finds no fault."""
    page.waits("#task-about", "ai-stylist")
    choices = [one.get_attribute("value") or "" for one in Select(page.find("#task")).options]
    capabilities = [one for one in choices if one.startswith("capability:")]
    assert len(capabilities) > 15
    for choice in choices[: -len(capabilities)]:
        if choice != "task:generate_page":
            page.choose(choice)
        page.click("#explain")
        page.settles()
        told = page.find("#result-status").text
        assert "nothing was sent" in told, f"{choice}: {page.find('#result-body').text}"


def test_each_wrong_field_of_a_meta_is_named(page: Page) -> None:
    """A refusal shows its title and every field; text that is no JSON is not sent at all."""
    page.run("task:generate_page", {"pageType": "moon", "colour": "red"})
    page.waits("#result-body .problem-title", "Some fields are not valid")
    errors = page.texts("#result-body .field-errors li")
    assert any(text.startswith("meta.colour") for text in errors)
    assert any(text.startswith("meta.pageType") for text in errors)
    page.fill("#meta", "{oops")
    page.find("#meta").send_keys(Keys.CONTROL, Keys.ENTER)
    page.waits("#meta-error", "is not JSON")
    assert page.find("#meta").get_attribute("aria-invalid") == "true"
    page.click("#meta-example")
    assert "pageType" in (page.find("#meta").get_attribute("value") or "")
    assert not page.find("#meta-error").is_displayed()


def test_what_is_missing_is_planned_then_created_once_confirmed(browser: Chrome, tmp_path: Path) -> None:
    """The plan creates nothing, cancelling neither; confirming does, and the counts are those of diagnose."""
    with another(tmp_path) as address:
        page = Page(browser, address)
        counts = {"kv": "0", "r2": "0", "workers": "0", "d1": "0", "queues": "0"}
        page.waits(".tiles li")
        assert tiles(page) == counts
        page.click("#show-plan")
        page.waits("#infrastructure-status", "would create 6, keep 0; nothing was changed")
        page.click("#create")
        page.waits("#confirm", "AI_EMPLOYEE_LOGS")
        page.find("#confirm").send_keys(Keys.ESCAPE)
        page.click("#diagnose")
        page.settles()
        assert tiles(page) == counts

        page.click("#create")
        page.waits("#confirm-yes").click()
        page.waits("#infrastructure-status", "created 6")
        assert page.texts("#infrastructure-report tbody td:first-child") == ["created"] * 6
        page.waits("#infrastructure-state .hint", "No drift")
        page.settles()
        told = httpx.get(f"{address}/autopilot/diagnose", trust_env=False).json()["resources"]
        assert tiles(page) == {kind: str(len(told[kind])) for kind in counts} | {"kv": "1", "r2": "5"}
        page.click("#create")
        page.waits("#infrastructure-status", "nothing is missing")


def tiles(page: Page) -> dict[str, str]:
    """Return the counts of the tiles, by kind."""
    shown = page.all(".tiles li[data-kind]")
    return {one.get_attribute("data-kind") or "": one.text.split("\n")[0] for one in shown}


def test_wrong_fields_of_a_registration_are_told_beside_them(page: Page) -> None:
    """Each field has its own error, the first the focus; corrected, it is registered, replaced, removed."""
    page.fill("#register-name", "Bad Name")
    page.fill("#register-endpoint", "ftp://x")
    page.fill("#register-capabilities", "text.greet, nonsense")
    page.click("#register-form [type=submit]")
    page.waits("#register-name-error", "a-z")
    page.waits("#register-endpoint-error", "https://")
    assert page.waits("#register-capabilities-error").text.startswith("nonsense: ")
    assert not page.find("#register-description-error").is_displayed()
    assert page.browser.switch_to.active_element.get_attribute("id") == "register-name"

    page.fill("#register-name", "greeter")
    page.fill("#register-endpoint", "http://127.0.0.1:9/greeter")
    page.fill("#register-capabilities", "text.greet")
    page.click("#register-form [type=submit]")
    assert page.waits("#secret").text.startswith("whsec_")
    assert page.all('[aria-invalid="true"]') == []
    page.waits(".autopilots strong", "greeter")
    page.click("#register-body .notice > button")
    assert page.all("#secret") == []

    page.fill("#register-name", "greeter")
    page.fill("#register-endpoint", "http://127.0.0.1:9/other")
    page.fill("#register-capabilities", "text.greet")
    page.click("#register-form [type=submit]")
    page.waits("#confirm", "at revision 1")
    page.find("#confirm-yes").click()
    page.waits(".autopilots code", "http://127.0.0.1:9/other")

    page.click('[aria-label="Remove greeter"]')
    page.waits("#confirm", "greeter").find_element(By.ID, "confirm-yes").click()
    page.until(lambda: page.texts(".autopilots strong") == BUILT_IN)


def test_a_removal_by_an_old_revision_is_refused_and_told(page: Page, hostile: str, url: str) -> None:
    """Whoever removes what somebody else has just changed is told so, and sees the change."""
    page.click("#refresh")
    page.waits(".autopilots strong", hostile)
    body = {"name": hostile, "endpoint": "http://127.0.0.1:9/changed", "capabilities": ["hostile.answer"]}
    httpx.post(f"{url}/autopilot/registry", json=body, trust_env=False).raise_for_status()
    page.click(f'[aria-label="Remove {hostile}"]')
    page.waits("#confirm-yes").click()
    page.waits("#autopilots-problem .problem", "It was changed since you read it")
    page.waits(".autopilots code", "http://127.0.0.1:9/changed")


def test_markup_in_registrations_and_answers_stays_text(page: Page, hostile: str) -> None:
    """Texts with markup are shown as they are; nothing of them becomes an element, a script, or a link."""
    page.click("#refresh")
    page.waits(".autopilots .hint", MARKUP)
    page.choose("capability:hostile.answer")
    page.waits("#task-about", MARKUP)
    page.find("#fields summary").click()
    page.waits("#fields-list code", MARKUP)
    page.click("#explain")
    page.waits("#result-status", "goes to hostile")
    assert page.complaints() == []

    page.click("#run-form [type=submit]")
    assert "onerror" in page.waits("#result-body pre", "javascript:alert(1)").text
    assert page.all("#result-body a") == []
    page.browser.switch_to.frame(page.waits("#result-body iframe"))
    page.browser.switch_to.frame(page.find("iframe"))
    page.until(lambda: page.all("img[onerror]"))  # the preview has its elements, and they do nothing
    assert page.all("script")
    assert page.all("[id]") == []
    page.browser.switch_to.default_content()
    assert page.js(INJECTED) == []


def test_without_autopilots_the_page_says_how_to_register(browser: Chrome, tmp_path: Path) -> None:
    """An empty registry shows the command that fills it."""
    with serving(tmp_path) as one:
        page = Page(browser, one.url)
        page.waits("#autopilots .empty", f"scripts/register-autopilots --url {one.url}")
        assert page.complaints() == []


def test_a_router_that_wants_a_key_is_asked_with_one(browser: Chrome, tmp_path: Path) -> None:
    """The page asks for a key once, says when it is wrong, keeps it for the tab, forgets it when told."""
    with another(tmp_path, KEY) as address:
        page = Page(browser, address)
        page.waits("#key")
        page.find("#key-input").send_keys("wrong", Keys.ENTER)
        page.waits("#key-error", "not valid")
        page.find("#key-input").send_keys(KEY, Keys.ENTER)
        page.waits(".autopilots strong", "payout-batch")
        page.waits(".tiles li")
        browser.refresh()
        page.waits(".autopilots strong", "payout-batch")
        assert browser.execute_script("return [localStorage.length, document.cookie]") == [0, ""]
        page.click("#forget-key")
        page.waits("#key")
        page.find("#key").send_keys(Keys.ESCAPE)
        page.waits("#autopilots-problem .problem", "A valid API key is needed")
        page.waits("#enter-key").click()
        page.find("#key-input").send_keys(KEY, Keys.ENTER)
        page.waits(".autopilots strong", "payout-batch")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1440])
def test_the_page_fits_and_can_be_read(page: Page, width: int, scheme: str) -> None:
    """Nothing is wider than the screen, and every text stands out from its ground by 4.5:1 at least."""
    with page.sized(width, scheme):
        page.run("task:generate_page", {"pageType": "moon"})
        page.waits("#result-body .problem")
        page.click("#show-plan")
        page.waits("#infrastructure-status", "plan")
        page.click("#register-form [type=submit]")
        page.waits("#register-name-error")
        assert page.js("return document.documentElement.scrollWidth") <= width
        assert page.js(CONTRASTS) == []
