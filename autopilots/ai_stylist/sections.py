"""The nine sections of a page, one function each, and the table of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from autopilots.ai_stylist import svg
from autopilots.ai_stylist.content import (
    Button,
    ContactContent,
    Content,
    CtaContent,
    FaqContent,
    Feature,
    FeaturesContent,
    HeroContent,
    PageType,
    Price,
    PricingContent,
    SectionType,
    StatsContent,
    TeamContent,
    TestimonialsContent,
)
from autopilots.ai_stylist.drawing import icon, illustration
from autopilots.ai_stylist.form import form
from autopilots.ai_stylist.markup import Html, el, join
from autopilots.ai_stylist.theme import Theme
from autopilots.ai_stylist.words import SectionWords


@dataclass(frozen=True, slots=True)
class Scene:
    """What a section has to know of the page around it."""

    theme: Theme
    say: Mapping[str, str]
    page_type: PageType
    level: int
    """Level of the section's heading, 1 to 5."""

    target: str = ""
    """Where a button leads that names no link; empty where there is nowhere to lead to."""

    more: str = ""
    """Link to the section after the hero; empty where there is none."""


def filled(content: Content, words: SectionWords) -> Content:
    """Return the content with the words in place of the ones that were not given."""
    said: dict[str, Any] = {"heading": content.heading or words.heading}
    # A call to action is one thought: a text of ours would not fit a heading of theirs.
    if not content.text and not (content.heading and isinstance(content, CtaContent)):
        said["text"] = words.text
    if isinstance(content, FeaturesContent) and not content.items:
        said["items"] = [Feature(heading=card.heading, text=card.text) for card in words.cards]
    return content.model_copy(update=said)


def section(kind: SectionType, content: Content, scene: Scene) -> Html:
    """Return a section of its kind; `content` is of the class that `CONTENTS` has for it."""
    return el(
        "section",
        SECTIONS[kind](content, scene),
        id=kind,
        class_=f"s-{kind}",
        aria_labelledby=f"{kind}-title",
    )


def hero(content: HeroContent, scene: Scene) -> Html:
    """Return the top of a page: words on one side, a pattern on the other."""
    button = content.button
    if button is None and scene.target:
        button = Button(label=scene.say["ask"], href=scene.target)
    quiet = "button quiet" if button else "button"
    links = join(
        _link(button, "button") if button else None,
        el("a", scene.say["more"], class_=quiet, href=scene.more) if scene.more else None,
    )
    picture = illustration(content.heading, scene.say["pattern"], scene.theme.colors)
    return el(
        "div",
        el(
            "div",
            el("p", content.eyebrow, class_="eyebrow") if content.eyebrow else None,
            _title("hero", content.heading, scene),
            el("p", content.text, class_="lead") if content.text else None,
            el("p", links, class_="actions") if links else None,
        ),
        svg.inline(picture, "picture"),
        class_="wide split",
    )


def features(content: FeaturesContent, scene: Scene) -> Html:
    """Return cards, each with an ornament."""
    cards = [
        el(
            "li",
            svg.inline(icon(f"{item.heading}{item.text}", scene.theme.colors), "icon"),
            _subtitle(item.heading, scene) if item.heading else None,
            el("p", item.text) if item.text else None,
            class_="card",
        )
        for item in content.items
    ]
    return _block("features", content, scene, _list(cards))


def testimonials(content: TestimonialsContent, scene: Scene) -> Html:
    """Return quotes; without any, the text invites readers to give one."""
    quotes = [
        el(
            "li",
            el(
                "figure",
                el("blockquote", el("p", item.quote)),
                el("figcaption", el("b", item.name), _small(item.role)) if item.name or item.role else None,
            ),
            class_="card",
        )
        for item in content.items
    ]
    return _block("testimonials", content, scene, _list(quotes) or _ask(scene, "ask"))


def cta(content: CtaContent, scene: Scene) -> Html:
    """Return a band with one thing to do; without a place to lead to, it has no button."""
    link = _link(content.button, "button") if content.button else None
    return _block("cta", content, scene, el("p", link, class_="actions") if link else _ask(scene, "ask"))


