"""The stylist as a caller sees it: tasks through its ASGI app."""

from __future__ import annotations

import base64
import dataclasses
import html
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from autopilots.ai_stylist import ILLUSTRATIONS, IMAGES, pilot
from autopilots.kit import Parts
from infra.model import Answer
from infra.table.sqlite import SqliteTable
from tests.fakes import FakeClock, parts_for

PAGE, SECTION, ASSET = "web.pages.generate", "web.section.generate", "web.asset.generate"
SECTIONS = ["hero", "features", "testimonials", "cta", "pricing", "faq", "contact", "team", "stats"]
Ask = Callable[..., Awaitable[httpx.Response]]


class FakeModel:
    """A model that answers with what it was given, and keeps what it was asked."""

    name = "fake-model"

    def __init__(self, answer: dict[str, Any]) -> None:
        self.answer = answer
        self.asked: list[tuple[str, str]] = []

    async def ask(self, instructions: str, data: str, answer: type[Answer]) -> Answer:
        self.asked.append((instructions, data))
        return answer.model_validate(self.answer)


@pytest.fixture
def parts(table: SqliteTable, clock: FakeClock, tmp_path: Path) -> Parts:
    """Give the stylist's parts, without a model."""
    return parts_for(table, clock, tmp_path)


@pytest.fixture
def ask(parts: Parts) -> Ask:
    """Give a function that sends one task to the stylist."""

    async def send(capability: str, meta: dict[str, Any], model: FakeModel | None = None) -> httpx.Response:
        used = dataclasses.replace(parts, model=model) if model else parts
        transport = httpx.ASGITransport(app=pilot.app(used))
        async with httpx.AsyncClient(transport=transport, base_url="http://stylist") as client:
            return await client.post("/tasks", json={"task": "t", "capability": capability, "meta": meta})

    return send


def problems(response: httpx.Response) -> dict[str, str]:
    """Give the problems of a refused task by their field."""
    assert response.status_code == 422, response.text
    return {problem["field"]: problem["message"] for problem in response.json()["errors"]}


def test_manifest_states_needs_tasks_and_capabilities() -> None:
    """The registration names the three capabilities, the new task and the two buckets."""
    manifest = pilot.manifest("local:ai-stylist")
    assert [entry["name"] for entry in manifest["capabilities"]] == [PAGE, SECTION, ASSET]
    assert manifest["tasks"] == {"generate_section": SECTION}
    assert manifest["needs"] == {"r2Buckets": ["autopilot-assets", "autopilot-images"]}


@pytest.mark.parametrize(
    ("capability", "meta"),
    [
        (PAGE, {}),
        (PAGE, {"pageType": "home", "description": "Welcome page for new students"}),
        (PAGE, {"theme": "ember", "content": {"stats": {"items": [{"value": "3", "label": "shops"}]}}}),
        (PAGE, {"theme": {"colors": {"primary": "#123", "onPrimary": "#ffffff"}}}),
        (SECTION, {"sectionType": "cta"}),
        (SECTION, {"sectionType": "cta", "content": "Come and see us."}),
        (SECTION, {"sectionType": "faq", "content": {"items": [{"question": "Why?", "answer": "Because."}]}}),
        (ASSET, {}),
        (ASSET, {"assetType": "flyer", "content": "Open day for new students"}),
        (ASSET, {"assetType": "banner", "content": {"headline": "Open day"}, "theme": "meadow"}),
    ],
)
async def test_minimal_meta_passes_the_schema_and_the_handler(
    ask: Ask, capability: str, meta: dict[str, Any]
) -> None:
    """What the registered schema lets through is also what the stylist takes."""
    schemas = {entry["name"]: entry["input_schema"] for entry in pilot.manifest("local:x")["capabilities"]}
    jsonschema.Draft202012Validator(schemas[capability]).validate(meta)
    response = await ask(capability, meta)
    assert response.status_code == 200, response.text


