"""Puts a page together: which sections it has, and the document around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from autopilots.ai_stylist import svg
from autopilots.ai_stylist.content import (
    CONTENTS,
    ContactContent,
    Content,
    PageMeta,
    PageType,
    SectionType,
)
from autopilots.ai_stylist.drawing import icon
from autopilots.ai_stylist.markup import Html, el, escape, join
from autopilots.ai_stylist.phrases import phrases
from autopilots.ai_stylist.safe import shortened
from autopilots.ai_stylist.sections import Scene, filled, section
from autopilots.ai_stylist.style import stylesheet
from autopilots.ai_stylist.theme import Theme
from autopilots.ai_stylist.words import Brief, Words

ORDER: tuple[SectionType, ...] = (
    "hero", "features", "stats", "team", "testimonials", "pricing", "faq", "cta", "contact",
)  # fmt: skip
"""Where a section stands when the caller gave no order."""

DEFAULTS: Mapping[PageType, frozenset[SectionType]] = {
    "home": frozenset({"hero", "features"}),
    "about": frozenset({"hero", "features"}),
    "programs": frozenset({"hero", "features", "pricing"}),
    "contact": frozenset({"hero", "contact"}),
    "enroll": frozenset({"hero", "features", "contact"}),
    "success": frozenset({"hero"}),
}


@dataclass(frozen=True, slots=True)
class Made:
    """A page: its document, and its sections apart."""

    title: str
    html: str
    sections: tuple[tuple[SectionType, Html], ...]


def contents(meta: PageMeta) -> dict[SectionType, Content]:
    """Return the sections of a page in their order, with what was given for each.

    Without an order there are those of the page type, those with content, and where readers can reach
    somebody, a call to do so.
    """
    given = {kind: meta.content.of(kind) for kind in ORDER}
    contact = given["contact"]
    if meta.form_action and (contact is None or not getattr(contact, "form_action", "")):
        start = contact or ContactContent.model_validate({})
        given["contact"] = start.model_copy(update={"form_action": meta.form_action})
    kinds: Sequence[SectionType] = meta.sections or [
        kind for kind in ORDER if kind in DEFAULTS[meta.page_type] or given[kind] is not None
    ]
    hero = given["hero"] or CONTENTS["hero"].model_validate({})
    if kinds[0] == "hero" and meta.title and not hero.heading:
        given["hero"] = hero.model_copy(update={"heading": meta.title})
    return {kind: given[kind] or CONTENTS[kind].model_validate({}) for kind in kinds}


def brief_of(meta: PageMeta, given: Mapping[SectionType, Content]) -> Brief:
    """Return what words are wanted for a page."""
    return Brief(
        kind="page",
        page_type=meta.page_type,
        language=meta.language,
        title=meta.title,
        brand=meta.brand,
        description=meta.description,
        sections=tuple(given),
        given={kind: content.model_dump(exclude_defaults=True) for kind, content in given.items()},
    )


def make(meta: PageMeta, given: Mapping[SectionType, Content], words: Words, theme: Theme, year: str) -> Made:
    """Return the page; `year` is the one of the copyright line, which only a brand has."""
    say = phrases(meta.language)
    said = {kind: filled(content, words.of(kind)) for kind, content in given.items()}
    kinds = list(said)
    hero_first = kinds[0] == "hero"
    title = meta.title or (said["hero"].heading if hero_first else words.title)
    scene = Scene(theme, say, meta.page_type, 2, _target(given), _after(kinds))
    parts = tuple(
        (kind, section(kind, content, replace(scene, level=1) if hero_first and kind == "hero" else scene))
        for kind, content in said.items()
    )
    main = join(
        None if hero_first else el("div", el("div", el("h1", title), class_="wide"), class_="plain"),
        *(html for _, html in parts),
    )
    body = join(
        el("a", say["skip"], class_="skip", href="#main"),
        _header(meta.brand or title, kinds, say, theme),
        el("main", main, id="main", tabindex=-1),
        _footer(meta.brand, title, given.get("contact"), year),
    )
    head = _head(_full_title(title, meta.brand), words.summary, theme, form="<form" in main)
    page = el("html", el("head", head), el("body", body), lang=meta.language)
    return Made(title, f"<!doctype html>\n{page}\n", parts)


def _target(given: Mapping[SectionType, Content]) -> str:
    """Return where readers can reach somebody: the contact section, if there is anything in it."""
    contact = given.get("contact")
    reachable = contact is not None and contact.model_dump(exclude_defaults=True).keys() & {
        "email",
        "phone",
        "address",
        "form_action",
    }
    return "#contact" if reachable else ""


def _after(kinds: list[SectionType]) -> str:
    following = kinds[kinds.index("hero") + 1 :] if "hero" in kinds else []
    return f"#{following[0]}" if following and following[0] != "contact" else ""


def _full_title(title: str, brand: str) -> str:
    return title if brand.lower() in title.lower() else f"{title} | {brand}"


def _head(title: str, summary: str, theme: Theme, *, form: bool) -> Html:
    # The page needs nothing from anywhere; the policy makes sure that it gets nothing.
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
        f"form-action {'https: mailto:' if form else chr(39) + 'none' + chr(39)}"
    )
    mark = svg.data_uri(svg.document(icon(title, theme.colors)), "image/svg+xml")
    return join(
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("title", title),
        el("meta", name="description", content=shortened(summary, 200)),
        el("meta", name="theme-color", content=theme.colors.background),
        el("link", rel="icon", href=mark, type="image/svg+xml"),
        el("style", Html(f"\n{stylesheet(theme)}")),
    )


def _header(name: str, kinds: list[SectionType], say: Mapping[str, str], theme: Theme) -> Html:
    links = [el("li", el("a", say[f"label.{kind}"], href=f"#{kind}")) for kind in kinds if kind != "hero"]
    menu = el("nav", el("ul", join(*links), role="list"), aria_label=say["menu"]) if links else None
    brand = el("p", svg.inline(icon(name, theme.colors)), el("span", name), class_="brand")
    return el("header", el("div", brand, menu, class_="bar"))


def _footer(brand: str, title: str, contact: Content | None, year: str) -> Html:
    lines = [escape(f"© {year} {brand}" if brand else title)]
    if isinstance(contact, ContactContent) and contact.email:
        lines.append(el("a", contact.email, href=f"mailto:{contact.email}"))
    return el("footer", *(el("p", line) for line in lines))
