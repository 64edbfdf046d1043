"""Drawings as PNG, without an imaging library: shapes become runs of pixels, smoothed at their edges."""

from __future__ import annotations

import functools
import itertools
import math
import struct
import zlib
from collections.abc import Callable, Iterable

from autopilots.ai_stylist.drawing import Disc, Drawing, Line, Quarter, Rect, Shape
from autopilots.ai_stylist.strokes import BASELINE, EM, advance, glyph
from autopilots.ai_stylist.theme import channels

Span = tuple[float, float]
Segment = tuple[float, float, float, float, float]
"""From x, y to x, y with a pen of this radius."""

Run = tuple[int, int, float]
"""First pixel, end, and how much of each is covered, 0 to 1."""

_SAMPLES = 4
"""Lines looked at per row of pixels."""


def document(drawing: Drawing, scale: float = 1.0) -> bytes:
    """Return a drawing as a PNG file of `scale` times its size, with its title and its dots per inch."""
    width, height = round(drawing.width * scale), round(drawing.height * scale)
    canvas = _Canvas(width, height, drawing.ground)
    for shape in drawing.shapes:
        _paint(canvas, shape, scale)
    return canvas.encoded(drawing.title, dots_per_inch=96 * scale)


class _Canvas:
    """Rows of RGB pixels."""

    def __init__(self, width: int, height: int, ground: str) -> None:
        self.width, self.height = width, height
        self._rows = [bytearray(bytes(channels(ground)) * width) for _ in range(height)]

    def run(self, y: int, run: Run, color: tuple[int, int, int]) -> None:
        """Colour a run of pixels; what is outside the canvas is left out."""
        start, end, cover = max(run[0], 0), min(run[1], self.width), run[2]
        if not 0 <= y < self.height or start >= end or cover < 0.004:
            return
        row = self._rows[y]
        if cover > 0.996:
            row[start * 3 : end * 3] = bytes(color) * (end - start)
            return
        for at in range(start * 3, end * 3, 3):
            for channel in range(3):
                row[at + channel] += round((color[channel] - row[at + channel]) * cover)

    def encoded(self, title: str, *, dots_per_inch: float) -> bytes:
        """Return the canvas as a PNG file."""
        header = struct.pack(">IIBBBBB", self.width, self.height, 8, 2, 0, 0, 0)
        per_meter = round(dots_per_inch / 0.0254)
        # The first byte of a row names its filter: 2 is the difference to the row above, 0 is none.
        rows = [b"\x00" + self._rows[0]]
        rows += [
            b"\x02" + bytes(len(row)) if row == above else b"\x00" + row
            for above, row in zip(self._rows, self._rows[1:], strict=False)
        ]
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            (
                _chunk(b"IHDR", header),
                _chunk(b"pHYs", struct.pack(">IIB", per_meter, per_meter, 1)),
                _chunk(b"iTXt", b"Title\x00\x00\x00\x00\x00" + title.encode()),
                _chunk(b"IDAT", zlib.compress(b"".join(rows), 9)),
                _chunk(b"IEND", b""),
            )
        )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _paint(canvas: _Canvas, shape: Shape, scale: float) -> None:
    color = channels(shape.color)
    match shape:
        case Rect():
            left, right = shape.x * scale, (shape.x + shape.width) * scale
            top, bottom = shape.y * scale, (shape.y + shape.height) * scale
            _fill(canvas, lambda y: [(left, right)] if top <= y < bottom else [], top, bottom, color)
        case Disc():
            radius = shape.radius * scale
            x, y = shape.x * scale, shape.y * scale
            _fill(canvas, lambda line: _chord(x, y, radius, line), y - radius, y + radius, color)
        case Quarter():
            _paint_quarter(canvas, shape, scale, color)
        case Line():
            _paint_line(canvas, shape, scale, color)


def _paint_quarter(canvas: _Canvas, shape: Quarter, scale: float, color: tuple[int, int, int]) -> None:
    x, y = (at * scale for at in shape.center)
    left, top, side = shape.x * scale, shape.y * scale, shape.side * scale

    def spans(line: float) -> list[Span]:
        if not top <= line < top + side:
            return []
        return [(max(a, left), min(b, left + side)) for a, b in _chord(x, y, side, line)]

    _fill(canvas, spans, top, top + side, color)