async def test_the_seeds_page(ask: Ask, parts: Parts) -> None:
    """The documented example gives a whole page whose heading is made of its description."""
    meta = {"pageType": "home", "description": "Welcome page for new students"}
    body = (await ask(PAGE, meta)).json()
    page = body["page"]
    assert body["success"] is True
    assert page["title"] == "Welcome, new students"
    assert page["summary"] == "Welcome page for new students"
    assert page["pageType"] == "home"
    assert page["wordsBy"] == "rules"
    assert page["generatedAt"] == "2026-01-01T00:00:00.000Z"
    assert page["theme"]["name"] == "harbor"
    assert page["html"].startswith('<!doctype html>\n<html lang="en">')
    assert [section["type"] for section in page["sections"]] == ["hero", "features"]
    assert all(section["html"] in page["html"] for section in page["sections"])


async def test_illustrations_are_stored_under_their_hash(ask: Ask, parts: Parts) -> None:
    """A page's picture is a stored SVG, the same bytes as its data URI, and the same page gives the same."""
    first, second = [(await ask(PAGE, {"title": "Hello"})).json()["page"]["assets"] for _ in range(2)]
    assert first == second
    assert first[0]["alt"] == "Abstract pattern of circles and squares"
    blob = await parts.blobs.get(ILLUSTRATIONS, first[0]["key"])
    assert blob is not None
    assert blob.content_type == "image/svg+xml"
    assert first[0]["data"].endswith(base64.b64encode(blob.data).decode())
    assert await parts.blobs.list(ILLUSTRATIONS) == [first[0]["key"]]


async def test_unknown_page_type_is_refused_by_name(ask: Ask) -> None:
    """A page type that does not exist is a 422 that names the field and the choices."""
    found = problems(await ask(PAGE, {"pageType": "blog"}))
    assert "'success'" in found["meta.pageType"]


@pytest.mark.parametrize(
    ("capability", "meta", "field"),
    [
        (PAGE, {"theme": "neon"}, "meta.theme"),
        (PAGE, {"theme": {"colors": {"primary": "red"}}}, "meta.theme.colors.primary"),
        (PAGE, {"theme": {"colors": {"link": "#fff"}}}, "meta.theme.colors.link"),
        (PAGE, {"theme": 3}, "meta.theme"),
        (PAGE, {"language": "tlh"}, "meta.language"),
        (PAGE, {"language": "en\" onload"}, "meta.language"),
        (PAGE, {"sections": ["hero", "hero"]}, "meta.sections"),
        (PAGE, {"sections": ["footer"]}, "meta.sections[0]"),
        (PAGE, {"formAction": "#"}, "meta.formAction"),
        (PAGE, {"formAction": "http://plain.example/x"}, "meta.formAction"),
        (PAGE, {"formAction": "mailto:"}, "meta.formAction"),
        (PAGE, {"content": {"contact": {"email": "me"}}}, "meta.content.contact.email"),
        (PAGE, {"content": {"contact": {"phone": "call me"}}}, "meta.content.contact.phone"),
        (PAGE, {"title": "x" * 121}, "meta.title"),
        (PAGE, {"colour": "red"}, "meta.colour"),
        (SECTION, {}, "meta.sectionType"),
        (SECTION, {"sectionType": "footer", "content": {"heading": "x"}}, "meta.sectionType"),
        (SECTION, {"sectionType": "faq", "content": {"items": [{"question": "Why?"}]}},
         "meta.content.items[0].answer"),
        (SECTION, {"sectionType": "hero", "content": {"items": []}}, "meta.content.items"),
        (SECTION, {"sectionType": "hero", "content": {"button": {"label": "Go", "href": "javascript:x"}}},
         "meta.content.button.href"),
        (SECTION, {"sectionType": "hero", "headingLevel": 6}, "meta.headingLevel"),
        (ASSET, {"assetType": "poster"}, "meta.assetType"),
        (ASSET, {"format": "jpeg"}, "meta.format"),
        (ASSET, {"content": {"headline": "x" * 121}}, "meta.content.headline"),
        (ASSET, {"content": ["x"]}, "meta.content"),
        (ASSET, {"format": "png", "content": {"headline": "\u4f60\u597d"}}, "meta.format"),
    ],
)  # fmt: skip
async def test_bad_fields_are_named(ask: Ask, capability: str, meta: dict[str, Any], field: str) -> None:
    """Each field that is wrong is refused under its own path, without the schema's inner names."""
    assert list(problems(await ask(capability, meta))) == [field]


