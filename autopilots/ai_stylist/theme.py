"""Colours: the named themes, a caller's own ones, and the contrast that both must have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from autopilots.kit import Meta

AA = 4.5
"""Contrast that WCAG 2.2 level AA asks of text."""

ThemeName = Literal["harbor", "meadow", "ember", "midnight"]
Hex = Annotated[str, Field(pattern=r"^#(?:[0-9a-fA-F]{3}|[0-9a-fA-F]{6})$")]

SANS = "'Avenir Next', Avenir, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
SERIF = "'Iowan Old Style', 'Palatino Linotype', Palatino, 'Book Antiqua', Georgia, serif"


@dataclass(frozen=True, slots=True)
class Colors:
    """A palette of `#rrggbb`. After `readable`, text reaches `AA` on what it stands on."""

    background: str
    surface: str
    text: str
    muted: str
    primary: str
    on_primary: str
    accent: str

    @property
    def link(self) -> str:
        """Return the primary colour, moved towards the text colour until it can be read on both grounds."""
        return _towards(self.primary, self.text, (self.background, self.surface))

    def named(self) -> dict[str, str]:
        """Return the palette under the names that JSON has."""
        return {_spelling(field.name): getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, slots=True)
class Theme:
    """A palette with the face of its headings, and what was changed in a caller's colours."""

    name: str
    colors: Colors
    headings: str
    adjusted: tuple[tuple[str, str, str], ...] = ()
    """(colour name, as given, as used) of each colour that could not be read."""

    @property
    def dark(self) -> bool:
        """Say whether the ground is darker than the text."""
        return luminance(self.colors.background) < luminance(self.colors.text)

    def document(self) -> dict[str, Any]:
        """Return the theme as results show it."""
        changes = [{"color": name, "given": given, "used": used} for name, given, used in self.adjusted]
        return {"name": self.name, "colors": self.colors.named(), "adjusted": changes}


class OwnColors(Meta):
    """A caller's colours; each one left out is the named theme's."""

    background: Hex | None = Field(None, description="Ground of the page")
    surface: Hex | None = Field(None, description="Ground of cards and bands")
    text: Hex | None = Field(None, description="Text; moved to black or white where it cannot be read")
    muted: Hex | None = Field(None, description="Less important text")
    primary: Hex | None = Field(None, description="Buttons, bands and links")
    on_primary: Hex | None = Field(None, alias="onPrimary", description="Text on the primary colour")
    accent: Hex | None = Field(None, description="Ornament only; no text has it")


class OwnTheme(Meta):
    """A named theme with some colours of one's own."""

    name: ThemeName = Field("harbor", description="The named theme to start from")
    colors: OwnColors = Field(
        default_factory=lambda: OwnColors.model_validate({}),
        description="Colours as #rgb or #rrggbb. One that cannot be read (WCAG AA) is adjusted, and reported",
    )


THEMES: dict[str, Theme] = {
    theme.name: theme
    for theme in (
        Theme(
            "harbor",
            Colors("#ffffff", "#eff5f7", "#10222f", "#48606f", "#0b5c74", "#ffffff", "#f2a541"),
            SANS,
        ),
        Theme(
            "meadow",
            Colors("#fdfcf7", "#eef2e4", "#1d2a1b", "#51604c", "#2f6b3c", "#ffffff", "#e3c04f"),
            SERIF,
        ),
        Theme(
            "ember",
            Colors("#fffaf5", "#f9ebdf", "#2d1a14", "#6d5147", "#a63a1e", "#ffffff", "#f0a868"),
            SERIF,
        ),
        Theme(
            "midnight",
            Colors("#0f1524", "#1a2338", "#eef2fb", "#aab6d0", "#8ab4ff", "#0b1222", "#f6c177"),
            SANS,
        ),
    )
}


def theme_of(wanted: str | OwnTheme) -> Theme:
    """Return a named theme, or one made of a caller's colours and readable in every pair."""
    if isinstance(wanted, str):
        return THEMES[wanted]
    start = THEMES[wanted.name]
    given = {name: _long(value) for name, value in wanted.colors.model_dump(exclude_none=True).items()}
    if not given:
        return start
    colors = readable(replace(start.colors, **given))
    adjusted = tuple(
        (_spelling(name), value, getattr(colors, name))
        for name, value in given.items()
        if value != getattr(colors, name)
    )
    return Theme("custom", colors, start.headings, adjusted)


def readable(colors: Colors) -> Colors:
    """Return the palette with text colours changed as little as it takes to reach `AA` on their grounds.

    The ground and the primary colour stay. Text moves to black or white, the surface towards the ground where
    the text cannot be read on it, and muted text towards the text. Each of these ends in a pair that passes.
    """
    text = _towards(colors.text, _pole(colors.background), (colors.background,))
    surface = next(
        shade for shade in _blends(colors.surface, colors.background) if contrast(text, shade) >= AA
    )
    return replace(
        colors,
        text=text,
        surface=surface,
        muted=_towards(colors.muted, text, (colors.background, surface)),
        on_primary=_towards(colors.on_primary, _pole(colors.primary), (colors.primary,)),
    )


def contrast(one: str, other: str) -> float:
    """Return the WCAG contrast ratio of two colours, 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def luminance(color: str) -> float:
    """Return the WCAG relative luminance of `#rrggbb`, 0 to 1."""
    red, green, blue = (_linear(channel / 255) for channel in channels(color))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def channels(color: str) -> tuple[int, int, int]:
    """Return red, green and blue of `#rrggbb`, 0 to 255 each."""
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def mix(one: str, other: str, share: float) -> str:
    """Return `one` with that share (0 to 1) of `other` in it."""
    pairs = zip(channels(one), channels(other), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)


def _towards(color: str, end: str, grounds: tuple[str, ...]) -> str:
    shades = _blends(color, end)
    return next((s for s in shades if all(contrast(s, ground) >= AA for ground in grounds)), end)


def _blends(color: str, end: str) -> Iterator[str]:
    return (mix(color, end, step / 20) for step in range(21))


def _pole(ground: str) -> str:
    # One of the two always has a contrast of at least 4.58.
    return max(("#000000", "#ffffff"), key=lambda pole: contrast(pole, ground))


def _linear(channel: float) -> float:
    return channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4


def _long(color: str) -> str:
    color = color.lower()
    return color if len(color) == 7 else "#" + "".join(2 * digit for digit in color[1:])


def _spelling(name: str) -> str:
    return "onPrimary" if name == "on_primary" else name
