"""Images: SVG that is valid XML, PNG that decodes, and words that stay inside."""

from __future__ import annotations

import io
import itertools
import zlib
from pathlib import Path
from typing import get_args
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from autopilots.ai_stylist import png, strokes, svg
from autopilots.ai_stylist.asset import FORMATS, Laid, Measure, balanced, lay_out, wrapped
from autopilots.ai_stylist.content import AssetType
from autopilots.ai_stylist.drawing import Box, Disc, Drawing, Line, Quarter, Rect, icon, illustration, tiles
from autopilots.ai_stylist.safe import one_line
from autopilots.ai_stylist.theme import THEMES, contrast

SVG = "{http://www.w3.org/2000/svg}"
SIZES = {
    "social_post": ("1080", "1080"),
    "story": ("1080", "1920"),
    "flyer": ("8.5in", "11in"),
    "banner": ("1200", "400"),
    "email_header": ("600", "200"),
}
HARBOR = THEMES["harbor"]
LONG = "Evening classes in small groups, close to home, for everybody who wants to learn a trade. " * 6


def laid(asset_type: AssetType, headline: str, text: str = "", measure: Measure = svg.text_width) -> Laid:
    """Give an image with a brand, in the first theme."""
    return lay_out(asset_type, headline, text, "Northside Trades", HARBOR, measure)


def pixel(image: Image.Image, x: int, y: int) -> object:
    """Give the colour at a place as `#rrggbb`."""
    return "#" + image.crop((x, y, x + 1, y + 1)).tobytes().hex()


@pytest.mark.parametrize("asset_type", get_args(AssetType))
def test_svg_is_xml_of_the_stated_size(asset_type: AssetType) -> None:
    """Each kind of image is well-formed, has its size, and says in words what it shows."""
    root = ElementTree.fromstring(svg.document(laid(asset_type, "Open <day> & night", LONG[:200]).drawing))
    assert root.tag == f"{SVG}svg"
    assert (root.get("width"), root.get("height")) == SIZES[asset_type]
    assert root.get("role") == "img"
    assert root.findtext(f"{SVG}title") == "Open <day> & night Northside Trades"
    assert root.findtext(f"{SVG}desc") == LONG[:200]
    shown = " ".join(node.text or "" for node in root.iter(f"{SVG}text"))
    assert shown.split() == f"Open <day> & night {LONG[:200]} Northside Trades".split()


@pytest.mark.parametrize("asset_type", get_args(AssetType))
def test_words_stay_in_their_place(asset_type: AssetType) -> None:
    """Long and short words alike stay inside the image, off the pattern, and no line is over another."""
    form = FORMATS[asset_type]
    for measure in (svg.text_width, strokes.text_width):
        for headline, text in (
            ("Hi", ""),
            ("Learn to weld", LONG[:180]),
            (LONG[:120], LONG),
            ("W" * 120, "W" * 600),
        ):
            lines = [
                s for s in laid(asset_type, headline, text, measure).drawing.shapes if isinstance(s, Line)
            ]
            assert lines
            for line in lines:
                right = line.x + measure(line.text, line.size, bold=line.bold)
                assert right <= form.words.x + form.words.width + 0.5
                assert line.y - line.size * 0.75 >= form.words.y - 1
                assert line.y <= form.words.y + form.words.height + 1
            ends = sorted(line.y for line in lines)
            assert all(b - a >= min(line.size for line in lines) for a, b in itertools.pairwise(ends))


def test_what_does_not_fit_is_cut_and_told() -> None:
    """Words too many for an image end in an ellipsis, and the result names which; fewer are all there."""
    much = laid("email_header", LONG[:120], LONG)
    assert much.cut == ("text",)
    assert laid("email_header", "\u4f60" * 120, "W" * 600).cut == ("headline", "text")
    lines = [shape.text for shape in much.drawing.shapes if isinstance(shape, Line)]
    assert any(line.endswith("…") for line in lines)
    assert laid("story", "Hi", "There").cut == ()


