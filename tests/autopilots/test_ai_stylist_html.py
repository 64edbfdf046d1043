"""Pages as browsers and readers meet them: judged by html5lib, and by rules of accessibility."""

from __future__ import annotations

import itertools
import re
from typing import Any
from xml.etree.ElementTree import Element

import html5lib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from autopilots.ai_stylist import page
from autopilots.ai_stylist.content import Button, PageMeta, PageType, SectionType
from autopilots.ai_stylist.markup import Html, el, escape, join
from autopilots.ai_stylist.theme import THEMES, theme_of
from autopilots.ai_stylist.words import rules

PAGE_TYPES: list[PageType] = ["home", "about", "programs", "contact", "enroll", "success"]
SECTIONS: list[SectionType] = [
    "hero", "features", "testimonials", "cta", "pricing", "faq", "contact", "team", "stats",
]  # fmt: skip
HOSTILE = "\"'><script>alert(1)</script><svg onload=x>&amp;\u202egnp.exe\x00\x1b</title></style>]]>"
LINK = {"label": "Go", "href": "https://example.org/?a=1&b=\u00e9"}


def facts(text: str) -> dict[str, Any]:
    """Give content for every section with `text` wherever text may be."""
    said = {"heading": text, "text": text}
    return {
        "hero": {**said, "eyebrow": text, "button": LINK},
        "features": {**said, "items": [said, {"heading": text}, {"text": text}]},
        "testimonials": {**said, "items": [{"quote": text, "name": text, "role": text}, {"quote": text}]},
        "cta": {**said, "button": LINK},
        "pricing": {**said, "items": [{"name": text, "price": text, "text": text, "features": [text]},
                                      {"name": text, "button": LINK}]},
        "faq": {**said, "items": [{"question": text, "answer": text}]},
        "contact": {**said, "email": "a@b.example", "phone": "555 0100", "address": text,
                    "formAction": "https://f.example"},
        "team": {**said, "items": [{"name": text, "role": text, "text": text}, {"name": text}]},
        "stats": {**said, "items": [{"value": text, "label": text}]},
    }  # fmt: skip


def made(**meta: Any) -> str:
    """Give the HTML of a page by the rules."""
    parsed = PageMeta.model_validate(meta)
    contents = page.contents(parsed)
    words = rules(page.brief_of(parsed, contents))
    return page.make(parsed, contents, words, theme_of(parsed.theme), "2026").html


def parsed(html: str) -> Element:
    """Give the document; the parser refuses any error in it."""
    parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
    root: Element = parser.parse(html)
    return root


def section_sets() -> list[list[SectionType]]:
    """Give the default, each section alone, each after a hero, all, and all backwards."""
    alone: list[list[SectionType]] = [[kind] for kind in SECTIONS]
    return [[], *alone, *(["hero", *one] for one in alone[1:]), SECTIONS, SECTIONS[::-1]]


@pytest.mark.parametrize("filled", ["empty", "given", "hostile"])
@pytest.mark.parametrize("page_type", PAGE_TYPES)
def test_pages_are_valid_and_accessible(page_type: PageType, filled: str) -> None:
    """Every page type with every set of sections parses without an error and keeps the rules of access."""
    content = {"empty": {}, "given": facts("A word or two."), "hostile": facts(HOSTILE)}[filled]
    for sections in section_sets():
        check(parsed(made(pageType=page_type, sections=sections, content=content, brand="North & Side")))


def check(root: Element) -> None:
    """Assert what every page has to keep."""
    assert root.get("lang") == "en"
    body = root.find("body")
    assert body is not None
    assert [child.tag for child in body] == ["a", "header", "main", "footer"]
    assert body[0].get("href") == "#main"
    assert (root.findtext("head/title") or "").strip()
    named = {meta.get("name"): meta.get("content") for meta in root.iterfind("head/meta")}
    assert named["viewport"] == "width=device-width, initial-scale=1"
    assert named["description"]
    check_headings(root)
    check_names(root)
    check_ids(root)
    assert not any(name.startswith("on") or name == "style" for node in root.iter() for name in node.attrib)
    assert {node.tag for node in root.iter() if isinstance(node.tag, str)}.isdisjoint(
        {"script", "iframe", "object", "img", "embed", "base"}
    )


def check_headings(root: Element) -> None:
    """Assert one h1, first, and no level left out."""
    tags = [node.tag for node in root.iter() if isinstance(node.tag, str)]
    levels = [int(tag[1]) for tag in tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels)), levels


def check_names(root: Element) -> None:
    """Assert that pictures, fields, links, buttons and menus have a name, and ornaments are hidden."""
    labels = {label.get("for") for label in root.iter("label")}
    for node in root.iter():
        if node.tag == "svg":
            title = node.findtext("title")
            assert (node.get("role") == "img" and title) or (node.get("aria-hidden") == "true" and not title)
        if node.tag in ("input", "textarea"):
            assert node.get("id") in labels
            assert node.get("autocomplete")
        if node.tag in ("a", "button", "label", "dt", "dd", "li"):
            assert "".join(node.itertext()).strip()
        if node.tag == "nav":
            assert node.get("aria-label")


