"""A small typeface of our own, drawn with one pen: what PNG images are lettered with.

A glyph is its width and its strokes. A stroke is points `xy` in base 36: `y` is 0 at the top of capitals, 3
at the top of small letters, 8 on the line and b (11) below it. `~` rounds the corners of a stroke, `@` rounds
and closes it; a stroke of one point is a dot. Letters with an accent are put together.
"""

from __future__ import annotations

import functools
import re
import unicodedata

Point = tuple[float, float]
Stroke = tuple[Point, ...]

EM = 11.0
"""Units in an em; a capital has 8."""

BASELINE = 8.0
_GAP = 2.0

# Two or more blanks stand between glyphs.
_TABLE = r"""
A 6 083068 1555       B 5 0008 ~002040442404 ~042454582808     C 5 ~525000085856   D 5 0008 ~002050582808
E 4 40000848 0434     F 4 400008 0434       G 5 ~525000085854 5434                 H 5 0008 5058 0454
I 0 0008              J 4 ~4044480806       K 5 0008 5005 2358  L 4 000848         M 6 0800356068
N 5 08005850          O 6 @00606808         P 5 0008 ~002050542404                 Q 6 @00606808 4669
R 5 0008 ~002050542404 2458                 S 5 ~5250000454580806                  T 6 0060 3038
U 5 ~000408585450     V 6 003860            W 8 0028416880      X 5 0058 5008      Y 6 003460 3438
Z 5 00500858          a 5 @03535808 5358    b 5 0008 @03535808  c 4 ~444303084847  d 5 @03535808 5058
e 5 0555 ~555303085857                      f 3 ~30101318 0333  g 5 @03535808 ~53575b0b0a
h 4 0008 ~0503434648  i 0 0308 01           j 1 ~13171b0b 11    k 4 0008 4306 1548  l 1 ~00050818
m 8 0308 ~0503434648 ~4543838688            n 4 0308 ~0503434648                   o 5 @03535808
p 5 030b @03535808    q 5 @03535808 535b    r 3 0308 ~050333    s 4 ~4443030546480807
t 3 ~10141838 0333    u 4 ~030508484543 4348                    v 4 032843         w 6 0318345863
x 4 0348 4308         y 4 0328 431b         z 4 03430848        0 5 @00505808      1 2 022028
2 5 ~0200505408 0858  3 5 ~0200505424 ~2454580806               4 5 40055545 4048  5 5 500003 ~0353580806
6 5 @03535808 ~400005  7 5 005018            8 5 @00505404 @04545808                9 5 @00505505 ~535818
. 0 08                , 1 1809              ! 0 0005 08         ? 4 ~020040442426 28
' 0 0002              " 2 0002 2022         : 0 04 08           ; 1 14 1809        - 3 0535
_ 5 0959              ( 2 ~2002082a         ) 2 ~0022280a       [ 2 20000a2a       ] 2 00202a0a
/ 4 4008              \ 4 0048              | 0 000a            + 4 2327 0545      = 4 0444 0646
* 4 2125 0244 4204    < 4 420548            > 4 024508          # 5 2018 4038 0353 0555
$ 4 ~4241010444470706 2029                  % 6 6008 @00202202 @46666848           & 6 ~68341040430508485865
@ 8 @33636636 ~63668680000868               ^ 4 022042          ~ 5 ~06142644      ` 1 0012
{ 2 ~20121406 ~06181a2a                     } 2 ~00121426 ~26181a0a
€ 6 ~61201868 0343 0545                     £ 5 ~5250101408 0858 0434              · 0 05
• 0 05                … 6 08 38 68          — 7 0575                             ¿ 4 ~464808042422 20
¡ 0 0308 00           ß 5 0308 ~03004024 ~24545828              Ø 6 @00606808 5117  ø 5 @03535808 5308
ł 2 1018 0622          Ł 5 101858 0633
« 4 230527 432547     » 4 032507 234527     ° 2 @00202202
"""

_ALIKE = {
    "\u2018": "'", "\u2019": "'", "\u201a": ",", "\u201c": '"', "\u201d": '"', "\u201e": '"',
    "\u2010": "-", "\u2011": "-", "\u2012": "-", "\u2212": "-", "\u2013": "-",
    "\u0131": "i", "\u00d7": "x",
    "\u00c6": "AE", "\u00e6": "ae", "\u0152": "OE", "\u0153": "oe", "\u00ad": "",
    "\u200c": "", "\u200d": "", "\u200e": "", "\u200f": "",
}  # fmt: skip
"""Characters that are lettered as others."""