def test_a_long_name_is_set_smaller() -> None:
    """A brand too long for its line gets smaller letters, down to half, and then its end is cut, and told."""

    def signature(brand: str) -> tuple[Line, tuple[str, ...]]:
        made = lay_out("email_header", "Hi", "", brand, HARBOR, svg.text_width)
        last = made.drawing.shapes[-1]
        assert isinstance(last, Line)
        return last, made.cut

    short, longer, longest = (signature(name) for name in ("Northside", "Northside Trades " * 3, "W" * 120))
    assert short[0].size > longer[0].size > longest[0].size
    assert (longer[0].text, longer[1]) == ("Northside Trades " * 3, ())
    assert longest[0].text.startswith("WWWWWWWWWW")
    assert longest[0].text.endswith("\u2026")
    assert longest[1] == ("brand",)


def test_wrapping_breaks_between_words_and_only_then_inside() -> None:
    """Lines are as full as they may be; a word wider than a line is broken; balance keeps their number."""

    def letters(text: str) -> float:
        return float(len(text))

    assert wrapped("aa bb cc", 5, letters) == ["aa bb", "cc"]
    assert wrapped("abcdefgh i", 3, letters) == ["abc", "def", "gh", "i"]
    assert wrapped("abcdefgh i", 4, letters) == ["abcd", "efgh", "i"]
    assert wrapped("", 5, letters) == []
    assert balanced("aaaa bbbb cccc dd", 14, letters) == ["aaaa bbbb", "cccc dd"]


@given(st.text(max_size=60))
def test_any_text_gives_valid_svg(text: str) -> None:
    """No text breaks the XML or adds an element to it."""
    clean = one_line(text)
    drawing = lay_out("banner", clean, clean, clean, HARBOR, svg.text_width).drawing
    root = ElementTree.fromstring(svg.document(drawing))
    assert {node.tag.removeprefix(SVG) for node in root.iter()} <= {
        "svg", "title", "desc", "rect", "circle", "path", "text",
    }  # fmt: skip


@pytest.mark.parametrize("asset_type", get_args(AssetType))
def test_png_decodes_and_shows_something(asset_type: AssetType) -> None:
    """Each kind of image decodes to its size in pixels with the ground, the ink and the pattern in it."""
    drawing = laid(asset_type, "Learn to weld", LONG[:120], strokes.text_width).drawing
    scale = 1.5 if asset_type == "flyer" else 1.0
    image = Image.open(io.BytesIO(png.document(drawing, scale)))
    image.load()
    assert image.mode == "RGB"
    assert image.size == (round(drawing.width * scale), round(drawing.height * scale))
    counted = image.getcolors(1 << 20)
    assert counted is not None
    colors = {"#" + bytes(color).hex() for _, color in counted if isinstance(color, tuple)}
    inks = {shape.color for shape in drawing.shapes}
    assert {drawing.ground, *inks} <= colors | {drawing.ground}
    assert image.info["dpi"] == pytest.approx((96 * scale, 96 * scale), abs=0.1)
    assert image.info["Title"] == "Learn to weld Northside Trades"


def test_shapes_are_where_they_should_be() -> None:
    """Rectangles, discs and quarters cover the pixels that they cover in SVG, smoothed at the edge."""
    red, blue, green = "#ff0000", "#0000ff", "#00ff00"
    shapes = (Rect(10, 10, 20, 20, red), Disc(60, 20, 10, blue), Quarter(80, 0, 40, 2, green))
    image = Image.open(io.BytesIO(png.document(Drawing(130, 40, "#ffffff", shapes, "t"))))
    assert pixel(image, 9, 10) == "#ffffff"
    assert pixel(image, 10, 10) == pixel(image, 29, 29) == red
    assert pixel(image, 30, 20) == "#ffffff"
    assert pixel(image, 60, 20) == pixel(image, 51, 20) == blue
    assert pixel(image, 51, 11) == "#ffffff"
    # The centre of corner 2 is the lower right: that corner is full, the upper left one is empty.
    assert pixel(image, 119, 39) == green
    assert pixel(image, 81, 1) == "#ffffff"
    between = {pixel(image, x, 12) for x in range(50, 70)} - {"#ffffff", blue}
    assert between


def test_shapes_outside_are_left_out() -> None:
    """What is beyond the canvas is not drawn and breaks nothing."""
    shapes = (
        Rect(-5, -5, 10, 10, "#ff0000"),
        Disc(200, 200, 20, "#0000ff"),
        Line(-50, 5, 40, "#00ff00", "WWW"),
        Quarter(-2.7, -2.7, 5.3, 0, "#00ffff"),
    )
    image = Image.open(io.BytesIO(png.document(Drawing(20, 20, "#ffffff", shapes, "t"))))
    assert pixel(image, 19, 19) == "#ffffff"