@pytest.mark.parametrize("kind", SECTIONS)
async def test_every_section_type_alone(ask: Ask, kind: str) -> None:
    """Each of the nine types gives a section of that type with its heading at the level asked for."""
    answer = await ask(SECTION, {"sectionType": kind, "headingLevel": 3})
    body = answer.json()
    assert answer.status_code == 200, body
    assert body["sectionType"] == kind
    assert body["html"].startswith(f'<section id="{kind}" class="s-{kind}" aria-labelledby="{kind}-title"><')
    assert f'<h3 id="{kind}-title">' in body["html"]
    assert body["summary"]
    assert body["wordsBy"] == "rules"
    assert "--primary:#0b5c74" in body["css"]


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("testimonials", "Share your experience"),
        ("pricing", "Ask us for a quote"),
        ("team", "Introductions have not been published"),
        ("stats", "No figures have been published"),
        ("faq", "No answers have been published"),
        ("contact", "Contact details have not been published"),
    ],
)
async def test_without_facts_sections_say_so(ask: Ask, kind: str, says: str) -> None:
    """A section about facts that were not given invents none: no quote, figure, person, price or form."""
    html = (await ask(SECTION, {"sectionType": kind})).json()["html"]
    assert says in html
    for made_up in ("<blockquote", "<dd", "<li", "<form", "<a "):
        assert made_up not in html


@pytest.mark.parametrize("language", ["en", "es-MX", "fr", "de"])
@pytest.mark.parametrize("page_type", ["home", "about", "programs", "contact", "enroll", "success"])
async def test_no_number_is_made_up(ask: Ask, page_type: str, language: str) -> None:
    """The only digits that a reader sees in a page made of nothing are those of the current year."""
    meta = {"pageType": page_type, "language": language, "brand": "Northside", "sections": SECTIONS}
    text = (await ask(PAGE, meta)).json()["page"]["html"]
    shown = re.sub(r"<style>.*?</style>|<[^>]*>", " ", text, flags=re.DOTALL)
    assert re.findall(r"\d+", html.unescape(shown)) == ["2026"]
    assert f'<html lang="{language}">' in text


async def test_text_content_becomes_the_section(ask: Ask) -> None:
    """Plain text is the heading and lead of a hero, the cards of features, and the text of others."""
    text = "Learn to weld. Evenings: keep your job. Small groups."
    hero = (await ask(SECTION, {"sectionType": "hero", "content": text})).json()["html"]
    assert '<h2 id="hero-title">Learn to weld</h2>' in hero
    cards = (await ask(SECTION, {"sectionType": "features", "content": text})).json()["html"]
    assert "<h3>Learn to weld</h3>" in cards
    assert "<h3>Evenings</h3><p>Keep your job.</p>" in cards
    cta = (await ask(SECTION, {"sectionType": "cta", "content": text})).json()["html"]
    assert f'<p class="lead">{text}</p>' in cta


async def test_given_facts_are_shown_unchanged(ask: Ask) -> None:
    """Quotes, prices, people, figures and answers stand on the page as the caller wrote them."""
    content = {
        "testimonials": {"items": [{"quote": "They answer the phone.", "name": "Luis", "role": "Student"}]},
        "pricing": {
            "items": [
                {"name": "Welding", "price": "$1,200", "features": ["Gloves"]},
                {"name": "On site", "button": {"label": "Write", "href": "mailto:a@b.example"}},
            ]
        },
        "team": {"items": [{"name": "Ana Lopez", "role": "Instructor", "text": "Builds bridges."}]},
        "stats": {"items": [{"value": "94 %", "label": "finish"}]},
        "faq": {"items": [{"question": "Tools?", "answer": "In the shop."}]},
    }
    page = (await ask(PAGE, {"content": content})).json()["page"]
    kinds = [section["type"] for section in page["sections"]]
    assert kinds == ["hero", "features", "stats", "team", "testimonials", "pricing", "faq"]
    for fact in (
        "They answer the phone.", "<b>Luis</b>", "$1,200", "Gloves", "Ana Lopez", ">AL<", "94 %", "finish",
        "In the shop.", "Ask us for a quote", '<a class="button" href="mailto:a@b.example">Write</a>',
    ):  # fmt: skip
        assert fact in page["html"]


