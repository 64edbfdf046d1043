"""A browser, and the admin page in it as a person uses it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
SECONDS = 15.0

# In CI there has to be a browser: there these tests fail without one.
NEEDS_BROWSER = pytest.mark.skipif(
    not (CHROMIUM and DRIVER) and not os.environ.get("CI"),
    reason="needs chromium and chromedriver (Debian: apt-get install chromium chromium-driver)",
)

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    "--force-prefers-reduced-motion",
    "--window-size=1280,1600",
]


class Page:
    """The admin page of a router, as a person uses it."""

    def __init__(self, browser: Chrome, url: str) -> None:
        self.browser = browser
        browser.get(f"{url}/admin")

    def find(self, css: str) -> WebElement:
        """Return the one element."""
        return self.browser.find_element(By.CSS_SELECTOR, css)

    def all(self, css: str) -> list[WebElement]:
        """Return the elements."""
        return self.browser.find_elements(By.CSS_SELECTOR, css)

    def texts(self, css: str) -> list[str]:
        """Return what the elements say."""
        return [one.text for one in self.all(css)]

    def until(self, condition: Callable[[], Any], otherwise: str = "") -> Any:
        """Return what `condition` gives once that is something. Fails with `otherwise`."""
        wait = WebDriverWait(self.browser, SECONDS, 0.05, [StaleElementReferenceException])
        return wait.until(lambda _: condition(), otherwise)

    def js(self, script: str) -> Any:
        """Return what a script in the page returns."""
        return self.browser.execute_script(script)

    def waits(self, css: str, text: str = "") -> WebElement:
        """Return the first element with `text` once there is one that is shown."""
        found: list[WebElement] = self.until(
            lambda: [one for one in self.all(css) if one.is_displayed() and text in one.text],
            f"no {css} that says {text!r}",
        )
        return found[0]

    def settles(self) -> None:
        """Wait until nothing is under way."""
        self.until(lambda: not self.all("[aria-busy]"))

    def click(self, css: str) -> None:
        """Click an element once nothing is under way in its section."""
        self.until(lambda: self.find(css).is_enabled())
        self.find(css).click()

    def fill(self, css: str, text: str) -> None:
        """Type over what a field has."""
        field = self.find(css)
        field.clear()
        field.send_keys(text)

    def choose(self, task: str) -> None:
        """Choose a task, or a capability, and wait for its example."""
        self.waits("#task option")
        before = self.find("#task-about").text
        Select(self.find("#task")).select_by_value(task)
        if before:
            WebDriverWait(self.browser, SECONDS, 0.05).until(
                lambda _: self.find("#task-about").text != before
            )

    def run(self, task: str, meta: dict[str, Any], button: str = "#run-form [type=submit]") -> None:
        """Choose a task, give it a meta, and press a button."""
        self.waits("#task-about", ".")
        if Select(self.find("#task")).first_selected_option.get_attribute("value") != task:
            self.choose(task)
        self.fill("#meta", json.dumps(meta))
        self.click(button)

    @contextmanager
    def sized(self, width: int, scheme: str) -> Iterator[None]:
        """Make the screen so wide, and light or dark."""
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        try:
            yield
        finally:
            self.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
            self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})

    def complaints(self) -> list[str]:
        """Return what the console holds, but for the plain notes that an answer was a 4xx."""
        entries = self.browser.get_log("browser")  # type: ignore[no-untyped-call]
        return [
            one["message"]
            for one in entries
            if "the server responded with a status of 4" not in one["message"]
        ]


@contextmanager
def browsing() -> Iterator[Chrome]:
    """Give a browser with a profile of its own."""
    if not (CHROMIUM and DRIVER):
        pytest.fail("CI needs chromium and chromedriver for the tests of the admin page")
    opened = chrome()
    yield opened
    opened.quit()


def chrome() -> Chrome:
    """Return a browser with a profile of its own."""
    assert CHROMIUM
    assert DRIVER
    options = ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return Chrome(options=options, service=ChromeService(DRIVER))


CONTRASTS = """
const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
const linear = (x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
const part = (value) => linear(value / 255);
const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
const ground = (node) => {
  for (let one = node; one; one = one.parentElement) {
    const color = numbers(getComputedStyle(one).backgroundColor);
    if (color.length === 3 || color[3] === 1) return color;
  }
  return [255, 255, 255];
};
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const poor = [];
while (walker.nextNode()) {
  const node = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || !node.checkVisibility()) continue;
  if (node.closest("noscript, script, option, :disabled")) continue;
  const [a, b] = [light(numbers(getComputedStyle(node).color)), light(ground(node))];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < 4.5) poor.push(`${ratio.toFixed(2)} ${node.className} ${walker.currentNode.data.slice(0, 40)}`);
}
return poor;
"""
"""Returns the texts that do not stand out from their ground."""

MARKUP = '<img src=x onerror="document.body.id=1;alert(1)"><script>document.body.id=1;alert(1)</script>'
TAGS = ("img src", "svg", "body", "input autofocus", "video src", "a href", "details open", "p", "b", "form")
EVENTS = ("onload", "onerror", "onfocus", "ontoggle", "onmouseover")
MANY = " ".join(f"<{tag} {event}=alert(1)>" for tag in TAGS for event in EVENTS)

INJECTED = """
const handled = (node) => node.getAttributeNames().some((name) => name.startsWith("on"));
return [...document.querySelectorAll("*")].filter(
  (node) => handled(node) || node.matches("img, svg, script:not([src]), body[id], a[href^=javascript]"));
"""
"""Returns what markup that came from the API would have become."""
