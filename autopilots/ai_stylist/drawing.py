"""Drawings as shapes, before they become SVG or PNG, and the tile pattern that ornaments everything.

Coordinates are pixels from the top left; colours are `#rrggbb`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from autopilots.ai_stylist.theme import Colors, mix


@dataclass(frozen=True, slots=True)
class Rect:
    """A filled rectangle."""

    x: float
    y: float
    width: float
    height: float
    color: str


@dataclass(frozen=True, slots=True)
class Disc:
    """A filled circle."""

    x: float
    y: float
    radius: float
    color: str


@dataclass(frozen=True, slots=True)
class Quarter:
    """A quarter of a disc that fills a square; its centre is at `corner`: 0 top left, then clockwise."""

    x: float
    y: float
    side: float
    corner: int
    color: str

    @property
    def center(self) -> tuple[float, float]:
        """Return where the disc's centre is."""
        right, low = self.corner in (1, 2), self.corner in (2, 3)
        return self.x + right * self.side, self.y + low * self.side


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text: `y` is its baseline, `size` the height of its em."""

    x: float
    y: float
    size: float
    color: str
    text: str
    bold: bool = False


Shape = Rect | Disc | Quarter | Line


@dataclass(frozen=True, slots=True)
class Drawing:
    """Shapes in the order in which they are painted, on a ground; `title` tells what it shows."""

    width: int
    height: int
    ground: str
    shapes: tuple[Shape, ...]
    title: str
    description: str = ""
    print_size: tuple[str, str] | None = None
    """Width and height with a unit, such as `8.5in`, where the drawing is for paper."""


class Box(NamedTuple):
    """A region."""

    x: float
    y: float
    width: float
    height: float


def tiles(seed: str, box: Box, columns: int, rows: int, colors: Colors) -> tuple[Shape, ...]:
    """Return a pattern that fills `box`; the same seed gives the same one."""
    stream = iter(hashlib.shake_256(seed.encode()).digest(columns * rows * 3))
    side = box.width / columns
    palette = _palette(colors)
    shapes: list[Shape] = []
    for index in range(columns * rows):
        x, y = box.x + index % columns * side, box.y + index // columns * side
        shapes += _tile(Box(x, y, side, side), stream, palette, palette)
    return tuple(shapes)


def icon(seed: str, colors: Colors) -> Drawing:
    """Return one tile, 48 pixels wide: an ornament without a meaning."""
    stream = iter(hashlib.shake_256(seed.encode()).digest(3))
    primary, accent, pale, dark, warm, _ = _palette(colors)
    shapes = tuple(_tile(Box(0, 0, 48, 48), stream, (pale, warm), (primary, accent, dark), plain=False))
    return Drawing(48, 48, colors.surface, shapes, "")


def illustration(seed: str, title: str, colors: Colors) -> Drawing:
    """Return a square pattern, 480 pixels wide."""
    return Drawing(480, 480, colors.surface, tiles(seed, Box(0, 0, 480, 480), 4, 4, colors), title)


def _palette(colors: Colors) -> Sequence[str]:
    return (
        colors.primary,
        colors.accent,
        mix(colors.primary, colors.background, 0.78),
        mix(colors.primary, "#000000", 0.35),
        mix(colors.accent, colors.background, 0.6),
        mix(colors.primary, colors.accent, 0.5),
    )


def _tile(
    box: Box, stream: Iterator[int], grounds: Sequence[str], figures: Sequence[str], *, plain: bool = True
) -> list[Shape]:
    motif, first, second = next(stream), next(stream), next(stream)
    ground = Rect(*box, grounds[first % len(grounds)])
    others = [color for color in figures if color != ground.color] or list(figures)
    above = others[second % len(others)]
    half, corner = box.width / 2, motif // 8 % 4
    middle = (box.x + half, box.y + half)
    motifs: tuple[list[Shape], ...] = (
        [Quarter(box.x, box.y, box.width, corner, above)],
        [Quarter(box.x, box.y, box.width, corner, above)],
        [Disc(*middle, half * 0.78, above)],
        [Disc(*middle, half * 0.86, above), Disc(*middle, half * 0.42, ground.color)],
        [_half_quarter(box, corner, above), _half_quarter(box, (corner + 2) % 4, above)],
        [
            Quarter(box.x, box.y, box.width, corner, above),
            Quarter(*_shrunk(box, corner), corner, ground.color),
        ],
        [Rect(box.x + half * (corner % 2), box.y, half, box.height, above)],
        [],
    )
    return [ground, *motifs[motif % (8 if plain else 6)]]


def _half_quarter(box: Box, corner: int, color: str) -> Quarter:
    return Quarter(*_shrunk(box, corner), corner, color)


def _shrunk(box: Box, corner: int) -> tuple[float, float, float]:
    half = box.width / 2
    return box.x + half * (corner in (1, 2)), box.y + half * (corner in (2, 3)), half