def check_ids(root: Element) -> None:
    """Assert that no id is used twice and that references lead to one."""
    ids = [node.get("id") for node in root.iter() if node.get("id")]
    assert len(ids) == len(set(ids))
    for node in root.iter():
        assert node.get("aria-labelledby") in (None, *ids)
        href = node.get("href") or ""
        assert not href.startswith("#") or href[1:] in ids


def test_a_page_loads_nothing_from_elsewhere() -> None:
    """No element or rule of a page makes a browser ask another host, and its policy forbids it."""
    html = made(content=facts("Words."), brand="B")
    root = parsed(html)
    loaded = [node.get(name) for node in root.iter() for name in ("src", "srcset", "data", "poster")]
    assert set(loaded) == {None}
    links = [link.get("href") or "" for link in root.iter("link")]
    assert len(links) == 1
    assert links[0].startswith("data:image/svg+xml;base64,")
    style = root.findtext("head/style") or ""
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src &#x27;none&#x27;; style-src &#x27;unsafe-inline&#x27;; img-src data:;" in html


def test_movement_is_only_for_those_who_do_not_mind() -> None:
    """Every transition and smooth scroll stands under a prefers-reduced-motion query."""
    style = parsed(made()).findtext("head/style") or ""
    calm, _, rest = style.partition("@media (prefers-reduced-motion:no-preference){")
    assert rest
    for word in ("transition", "animation", "scroll-behavior"):
        assert word not in calm


@pytest.mark.parametrize("name", THEMES)
def test_the_style_declares_what_it_uses(name: str) -> None:
    """Every variable in the stylesheet is declared, with balanced braces, in each theme."""
    style = parsed(made(theme=name)).findtext("head/style") or ""
    assert set(re.findall(r"var\((--\w+)\)", style)) == set(re.findall(r"(--\w+):", style))
    assert style.count("{") == style.count("}")
    assert f"color-scheme:{'dark' if name == 'midnight' else 'light'}" in style


@settings(max_examples=20)
@given(text=st.text(max_size=100))
def test_any_text_stays_text(text: str) -> None:
    """Whatever the caller writes, no element or attribute comes of it, and no control character stays."""
    html = made(title=text, brand=text, description=text, content={"features": {"items": [{"text": text}]}})
    root = parsed(html)
    plain = parsed(
        made(title="t", brand="t", description="t", content={"features": {"items": [{"text": "t"}]}})
    )
    assert {node.tag for node in root.iter()} <= {node.tag for node in plain.iter()} | {"p"}
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", html)


def test_hostile_text_is_shown_as_it_is() -> None:
    """Markup in a title is text on the page, without the characters that hide or reorder it."""
    root = parsed(made(title=HOSTILE))
    assert (
        root.findtext(".//h1") == "\"'><script>alert(1)</script><svg onload=x>&amp;gnp.exe</title></style>]]>"
    )


@pytest.mark.parametrize(
    "href",
    [
        "javascript:alert(1)", "JaVaScRiPt:alert(1)", "java\nscript:alert(1)", " javascript:x",
        "\x01javascript:x", "data:text/html,x", "vbscript:x", "http://plain.example", "//elsewhere.example",
        "/\\elsewhere.example", "\\\\elsewhere", "https:", "https://", "https:///x", "https:evil.example",
        "https://user:pw@bank.example", "https://a.example:port", "mailto:", "mailto:nobody",
        "mailto:?bcc=a@b.example", "tel:", "tel:abc", "ftp://x.example", "file:///etc/passwd", "about:blank",
        "https://a.example/ x", "https://a.example/\"onclick=", "", "x\u202ey", "blob:https://a.example",
    ],
)  # fmt: skip
def test_unsafe_links_are_refused(href: str) -> None:
    """A link that is not https, mailto, tel or a path on the page's own site is a validation error."""
    with pytest.raises(ValidationError):
        Button.model_validate({"label": "Go", "href": href})


@pytest.mark.parametrize(
    "href",
    [
        "https://a.example", "https://a.example:8443/x?y=1&z#w", "mailto:a.b+c@d.example?subject=Hi",
        "tel:+1-317", "/programs", "programs.html", "../x", "#contact", "?page=2", "/a:b",
    ],
)  # fmt: skip
def test_safe_links_are_taken(href: str) -> None:
    """Links over https, to mail, to a phone and within the site are kept as they are."""
    assert Button.model_validate({"label": "Go", "href": href}).href == href


def test_elements_escape_by_default() -> None:
    """Text and attributes are escaped once; markup is not escaped again; absent attributes are left out."""
    inner = el("b", "1 < 2", class_="x", hidden=True, title=None, draggable=False, aria_label='"')
    assert inner == '<b class="x" hidden aria-label="&quot;">1 &lt; 2</b>'
    assert el("p", inner, None, "&") == f"<p>{inner}&amp;</p>"
    assert el("br") == "<br>"
    assert el("rect", x=1.50) == '<rect x="1.5"></rect>'
    assert join() == ""
    assert escape(Html("<i>")) == "<i>"
    assert escape(f"{Html('<i>')}") == "&lt;i&gt;"
