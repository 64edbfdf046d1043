"""Lays out marketing images: a pattern, a headline, a text and a name, each where it can be read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from autopilots.ai_stylist.content import AssetType
from autopilots.ai_stylist.drawing import Box, Disc, Drawing, Line, Shape, tiles
from autopilots.ai_stylist.theme import Theme


class Measure(Protocol):
    """Tells how wide a line is in the face that it is going to be drawn in."""

    def __call__(self, text: str, size: float, *, bold: bool) -> float:
        """Return pixels."""
        ...


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of image: its size, where its pattern and its words are, and how large the words may be."""

    width: int
    height: int
    pattern: Box
    columns: int
    rows: int
    words: Box
    headline: float
    text: float
    print_inches: tuple[float, float] | None = None

    def dimensions(self) -> dict[str, float | str]:
        """Return width and height as results state them: pixels, or inches for paper."""
        width, height = self.print_inches or (self.width, self.height)
        return {"width": width, "height": height, "unit": "in" if self.print_inches else "px"}


FORMATS: dict[AssetType, Format] = {
    "social_post": Format(1080, 1080, Box(0, 0, 1080, 360), 6, 2, Box(80, 440, 920, 560), 92, 40),
    "story": Format(1080, 1920, Box(0, 0, 1080, 720), 6, 4, Box(90, 840, 900, 900), 110, 48),
    "flyer": Format(816, 1056, Box(0, 0, 816, 408), 6, 3, Box(64, 472, 688, 520), 66, 26, (8.5, 11.0)),
    "banner": Format(1200, 400, Box(800, 0, 400, 400), 4, 4, Box(64, 52, 680, 296), 58, 26),
    "email_header": Format(600, 200, Box(400, 0, 200, 200), 2, 2, Box(32, 26, 340, 150), 32, 15),
}
"""A flyer is laid out at 96 pixels per inch."""

_SMALLEST = 0.5
"""How far words shrink before the rest of them is cut."""


@dataclass(frozen=True, slots=True)
class Laid:
    """A drawing, and which of its words did not fit and were cut."""

    drawing: Drawing
    cut: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Fit:
    scale: float
    headline: list[str]
    text: list[str]
    cut: tuple[str, ...]


def lay_out(
    asset_type: AssetType, headline: str, text: str, brand: str, theme: Theme, measure: Measure
) -> Laid:
    """Return the drawing of an image; `measure` belongs to the face of the file it is made for."""
    form = FORMATS[asset_type]
    colors = theme.colors
    printed = form.print_inches is not None
    ground, ink = (colors.background, colors.text) if printed else (colors.primary, colors.on_primary)
    fit = _fit(form, headline, text, brand, measure)
    shapes: list[Shape] = list(
        tiles(f"{asset_type} {headline} {brand}", form.pattern, form.columns, form.rows, colors)
    )
    shapes += _words(form, fit, ink)
    cut = fit.cut
    if brand:
        signature, lost = _signature(form, brand, ink, colors.accent, measure)
        shapes += signature
        cut += lost
    title = " ".join(part for part in (headline, brand) if part)
    inches = form.print_inches
    paper = (f"{inches[0]:g}in", f"{inches[1]:g}in") if inches else None
    return Laid(Drawing(form.width, form.height, ground, tuple(shapes), title, text, paper), cut)


def _fit(form: Format, headline: str, text: str, brand: str, measure: Measure) -> _Fit:
    room = form.words.height - (form.text * 2 if brand else 0)
    width = form.words.width
    for percent in range(100, round(_SMALLEST * 100) - 1, -5):
        scale = percent / 100
        head = balanced(headline, width, _of(measure, form.headline * scale, bold=True))
        body = wrapped(text, width, _of(measure, form.text * scale, bold=False))
        if _height(form, scale, len(head), len(body)) <= room:
            return _Fit(scale, head, body, ())
    return _cut(form, head, body, room, measure)