def pricing(content: PricingContent, scene: Scene) -> Html:
    """Return offers; where a price is missing, one may ask for a quote."""
    offers = [el("li", _offer(item, scene), class_="card") for item in content.items]
    return _block("pricing", content, scene, _list(offers) or _ask(scene, "quote"))


def faq(content: FaqContent, scene: Scene) -> Html:
    """Return questions with their answers."""
    answers = [el("li", _subtitle(item.question, scene), el("p", item.answer)) for item in content.items]
    return _block("faq", content, scene, _list(answers) or _ask(scene, "ask"))


def contact(content: ContactContent, scene: Scene) -> Html:
    """Return contact details, and a form where it can be sent; without both, a sentence that says so."""
    say = scene.say
    rows = [
        (say["email"], el("a", content.email, href=f"mailto:{content.email}") if content.email else None),
        (say["phone"], el("a", content.phone, href=_tel(content.phone)) if content.phone else None),
        (say["address"], content.address or None),
    ]
    given = [el("div", el("dt", label), el("dd", value)) for label, value in rows if value]
    details = el("dl", join(*given), class_="details") if given else None
    sent = form(content.form_action, scene.page_type, say) if content.form_action else None
    if not details and not sent:
        return _block("contact", content, scene, el("p", say["contact.none"], class_="lead"))
    missing = el("p", say["form.none"]) if scene.page_type == "enroll" and not sent else None
    return _block("contact", content, scene, el("div", details, sent, missing, class_="split top"))


def team(content: TeamContent, scene: Scene) -> Html:
    """Return people with their initials."""
    people = [
        el(
            "li",
            el("span", _initials(item.name), class_="initials", aria_hidden="true"),
            _subtitle(item.name, scene),
            el("p", item.role, class_="role") if item.role else None,
            el("p", item.text) if item.text else None,
            class_="card",
        )
        for item in content.items
    ]
    return _block("team", content, scene, _list(people))


def stats(content: StatsContent, scene: Scene) -> Html:
    """Return figures with what they count."""
    figures = [el("div", el("dt", item.label), el("dd", item.value)) for item in content.items]
    return _block("stats", content, scene, el("dl", join(*figures), class_="figures") if figures else None)


SECTIONS: Mapping[SectionType, Callable[[Any, Scene], Html]] = {
    "hero": hero,
    "features": features,
    "testimonials": testimonials,
    "cta": cta,
    "pricing": pricing,
    "faq": faq,
    "contact": contact,
    "team": team,
    "stats": stats,
}


def _block(kind: SectionType, content: Content, scene: Scene, body: Html | None) -> Html:
    text = el("p", content.text, class_="lead") if content.text else None
    return el(
        "div", el("div", _title(kind, content.heading, scene), text, class_="intro"), body, class_="wide"
    )


def _title(kind: SectionType, heading: str, scene: Scene) -> Html:
    return el(f"h{scene.level}", heading, id=f"{kind}-title")


def _subtitle(heading: str, scene: Scene) -> Html:
    return el(f"h{scene.level + 1}", heading)


def _list(items: list[Html]) -> Html | None:
    # Without bullets some readers hear no list, unless the role says that it is one.
    return el("ul", join(*items), class_="cards", role="list") if items else None


def _link(button: Button, class_: str) -> Html:
    return el("a", button.label, class_=class_, href=button.href)


def _ask(scene: Scene, label: str) -> Html | None:
    if not scene.target:
        return None
    return el("p", el("a", scene.say[label], class_="button", href=scene.target), class_="actions")


def _offer(item: Price, scene: Scene) -> Html:
    included = [el("li", feature) for feature in item.features]
    if item.button:
        action = el("p", _link(item.button, "button"), class_="actions")
    else:
        action = _ask(scene, "ask") or Html()
    return join(
        _subtitle(item.name, scene),
        el("p", item.price or scene.say["quote"], class_="price" if item.price else "price unknown"),
        el("p", item.text) if item.text else None,
        el("ul", join(*included), class_="ticks") if included else None,
        action,
    )


def _small(text: str) -> Html | None:
    return el("span", text, class_="role") if text else None


def _tel(phone: str) -> str:
    return "tel:" + "".join(character for character in phone if character.isdigit() or character == "+")


def _initials(name: str) -> str:
    parts = name.split()
    return "".join(part[0] for part in (parts[:1] + parts[1:][-1:])).upper()
