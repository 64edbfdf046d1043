"""Colours: every text can be read, in our themes and in any that a caller asks for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopilots.ai_stylist.theme import AA, THEMES, Colors, OwnTheme, contrast, luminance, mix, theme_of

HEX = st.integers(0, 0xFFFFFF).map(lambda number: f"#{number:06x}")
NAMES = ("background", "surface", "text", "muted", "primary", "onPrimary", "accent")


def pairs(colors: Colors) -> list[tuple[str, str]]:
    """Give each text colour with the ground that the stylesheet puts it on."""
    grounds = (colors.background, colors.surface)
    return [
        *((ink, ground) for ink in (colors.text, colors.muted, colors.link) for ground in grounds),
        (colors.on_primary, colors.primary),
    ]


def test_contrast_is_the_formula_of_wcag() -> None:
    """The ratio is 21 for black on white, 1 for equals, and as published for known pairs."""
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#123456", "#123456") == 1
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)
    assert contrast("#ffffff", "#767676") == pytest.approx(4.54, abs=0.005)
    assert luminance("#ff0000") == pytest.approx(0.2126)


@pytest.mark.parametrize("name", THEMES)
def test_named_themes_can_be_read(name: str) -> None:
    """Every text colour of every theme reaches 4.5 on each of its grounds."""
    for ink, ground in pairs(THEMES[name].colors):
        assert contrast(ink, ground) >= AA, (ink, ground)


@given(
    name=st.sampled_from(sorted(THEMES)),
    colors=st.dictionaries(st.sampled_from(NAMES), HEX, max_size=len(NAMES)),
)
def test_any_colours_are_made_readable(name: str, colors: dict[str, str]) -> None:
    """Whatever colours a caller gives, every pair passes, ground and primary stay, and changes are told."""
    theme = theme_of(OwnTheme.model_validate({"name": name, "colors": colors}))
    for ink, ground in pairs(theme.colors):
        assert contrast(ink, ground) >= AA, (ink, ground)
    used = theme.colors.named()
    for kept in ("background", "primary", "accent"):
        assert used[kept] == colors.get(kept, used[kept])
    assert {(c, g) for c, g, _ in theme.adjusted} == {(c, g) for c, g in colors.items() if used[c] != g}


def test_colours_that_pass_are_not_touched() -> None:
    """A readable palette comes back as it was given, short forms written out."""
    colors = {"background": "#FFF", "text": "#000", "primary": "#036", "onPrimary": "#fff"}
    theme = theme_of(OwnTheme.model_validate({"colors": colors}))
    assert theme.adjusted == ()
    assert theme.colors.named()["primary"] == "#003366"
    assert theme.colors.background == "#ffffff"


def test_no_own_colours_is_the_named_theme() -> None:
    """An object that only names a theme is that theme."""
    assert theme_of(OwnTheme.model_validate({"name": "ember"})) is THEMES["ember"]


def test_mix_goes_from_one_colour_to_the_other() -> None:
    """A share of 0 is the first colour, of 1 the second, of a half the middle."""
    assert [mix("#000000", "#ff8000", share) for share in (0, 0.5, 1)] == ["#000000", "#804000", "#ff8000"]