async def test_a_form_needs_somewhere_to_go(ask: Ask) -> None:
    """A form is made only where it can be sent; contact details alone are links; without both, a sentence."""
    nothing = (await ask(PAGE, {"pageType": "enroll"})).json()["page"]["html"]
    assert "<form" not in nothing
    assert "Contact details have not been published here yet." in nothing
    assert "form-action &#x27;none&#x27;" in nothing
    details = {
        "contact": {"email": "hello@n.example", "phone": "+1 (317) 555-0100", "address": "Mill Street"}
    }
    linked = (await ask(PAGE, {"pageType": "enroll", "content": details})).json()["page"]["html"]
    assert '<a href="mailto:hello@n.example">' in linked
    assert '<a href="tel:+13175550100">+1 (317) 555-0100</a>' in linked
    assert "There is no form on this page yet." in linked
    assert "<form" not in linked
    meta = {"pageType": "enroll", "content": details, "formAction": "https://forms.example/x?a=1&b=2"}
    sent = (await ask(PAGE, meta)).json()["page"]["html"]
    assert '<form method="post" action="https://forms.example/x?a=1&amp;b=2">' in sent
    assert 'type="tel" id="field-phone" name="phone" autocomplete="tel"' in sent
    mailed = (await ask(PAGE, {"pageType": "contact", "formAction": "mailto:a@b.example"})).json()["page"]
    assert '<form method="post" action="mailto:a@b.example" enctype="text/plain">' in mailed["html"]


async def test_the_contact_sections_own_form_action_wins(ask: Ask) -> None:
    """The page's `formAction` fills in for the contact section's, it does not replace it."""
    meta = {
        "content": {"contact": {"formAction": "https://own.example"}},
        "formAction": "https://page.example",
    }
    html = (await ask(PAGE, meta)).json()["page"]["html"]
    assert 'action="https://own.example"' in html
    assert "page.example" not in html


async def test_buttons_lead_somewhere(ask: Ask) -> None:
    """Where nobody can be reached no button promises it; with contact details every button leads there."""
    sections = ["hero", "cta", "pricing", "contact"]
    without = (await ask(PAGE, {"sections": sections})).json()["page"]["html"]
    assert "Get in touch" not in without
    meta = {"sections": sections, "content": {"contact": {"email": "a@b.example"}}}
    reachable = (await ask(PAGE, meta)).json()["page"]["html"]
    assert reachable.count('href="#contact">Get in touch</a>') == 2
    assert 'href="#contact">Ask us for a quote</a>' in reachable


async def test_custom_colours_are_used_and_repairs_reported(ask: Ask) -> None:
    """A caller's colours are on the page; one that cannot be read is adjusted and the result says how."""
    theme = {"name": "meadow", "colors": {"primary": "#A00", "text": "#cccccc"}}
    page = (await ask(PAGE, {"theme": theme})).json()["page"]
    assert page["theme"]["name"] == "custom"
    assert page["theme"]["colors"]["primary"] == "#aa0000"
    assert "--primary:#aa0000" in page["html"]
    [change] = page["theme"]["adjusted"]
    assert (change["color"], change["given"]) == ("text", "#cccccc")
    assert change["used"] == page["theme"]["colors"]["text"] != "#cccccc"


async def test_a_models_words_are_used_and_named(ask: Ask) -> None:
    """With a model its words stand where the caller gave none, escaped, and the result names the model."""
    model = FakeModel(
        {
            "title": "Begin here",
            "summary": "A start for everyone.",
            "sections": [
                {"type": "hero", "heading": "Begin <here>", "text": "All are welcome."},
                {"type": "features", "heading": "Why", "cards": [{"heading": "Near", "text": "Close by."}]},
                {"type": "stats", "heading": "Off topic"},
            ],
        }
    )
    page = (await ask(PAGE, {"description": "For new students."}, model)).json()["page"]
    assert page["wordsBy"] == "fake-model"
    assert page["title"] == "Begin <here>"
    assert '<h1 id="hero-title">Begin &lt;here&gt;</h1>' in page["html"]
    assert "<h3>Near</h3><p>Close by.</p>" in page["html"]
    assert "Off topic" not in page["html"]
    [(instructions, data)] = model.asked
    assert "holds no instructions" in instructions
    assert "For new students." in data
    assert "For new students." not in instructions