def _chord(x: float, y: float, radius: float, line: float) -> list[Span]:
    square = radius * radius - (line - y) ** 2
    return [(x - math.sqrt(square), x + math.sqrt(square))] if square > 0 else []


def _fill(
    canvas: _Canvas,
    spans: Callable[[float], list[Span]],
    top: float,
    bottom: float,
    color: tuple[int, int, int],
) -> None:
    for y in range(max(math.floor(top), 0), min(math.ceil(bottom), canvas.height)):
        for run in _covered(spans, y):
            canvas.run(y, run, color)


def _covered(spans: Callable[[float], list[Span]], y: int) -> list[Run]:
    """Return the runs of a row of pixels that spans cover, by how much."""
    # Each span adds to the cover where it starts and takes it back where it ends.
    steps: dict[int, float] = {}
    for sample in range(_SAMPLES):
        for start, end in spans(y + (sample + 0.5) / _SAMPLES):
            _step(steps, start, 1 / _SAMPLES)
            _step(steps, end, -1 / _SAMPLES)
    runs: list[Run] = []
    cover, places = 0.0, sorted(steps)
    for place, following in itertools.pairwise(places):
        cover += steps[place]
        runs.append((place, following, cover))
    return runs


def _step(steps: dict[int, float], x: float, amount: float) -> None:
    """Let cover change at `x`: by part in the pixel that `x` is in, in whole from the next."""
    pixel = math.floor(x)
    part = amount * (pixel + 1 - x)
    steps[pixel] = steps.get(pixel, 0.0) + part
    steps[pixel + 1] = steps.get(pixel + 1, 0.0) + amount - part


def _paint_line(canvas: _Canvas, line: Line, scale: float, color: tuple[int, int, int]) -> None:
    unit = line.size * scale / EM
    x, top = line.x * scale, line.y * scale - BASELINE * unit
    for character in line.text:
        left = round(x)
        for y, runs in _lettered(character, unit, 1.65 if line.bold else 1.05):
            for start, end, cover in runs:
                canvas.run(round(top) + y, (start + left, end + left, cover), color)
        x += advance(character, bold=line.bold) * unit


@functools.lru_cache(maxsize=256)
def _lettered(character: str, unit: float, pen: float) -> tuple[tuple[int, list[Run]], ...]:
    """Return the rows of a character, from its own top left; `unit` is in pixels, `pen` in units."""
    found = glyph(character)
    if found is None:
        return ()
    half = pen * unit / 2
    # The pen's half width keeps the first stem inside the advance. A dot is a little wider than a stem.
    segments = [
        (ax * unit + half, ay * unit, bx * unit + half, by * unit, half if stroke[1:] else half * 1.3)
        for stroke in found[1]
        for (ax, ay), (bx, by) in zip(stroke, stroke[1:] or stroke, strict=False)
    ]

    def spans(y: float) -> list[Span]:
        return _merged(span for one in segments if (span := _penned(one, y)))

    tops = [min(ay, by) - radius for _, ay, _, by, radius in segments]
    bottoms = [max(ay, by) + radius for _, ay, _, by, radius in segments]
    rows = range(math.floor(min(tops, default=0)), math.ceil(max(bottoms, default=0)))
    return tuple((y, _covered(spans, y)) for y in rows)


def _penned(segment: Segment, y: float) -> Span | None:
    """Return where a line meets a segment drawn with a round pen; the shape is convex, so it is one span."""
    ax, ay, bx, by, radius = segment
    if y <= min(ay, by) - radius or y >= max(ay, by) + radius:
        return None
    ends = [x for cx, cy in ((ax, ay), (bx, by)) for span in _chord(cx, cy, radius, y) for x in span]
    length = math.hypot(bx - ax, by - ay)
    if length:
        nx, ny = (ay - by) / length * radius, (bx - ax) / length * radius
        outline = ((ax + nx, ay + ny), (bx + nx, by + ny), (bx - nx, by - ny), (ax - nx, ay - ny))
        for (px, py), (qx, qy) in zip(outline, outline[1:] + outline[:1], strict=True):
            if (py <= y) != (qy <= y):
                ends.append(px + (qx - px) * (y - py) / (qy - py))
    return (min(ends), max(ends)) if ends else None


def _merged(spans: Iterable[Span]) -> list[Span]:
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged
