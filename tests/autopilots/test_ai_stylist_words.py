"""The words that rules write, and the cleaning of all words."""

from __future__ import annotations

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from autopilots.ai_stylist.content import SECTION_TYPES, SectionType, sentences
from autopilots.ai_stylist.phrases import PHRASES
from autopilots.ai_stylist.safe import one_line, prose, shortened
from autopilots.ai_stylist.words import Brief, Words, card, rules

SCHOOL = "Learn a trade close to home. We train welders. Small groups: time for everybody. Classes at night."


def written(
    description: str = "", sections: tuple[SectionType, ...] = ("hero", "features"), **more: str
) -> Words:
    """Give the words by the rules for a home page."""
    return rules(
        Brief(
            kind="page",
            page_type="home",
            language=more.get("language", "en"),
            title=more.get("title", ""),
            brand=more.get("brand", ""),
            description=description,
            sections=sections,
            given={},
        )
    )


@pytest.mark.parametrize(
    ("description", "title"),
    [
        ("Welcome page for new students", "Welcome, new students"),
        ("Create a landing page for our nursing program.", "Our nursing program"),
        ("Please write a page about welding", "Welding"),
        ("the web page on safety", "Safety"),
        ("Learn to weld this spring!", "Learn to weld this spring!"),
        ("Every page for itself", "Every page for itself"),
        ("Home page", "Home page"),
        ("", "Welcome"),
        ("long " * 30, "Welcome"),
    ],
)
def test_titles_come_from_the_description(description: str, title: str) -> None:
    """An order for a page gives its subject, a sentence itself, and too much or nothing a greeting."""
    assert written(description).title == title


def test_an_order_is_known_in_english_only() -> None:
    """In another language a sentence that looks like an English order stays as it is."""
    assert written("Page for Ana", language="es").title == "Page for Ana"


def test_brand_and_title_are_used() -> None:
    """Without a description the brand is greeted for; a title given is the title."""
    assert written(brand="Northside").title == "Welcome to Northside"
    assert written(brand="Northside", language="de").title == "Willkommen bei Northside"
    assert written(SCHOOL, title="Ours").title == "Ours"


def test_each_sentence_stands_once() -> None:
    """The description is shared out: title, lead and cards hold each sentence, none twice."""
    words = written(SCHOOL)
    assert words.title == "Learn a trade close to home"
    assert words.of("hero").text == "We train welders."
    cards = words.of("features").cards
    assert [(one.heading, one.text) for one in cards] == [
        ("Small groups", "Time for everybody."),
        ("Classes at night", ""),
    ]
    assert words.summary == SCHOOL


def test_without_cards_the_lead_has_more() -> None:
    """A page without features tells up to three sentences in its lead; without a hero all become cards."""
    assert written(SCHOOL, sections=("hero",)).of("hero").text == SCHOOL.partition(". ")[2]
    assert len(written(SCHOOL, sections=("features",)).of("features").cards) == 3


@pytest.mark.parametrize(
    ("sentence", "heading", "text"),
    [
        ("Small groups: time for all.", "Small groups", "Time for all."),
        ("Evenings - keep your job.", "Evenings", "Keep your job."),
        ("Well-known teachers.", "Well-known teachers", ""),
        ("Open at 9:30 every day.", "Open at 9:30 every day", ""),
        ("x" * 61 + ": y", "", "x" * 61 + ": y"),
    ],
)
def test_cards(sentence: str, heading: str, text: str) -> None:
    """A colon or a spaced dash makes a heading, a short sentence is one, a long one is text."""
    made = card(sentence)
    assert (made.heading, made.text) == (heading, text)


@example(",")
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=300))
def test_the_rules_take_any_description(description: str) -> None:
    """Whatever the description, there is a title and a heading for every section, within their limits."""
    words = written(prose(description), sections=SECTION_TYPES)
    assert words.title
    assert [section.type for section in words.sections] == list(SECTION_TYPES)
    assert all(section.heading for section in words.sections)


def test_languages_say_the_same_things() -> None:
    """Every language has every phrase, with the same places to fill, no digit and no brand missing."""
    english = PHRASES["en"]
    for language, phrases in PHRASES.items():
        assert phrases.keys() == english.keys(), language
        for key, phrase in phrases.items():
            assert phrase
            assert not any(character.isdigit() for character in phrase)
            fields = [name for _, name, _, _ in string.Formatter().parse(phrase) if name]
            assert fields == (["brand"] if key.endswith(".brand") else [])


def test_sentences() -> None:
    """Sentences end at a mark followed by a blank, or at a line; bullets and blanks are not part of them."""
    assert sentences("One. Two!  Three?\n- Four\n\n* 3.5 kg") == ["One.", "Two!", "Three?", "Four", "3.5 kg"]
    assert sentences("  ") == []


def test_text_is_cleaned() -> None:
    """Control, reordering, invisible and non-characters go; joiners, emoji and letters stay; NFC is made."""
    assert one_line("a\x00b\u202ec\u2066d\ufeffe\ufffef\U000e0041g\x85h") == "abcdefg h"
    assert one_line("e\u0301 \t\n x") == "\u00e9 x"
    assert one_line("\U0001f469\u200d\U0001f4bb") == "\U0001f469\u200d\U0001f4bb"
    assert prose("a  b\r\n\tc ") == "a  b\nc"
    assert one_line(7) == 7
    assert prose(None) is None


def test_shortening_cuts_between_words() -> None:
    """A text over its limit is cut between words, or within one that is too long, and says so."""
    assert shortened("short", 5) == "short"
    assert shortened("one two three", 10) == "one two…"
    assert shortened("abcdefghijkl", 6) == "abcde…"