def _cut(form: Format, head: list[str], body: list[str], room: float, measure: Measure) -> _Fit:
    """Return as many lines as there is room for at the smallest size, the headline's first."""
    cut: list[str] = []
    lines, texts = len(head), len(body)
    while texts and _height(form, _SMALLEST, lines, texts) > room:
        texts -= 1
    while lines > 1 and _height(form, _SMALLEST, lines, texts) > room:
        lines -= 1
    if lines < len(head):
        cut.append("headline")
        fits = _of(measure, form.headline * _SMALLEST, bold=True)
        head = [*head[: lines - 1], _ending(head[lines - 1], form.words.width, fits)]
    if texts < len(body):
        cut.append("text")
        fits = _of(measure, form.text * _SMALLEST, bold=False)
        body = [*body[: texts - 1], _ending(body[texts - 1], form.words.width, fits)] if texts else []
    return _Fit(_SMALLEST, head, body, tuple(cut))


def _ending(line: str, width: float, measure: Callable[[str], float]) -> str:
    while line and measure(f"{line}…") > width:
        line = line[:-1]
    return line.rstrip(" ,;:.-") + "…"


def _height(form: Format, scale: float, head: int, body: int) -> float:
    gap = form.text if body else 0.0
    return (form.headline * 1.14 * head + form.text * 1.42 * body + gap) * scale


def _words(form: Format, fit: _Fit, ink: str) -> list[Shape]:
    size, small = form.headline * fit.scale, form.text * fit.scale
    y = form.words.y + size * 0.8
    lines: list[Shape] = []
    for line in fit.headline:
        lines.append(Line(form.words.x, round(y, 1), size, ink, line, bold=True))
        y += size * 1.14
    y += small - size * 0.8 + small * 0.8
    for line in fit.text:
        lines.append(Line(form.words.x, round(y, 1), small, ink, line))
        y += small * 1.42
    return lines


def _signature(
    form: Format, brand: str, ink: str, accent: str, measure: Measure
) -> tuple[list[Shape], tuple[str, ...]]:
    """Return the name with a dot before it, and what of it was cut."""
    size = form.text * 0.9
    width = form.words.width - size * 1.4
    while measure(brand, size, bold=True) > width and size > form.text * 0.45:
        size *= 0.95
    cut = measure(brand, size, bold=True) > width
    name = _ending(brand, width, _of(measure, size, bold=True)) if cut else brand
    y = form.words.y + form.words.height
    radius = size * 0.36
    dot = Disc(form.words.x + radius, y - radius, radius, accent)
    line = Line(form.words.x + size * 1.2, y, size, ink, name, bold=True)
    return [dot, line], ("brand",) if cut else ()


def wrapped(text: str, width: float, measure: Callable[[str], float]) -> list[str]:
    """Return a text in lines of at most `width`; a word wider than that is broken between letters."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        longer = f"{line} {word}" if line else word
        if measure(longer) <= width:
            line = longer
            continue
        if line:
            lines.append(line)
        *full, line = _pieces(word, width, measure)
        lines += full
    return [*lines, line] if line else lines


def balanced(text: str, width: float, measure: Callable[[str], float]) -> list[str]:
    """Return a text in as few lines as `wrapped` makes, but of about the same length."""
    lines = wrapped(text, width, measure)
    for percent in range(95, 45, -5):
        narrower = wrapped(text, width * percent / 100, measure)
        if len(narrower) > len(lines):
            break
        lines = narrower
    return lines


def _pieces(word: str, width: float, measure: Callable[[str], float]) -> list[str]:
    pieces = [""]
    for letter in word:
        if pieces[-1] and measure(pieces[-1] + letter) > width:
            pieces.append("")
        pieces[-1] += letter
    return pieces


def _of(measure: Measure, size: float, *, bold: bool) -> Callable[[str], float]:
    return lambda text: measure(text, size, bold=bold)