async def test_a_model_never_replaces_what_was_given(ask: Ask) -> None:
    """The caller's title, heading and text stay, whatever a model says; facts never come from it."""
    model = FakeModel(
        {
            "title": "Other",
            "sections": [
                {"type": "hero", "heading": "Other", "text": "Other"},
                {"type": "testimonials", "heading": "Voices", "cards": [{"text": "Best school ever!"}]},
            ],
        }
    )
    meta = {"title": "Ours", "sections": ["hero", "testimonials"], "content": {"hero": {"text": "Our text."}}}
    page = (await ask(PAGE, meta, model)).json()["page"]
    assert page["title"] == "Ours"
    assert "Other" not in page["html"]
    assert "Our text." in page["html"]
    assert "Best school ever" not in page["html"]


async def test_a_models_numbers_must_have_been_given(ask: Ask) -> None:
    """Words with a figure that nobody gave are refused as a whole; the rules write instead."""
    answer = {"title": "98 percent succeed", "sections": [{"type": "hero", "heading": "98 percent succeed"}]}
    refused = (await ask(PAGE, {"description": "A school."}, FakeModel(answer))).json()["page"]
    assert refused["wordsBy"] == "rules"
    assert "98" not in re.sub(r"<style>.*?</style>|<[^>]*>", "", refused["html"], flags=re.DOTALL)
    taken = (await ask(PAGE, {"description": "98 of 100 pass."}, FakeModel(answer))).json()["page"]
    assert taken["wordsBy"] == "fake-model"


async def test_a_model_writes_a_section_and_an_asset(ask: Ask) -> None:
    """Sections and images take a model's words as pages do."""
    words = {"title": "T", "sections": [{"type": "cta", "heading": "Come in", "text": "The door is open."}]}
    body = (await ask(SECTION, {"sectionType": "cta"}, FakeModel(words))).json()
    assert body["wordsBy"] == "fake-model"
    assert "Come in" in body["html"]
    spoken = FakeModel({"headline": "Come in", "text": "The door is open.", "copy_text": "Come in, all."})
    asset = (await ask(ASSET, {"content": {"text": "Open day."}}, spoken)).json()
    assert asset["wordsBy"] == "fake-model"
    assert asset["copyText"] == "Come in, all."
    assert 'alt="Come in. Open day."' in asset["html"]


async def test_a_models_letters_must_be_drawable(ask: Ask) -> None:
    """A PNG is lettered by the rules where a model used letters that it cannot have."""
    spoken = FakeModel({"headline": "\u4f60\u597d", "text": "", "copy_text": ""})
    meta = {"format": "png", "assetType": "email_header", "content": {"text": "Open day."}}
    asset = (await ask(ASSET, meta, spoken)).json()
    assert asset["wordsBy"] == "rules"
    assert asset["summary"] == "email_header, png: Open day"


async def test_an_asset_is_stored_and_ready_to_embed(ask: Ask, parts: Parts) -> None:
    """The image is in the bucket under its hash, and its `<img>` carries the same bytes and an alt text."""
    content = {"headline": "Open day", "text": "Bring a friend", "brand": "Northside"}
    body = (await ask(ASSET, {"assetType": "flyer", "content": content})).json()
    assert body["dimensions"] == {"width": 8.5, "height": 11.0, "unit": "in"}
    assert body["copyText"] == "Open day. Bring a friend. Northside"
    assert body["cut"] == []
    image = body["image"]
    blob = await parts.blobs.get(IMAGES, image["key"])
    assert blob is not None
    assert len(blob.data) == image["bytes"]
    assert base64.b64decode(image["data"].partition(",")[2]) == blob.data
    assert body["html"].startswith(f'<img src="{image["data"]}" alt="Open day. Bring a friend. Northside"')


async def test_an_image_too_large_to_inline_shows_its_svg(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the limit there is no data URI of the PNG, and the `<img>` carries the same drawing as SVG."""
    monkeypatch.setattr("autopilots.ai_stylist.INLINE_LIMIT", 1000)
    body = (await ask(ASSET, {"assetType": "email_header", "format": "png", "content": "Open day"})).json()
    assert body["image"]["data"] is None
    assert body["image"]["contentType"] == "image/png"
    assert body["html"].startswith('<img src="data:image/svg+xml;base64,')
