"""Builds HTML and SVG out of elements, so that no text gets in unescaped."""

from __future__ import annotations

import html


class Html(str):
    """Markup that is escaped already. Formatting it gives a plain `str`, which is escaped again."""

    __slots__ = ()


Child = str | None
Attribute = str | int | float | bool | None

_VOID = frozenset({"br", "hr", "img", "input", "link", "meta"})


def escape(text: Child) -> Html:
    """Return text as markup: `Html` as it is, None as nothing, all else escaped for elements and quotes."""
    if text is None:
        return Html()
    return text if isinstance(text, Html) else Html(html.escape(text))


def join(*children: Child) -> Html:
    """Return the children one after another."""
    return Html("".join(escape(child) for child in children))


def el(tag: str, *children: Child, **attributes: Attribute) -> Html:
    """Return one element.

    Attribute names lose a trailing `_` (`class_`) and write `_` as `-` (`aria_label`). None and False leave
    an attribute out, True writes its name alone.
    """
    start = f"<{tag}{''.join(_attribute(name, value) for name, value in attributes.items())}>"
    return Html(start if tag in _VOID else f"{start}{join(*children)}</{tag}>")


def _attribute(name: str, value: Attribute) -> str:
    written = name.rstrip("_").replace("_", "-")
    if value is None or value is False:
        return ""
    if value is True:
        return f" {written}"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return f' {written}="{html.escape(text)}"'
