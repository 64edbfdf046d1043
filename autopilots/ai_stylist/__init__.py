"""The stylist: makes web pages, sections of pages, and marketing images.

Everything it returns is complete in itself: pages have no script and load nothing, images are drawn here.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

from autopilots.ai_stylist import asset, page, png, strokes, svg
from autopilots.ai_stylist.content import (
    CONTENTS,
    AssetContent,
    AssetMeta,
    Content,
    PageMeta,
    SectionMeta,
)
from autopilots.ai_stylist.drawing import Drawing, illustration
from autopilots.ai_stylist.markup import el
from autopilots.ai_stylist.phrases import phrases
from autopilots.ai_stylist.safe import one_line, shortened
from autopilots.ai_stylist.sections import Scene, filled, section
from autopilots.ai_stylist.style import stylesheet
from autopilots.ai_stylist.theme import theme_of
from autopilots.ai_stylist.words import Brief, asset_words, page_words
from autopilots.kit import Call, Parts, Pilot
from infra.blobs import Blob, Blobs
from infra.clock import rfc3339
from router.errors import Invalid

ILLUSTRATIONS = "autopilot-assets"
IMAGES = "autopilot-images"
INLINE_LIMIT = 200_000
"""Bytes up to which an image is also returned as a data URI."""

_PNG_SCALE = {"flyer": 1.5}
"""Flyers are printed: 144 dots per inch instead of 96."""

pilot: Pilot[Parts] = Pilot(
    "ai-stylist",
    "Makes web pages, sections of pages, and marketing images",
    needs={"r2Buckets": [ILLUSTRATIONS, IMAGES]},
    tasks={"generate_section": "web.section.generate"},
)


@pilot.capability("web.pages.generate")
async def generate_page(meta: PageMeta, call: Call[Parts]) -> dict[str, Any]:
    """Make a web page: one complete HTML document without scripts.

    Answers `{success, page: {title, html, summary, sections: [{type, html}], assets: [{name, alt,
    contentType, bucket, key, data}], pageType, theme, language, generatedAt, wordsBy}}`. `wordsBy` is
    `rules`, or the model that wrote what the caller left out.
    """
    theme = theme_of(meta.theme)
    given = page.contents(meta)
    words, by = await page_words(call.parts.model, page.brief_of(meta, given))
    now = rfc3339(call.parts.clock())
    made = page.make(meta, given, words, theme, now[:4])
    assets = []
    if "hero" in given:
        heading = filled(given["hero"], words.of("hero")).heading
        picture = illustration(heading, phrases(meta.language)["pattern"], theme.colors)
        assets.append(await _illustration(call.parts.blobs, picture))
    return {
        "success": True,
        "page": {
            "title": made.title,
            "html": made.html,
            "summary": words.summary,
            "sections": [{"type": kind, "html": str(html)} for kind, html in made.sections],
            "assets": assets,
            "pageType": meta.page_type,
            "theme": theme.document(),
            "language": meta.language,
            "generatedAt": now,
            "wordsBy": by,
        },
    }


@pilot.capability("web.section.generate")
async def generate_section(meta: SectionMeta, call: Call[Parts]) -> dict[str, Any]:
    """Make one section of a page: a fragment of HTML and the stylesheet that it needs.

    Answers `{html, css, summary, sectionType, theme, wordsBy}`.
    """
    kind, theme, say = meta.section_type, theme_of(meta.theme), phrases(meta.language)
    content, description = _section_content(meta)
    brief = Brief(
        kind="section",
        page_type="home",
        language=meta.language,
        title=content.heading if kind == "hero" else "",
        brand=meta.brand,
        description=description,
        sections=(kind,),
        given={kind: content.model_dump(exclude_defaults=True)},
    )
    words, by = await page_words(call.parts.model, brief)
    said = filled(content, words.of(kind))
    html = section(kind, said, Scene(theme, say, "home", meta.heading_level))
    return {
        "html": str(html),
        "css": stylesheet(theme),
        "summary": shortened(". ".join(part for part in (said.heading, said.text) if part), 200),
        "sectionType": kind,
        "theme": theme.document(),
        "wordsBy": by,
    }


@pilot.capability("web.asset.generate")
async def generate_asset(meta: AssetMeta, call: Call[Parts]) -> dict[str, Any]:
    """Make a marketing image as SVG or PNG, and the text to post with it.

    Answers `{html, dimensions: {width, height, unit}, summary, copyText, assetType, theme, wordsBy, cut,
    image: {contentType, bucket, key, width, height, bytes, data}}`. `cut` names the words that did not fit
    and end in an ellipsis. `data` is a data URI, or null above `INLINE_LIMIT` bytes; `html` then shows the
    SVG of the same image.
    """
    theme = theme_of(meta.theme)
    given = _asset_content(meta)
    png_wanted = meta.format == "png"
    unknown = strokes.unknown(given.headline + given.text + given.brand) if png_wanted else ""
    if unknown:
        raise Invalid([("meta.format", f"png has no letters for {unknown[:20]!r}; svg has")])
    words, by = await asset_words(
        call.parts.model,
        meta.asset_type,
        meta.language,
        given,
        drawable=lambda text: not (png_wanted and strokes.unknown(text)),
    )
    measure = strokes.text_width if png_wanted else svg.text_width
    laid = asset.lay_out(meta.asset_type, words.headline, words.text, given.brand, theme, measure)
    image = await _image(call.parts.blobs, laid.drawing, meta)
    form = asset.FORMATS[meta.asset_type]
    shown = image["data"] or svg.data_uri(svg.document(laid.drawing), "image/svg+xml")
    alt = ". ".join(part for part in (words.headline, words.text, given.brand) if part)
    return {
        "html": str(el("img", src=shown, alt=alt, width=form.width, height=form.height)),
        "dimensions": form.dimensions(),
        "summary": f"{meta.asset_type}, {meta.format}: {words.headline}",
        "copyText": words.copy_text,
        "assetType": meta.asset_type,
        "theme": theme.document(),
        "wordsBy": by,
        "cut": list(laid.cut),
        "image": image,
    }


def _section_content(meta: SectionMeta) -> tuple[Content, str]:
    """Return the content of a section, and the plain text that its words are made from."""
    empty = CONTENTS[meta.section_type].model_validate({})
    if meta.content is None:
        return empty, ""
    if not isinstance(meta.content, str):
        return meta.content, ""
    if meta.section_type in ("hero", "features"):
        return empty, meta.content
    return empty.model_copy(update={"text": one_line(meta.content)}), ""


def _asset_content(meta: AssetMeta) -> AssetContent:
    if isinstance(meta.content, AssetContent):
        return meta.content
    return AssetContent(headline="", text=one_line(meta.content or meta.description), brand="")


async def _image(blobs: Blobs, drawing: Drawing, meta: AssetMeta) -> dict[str, Any]:
    scale = 1.0
    if meta.format == "png":
        scale = _PNG_SCALE.get(meta.asset_type, 1.0)
        # Drawing takes some tenths of a second: the other tasks of this process go on meanwhile.
        data, content_type = await asyncio.to_thread(png.document, drawing, scale), "image/png"
    else:
        data, content_type = svg.document(drawing), "image/svg+xml"
    return {
        "contentType": content_type,
        "bucket": IMAGES,
        "key": await _stored(blobs, IMAGES, meta.asset_type, data, content_type),
        "width": round(drawing.width * scale),
        "height": round(drawing.height * scale),
        "bytes": len(data),
        "data": svg.data_uri(data, content_type) if len(data) <= INLINE_LIMIT else None,
    }


async def _illustration(blobs: Blobs, drawing: Drawing) -> dict[str, Any]:
    data, content_type = svg.document(drawing), "image/svg+xml"
    return {
        "name": "hero",
        "alt": drawing.title,
        "contentType": content_type,
        "bucket": ILLUSTRATIONS,
        "key": await _stored(blobs, ILLUSTRATIONS, "hero", data, content_type),
        "data": svg.data_uri(data, content_type),
    }


async def _stored(blobs: Blobs, bucket: str, folder: str, data: bytes, content_type: str) -> str:
    """Store bytes under their own hash, so that the same image is kept once, and return the key."""
    end = "png" if content_type == "image/png" else "svg"
    key = f"{folder}/{hashlib.sha256(data).hexdigest()[:40]}.{end}"
    await blobs.put(bucket, key, Blob(data, content_type))
    return key