_ABOVE = {
    "\u0300": ("-1,-0.5 0.8,1",),
    "\u0301": ("1,-0.5 -0.8,1",),
    "\u0302": ("-1.4,1 0,-0.4 1.4,1",),
    "\u0303": ("~-1.8,1 -0.9,-0.4 0.9,1.2 1.8,-0.2",),
    "\u0304": ("-1.5,0.5 1.5,0.5",),
    "\u0306": ("~-1.4,-0.4 -1.2,1.2 1.2,1.2 1.4,-0.4",),
    "\u0307": ("0,0.5",),
    "\u0308": ("-1.2,0.5", "1.2,0.5"),
    "\u030a": ("@-1,-1 1,-1 1,1 -1,1",),
    "\u030b": ("0,-0.5 -1,1", "1.8,-0.5 0.8,1"),
    "\u030c": ("-1.4,-0.4 0,1 1.4,-0.4",),
}
_BELOW = {"\u0327": ("~0,8 1.2,9.6 0,10.8 -1,10.4",), "\u0328": ("~1,8 -0.4,9.6 0.4,10.8 1.4,10.4",)}


def unknown(text: str) -> str:
    """Return the characters of a text that have no glyph, each once."""
    return "".join(dict.fromkeys(c for c in text if not c.isspace() and glyph(c) is None))


def text_width(text: str, size: float, *, bold: bool) -> float:
    """Return how wide a line is, in pixels; `size` is the height of its em."""
    return sum(advance(character, bold=bold) for character in text) * size / EM


def advance(character: str, *, bold: bool) -> float:
    """Return the width of a character with the gap after it, in units."""
    if character.isspace():
        return 3.8
    found = glyph(character)
    return 0 if found is None or not found[1] else found[0] + _GAP + 0.5 * bold


@functools.cache
def glyph(character: str) -> tuple[float, tuple[Stroke, ...]] | None:
    """Return the width and the strokes of a character in units, or None where there is none."""
    alike = _ALIKE.get(character)
    if alike is not None:
        return _row(alike)
    if character in _glyphs():
        return _glyphs()[character]
    letter, *accents = list(unicodedata.normalize("NFD", character))
    found = _glyphs().get(letter)
    if found is None or not accents or any(a not in _ABOVE and a not in _BELOW for a in accents):
        return None
    width, strokes = found
    if letter in "ij" and any(accent in _ABOVE for accent in accents):
        strokes = strokes[:1]
    top = -2.0 if letter.isupper() or letter in "bdfhklt" else 0.7
    for accent in accents:
        strokes += _accent(accent, width / 2, top)
    return width, strokes


def _row(text: str) -> tuple[float, tuple[Stroke, ...]]:
    width = 0.0
    strokes: tuple[Stroke, ...] = ()
    for character in text:
        part = _glyphs()[character]
        start = width + _GAP if width else 0.0
        strokes += tuple(tuple((x + start, y) for x, y in stroke) for stroke in part[1])
        width = start + part[0]
    return width, strokes


def _accent(accent: str, middle: float, top: float) -> tuple[Stroke, ...]:
    shift = top if accent in _ABOVE else 0.0
    strokes = []
    for text in _ABOVE.get(accent) or _BELOW[accent]:
        kind = text[0] if text[0] in "~@" else ""
        pairs = [pair.split(",") for pair in text.lstrip("~@").split()]
        strokes.append(_bent(kind, [(float(x) + middle, float(y) + shift) for x, y in pairs]))
    return tuple(strokes)


@functools.cache
def _glyphs() -> dict[str, tuple[float, tuple[Stroke, ...]]]:
    found = {}
    for entry in re.split(r"\s{2,}|\n", _TABLE.strip()):
        character, width, *strokes = entry.split(" ")
        found[character] = (float(width), tuple(_stroke(stroke) for stroke in strokes))
    return found


def _stroke(text: str) -> Stroke:
    kind = text[0] if text[0] in "~@" else ""
    digits = [float(int(digit, 36)) for digit in text.lstrip("~@")]
    return _bent(kind, list(zip(digits[::2], digits[1::2], strict=True)))


def _bent(kind: str, points: list[Point]) -> Stroke:
    """Return the points of a stroke; a rounded one runs through the middles between its corners."""
    if not kind:
        return tuple(points)
    corners, ends = (points, None) if kind == "@" else (points[1:-1], (points[0], points[-1]))
    middles = [_middle(a, b) for a, b in zip(corners, corners[1:] + corners[:1], strict=True)]
    stops = [middles[-1], *middles] if ends is None else [ends[0], *middles[:-1], ends[1]]
    curve: list[Point] = [stops[0]]
    for corner, start, stop in zip(corners, stops[:-1], stops[1:], strict=True):
        curve += [_quadratic(start, corner, stop, step / 6) for step in range(1, 7)]
    return tuple(curve)


def _middle(a: Point, b: Point) -> Point:
    return (a[0] + b[0]) / 2, (a[1] + b[1]) / 2


def _quadratic(start: Point, corner: Point, stop: Point, at: float) -> Point:
    one, two, three = (1 - at) ** 2, 2 * at * (1 - at), at * at
    return (
        one * start[0] + two * corner[0] + three * stop[0],
        one * start[1] + two * corner[1] + three * stop[1],
    )