@pytest.mark.parametrize(
    "text", ["Il", "A\u00c4", "e\u00e9", "c\u00e7", "O\u00d8", "o\u00f6", "0O", ".:", "\u00bf?"]
)
def test_letters_differ(text: str) -> None:
    """Letters that are easily confused, and letters with and without an accent, have other pixels."""
    pictures = []
    for letter in (text[0], text[1:]):
        drawing = Drawing(60, 80, "#ffffff", (Line(10, 60, 50, "#000000", letter),), "t")
        pictures.append(Image.open(io.BytesIO(png.document(drawing))).tobytes())
    assert pictures[0] != pictures[1]


def test_every_letter_of_the_offered_languages_can_be_drawn() -> None:
    """English, Spanish, French and German can be lettered, with their quotes and currency; Chinese cannot."""
    signs = "".join(map(chr, range(33, 127)))
    letters = "áéíóúüñ¿¡àâçèêëîïôùûÿœæäößÄÖÜÉ€«»…—"
    quotes = "\u201c\u201d\u2018\u2019\u2013\u00a0"
    assert strokes.unknown(signs + letters + quotes + " ") == ""
    assert strokes.unknown("a\u4f60b\u4f60\U0001f600") == "\u4f60\U0001f600"
    assert all(strokes.glyph(character) for character in signs)


def test_strokes_end_where_the_glyph_is_as_wide() -> None:
    """No glyph is drawn wider than its width, so that letters do not touch."""
    for character in map(chr, range(33, 127)):
        found = strokes.glyph(character)
        assert found is not None
        assert all(
            -1e-9 <= x <= found[0] + 1e-9 and 0 <= y <= 11 for stroke in found[1] for x, y in stroke
        ), character


def test_the_same_words_give_the_same_image() -> None:
    """Patterns follow from the words alone: equal words equal bytes, other words other patterns."""
    first, again = (png.document(laid("email_header", "Open").drawing) for _ in range(2))
    assert first == again
    box = Box(0, 0, 400, 400)
    assert tiles("a", box, 4, 4, HARBOR.colors) == tiles("a", box, 4, 4, HARBOR.colors)
    assert tiles("a", box, 4, 4, HARBOR.colors) != tiles("b", box, 4, 4, HARBOR.colors)


@pytest.mark.parametrize("name", THEMES)
@pytest.mark.parametrize("asset_type", get_args(AssetType))
def test_words_on_images_can_be_read(asset_type: AssetType, name: str) -> None:
    """Every line has a contrast of 4.5 to the ground, and the pattern is not under it."""
    drawing = lay_out(asset_type, "Open day", "Come in", "Brand", THEMES[name], svg.text_width).drawing
    pattern = FORMATS[asset_type].pattern
    for line in (shape for shape in drawing.shapes if isinstance(shape, Line)):
        assert contrast(line.color, drawing.ground) >= 4.5
        above = line.y - line.size
        beside = line.x >= pattern.x + pattern.width or pattern.x > line.x
        assert above >= pattern.y + pattern.height or beside


def test_ornaments_are_hidden_and_pictures_are_named() -> None:
    """Inline, a drawing with a title is an image with that name; one without is hidden from readers."""
    picture = ElementTree.fromstring(
        svg.inline(illustration("x", 'Shapes "and" <so>', HARBOR.colors), "picture")
    )
    assert (picture.get("role"), picture.get("class")) == ("img", "picture")
    assert picture.findtext("title") == picture.get("aria-label") == 'Shapes "and" <so>'
    ornament = ElementTree.fromstring(svg.inline(icon("x", HARBOR.colors)))
    assert ornament.get("aria-hidden") == "true"
    assert ornament.get("role") is None
    assert ornament.find("title") is None


def test_png_chunks_carry_their_checksums(tmp_path: Path) -> None:
    """The file is signature and chunks with right lengths and checksums, ended by IEND."""
    data = png.document(icon("x", HARBOR.colors))
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    at, names = 8, []
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        body = data[at + 4 : at + 8 + length]
        assert zlib.crc32(body) == int.from_bytes(data[at + 8 + length : at + 12 + length], "big")
        names.append(body[:4])
        at += 12 + length
    assert names == [b"IHDR", b"pHYs", b"iTXt", b"IDAT", b"IEND"]
