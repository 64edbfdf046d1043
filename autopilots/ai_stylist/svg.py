"""Drawings as SVG: valid XML, escaped, with a title for those who do not see it."""

from __future__ import annotations

import base64

from autopilots.ai_stylist.drawing import Disc, Drawing, Line, Quarter, Rect, Shape
from autopilots.ai_stylist.markup import Html, el, join
from autopilots.ai_stylist.theme import SANS

_NARROW = frozenset("ijlIftr.,:;'|!()[]\u2019 ")
_WIDE = frozenset("mwMW@%\u2014\u2026")


def inline(drawing: Drawing, class_: str = "") -> Html:
    """Return a drawing as an element of a page; one without a title is an ornament, hidden from readers."""
    return _svg(drawing, class_=class_ or None, namespace=None)


def document(drawing: Drawing) -> bytes:
    """Return a drawing as an SVG file in UTF-8."""
    svg = _svg(drawing, class_=None, namespace="http://www.w3.org/2000/svg")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{svg}\n'.encode()


def data_uri(data: bytes, content_type: str) -> str:
    """Return bytes as a `data:` URI."""
    return f"data:{content_type};base64,{base64.b64encode(data).decode()}"


def text_width(text: str, size: float, *, bold: bool) -> float:
    """Return about how wide a line may get, in pixels, in the widest of the usual faces."""
    ems = sum(_em(character) for character in text)
    return ems * size * (1.08 if bold else 1.0)


def _em(character: str) -> float:
    if character in _NARROW:
        return 0.37
    if character in _WIDE:
        return 0.95
    if ord(character) >= 0x1100:
        return 1.05
    return 0.74 if character.isupper() else 0.62


def _svg(drawing: Drawing, *, class_: str | None, namespace: str | None) -> Html:
    told = bool(drawing.title)
    width, height = drawing.print_size or (str(drawing.width), str(drawing.height))
    return el(
        "svg",
        el("title", drawing.title) if told else None,
        el("desc", drawing.description) if drawing.description else None,
        el("rect", width=drawing.width, height=drawing.height, fill=drawing.ground),
        join(*(_shape(shape) for shape in drawing.shapes)),
        xmlns=namespace,
        class_=class_,
        width=width,
        height=height,
        viewBox=f"0 0 {drawing.width} {drawing.height}",
        role="img" if told else None,
        aria_label=drawing.title if told else None,
        aria_hidden=None if told else "true",
        focusable="false",
    )


def _shape(shape: Shape) -> Html:
    match shape:
        case Rect():
            return el(
                "rect",
                x=shape.x,
                y=shape.y,
                width=shape.width,
                height=shape.height,
                fill=shape.color,
                # Tiles touch; smoothed edges would show the ground between them.
                shape_rendering="crispEdges",
            )
        case Disc():
            return el("circle", cx=shape.x, cy=shape.y, r=shape.radius, fill=shape.color)
        case Quarter():
            return el("path", d=_sector(shape), fill=shape.color)
        case Line():
            return el(
                "text",
                shape.text,
                x=shape.x,
                y=shape.y,
                fill=shape.color,
                font_family=SANS,
                font_size=shape.size,
                font_weight=700 if shape.bold else None,
            )


def _sector(quarter: Quarter) -> str:
    x, y = quarter.center
    across = -quarter.side if x > quarter.x else quarter.side
    down = -quarter.side if y > quarter.y else quarter.side
    sweep = int(across * down > 0)
    arc = f"{quarter.side:g} {quarter.side:g} 0 0 {sweep} {x:g} {y + down:g}"
    return f"M{x:g} {y:g}H{x + across:g}A{arc}Z"
