"""What a caller may say: the content of each section type, and the meta of the three capabilities."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, TypeAdapter, ValidationInfo, ValidatorFunctionWrapHandler, field_validator

from autopilots.ai_stylist.phrases import PHRASES
from autopilots.ai_stylist.safe import FormAction, Link, Mail, Passage, Phone, Prose, Words
from autopilots.ai_stylist.theme import THEMES, OwnTheme, ThemeName
from autopilots.kit import Meta

PageType = Literal["home", "about", "programs", "contact", "enroll", "success"]
SectionType = Literal["hero", "features", "testimonials", "cta", "pricing", "faq", "contact", "team", "stats"]
AssetType = Literal["social_post", "story", "flyer", "banner", "email_header"]
Given = Annotated[Words, Field(min_length=1)]
GivenPassage = Annotated[Passage, Field(min_length=1)]
_TEXT: TypeAdapter[str] = TypeAdapter(Prose)


class Button(Meta):
    """A link that looks like a button."""

    label: Given = Field(description="What the button says")
    href: Annotated[Link, Field(min_length=1)] = Field(description="https, mailto, tel or relative link")


class Content(Meta):
    """What every section has."""

    heading: Words = Field("", description="Heading; one is written when it is empty")
    text: Passage = Field("", description="Text under the heading; one is written when it is empty")


class HeroContent(Content):
    """The top of a page."""

    eyebrow: Words = Field("", description="Short line above the heading")
    button: Button | None = Field(None, description="Main link")


class Feature(Meta):
    """One card."""

    heading: Words = Field("", description="Name of the feature")
    text: Passage = Field("", description="What it means")


class FeaturesContent(Content):
    """Cards side by side."""

    items: list[Feature] = Field([], max_length=12, description="Cards; made from the text when empty")


class Testimonial(Meta):
    """Somebody's own words."""

    quote: GivenPassage = Field(description="What was said, unchanged")
    name: Words = Field("", description="Who said it")
    role: Words = Field("", description="What that person does")


class TestimonialsContent(Content):
    """Quotes. None are ever made up."""

    items: list[Testimonial] = Field(
        [], max_length=12, description="Quotes; without any, readers are invited"
    )


class CtaContent(Content):
    """One thing to do."""

    button: Button | None = Field(None, description="Where it leads; by default to the contact section")


class Price(Meta):
    """One offer."""

    name: Given = Field(description="Name of the offer")
    price: Words = Field("", description="Price as shown, with its currency; left out, one asks for a quote")
    text: Passage = Field("", description="What it is")
    features: list[Given] = Field([], max_length=10, description="What is included")
    button: Button | None = Field(None, description="Where to take the offer")


class PricingContent(Content):
    """Offers. No price is ever made up."""

    items: list[Price] = Field(
        [], max_length=6, description="Offers; without any, readers may ask for a quote"
    )


class Question(Meta):
    """A question with its answer."""

    question: Given = Field(description="The question")
    answer: GivenPassage = Field(description="The answer")


class FaqContent(Content):
    """Questions and answers."""

    items: list[Question] = Field([], max_length=20, description="Questions with answers; none are made up")


class ContactContent(Content):
    """How to reach the caller. A form is shown only where it can be sent."""

    email: Mail = Field("", description="Mail address to show")
    phone: Phone = Field("", description="Phone number to show")
    address: Passage = Field("", description="Postal address to show")
    form_action: FormAction = Field(
        "", alias="formAction", description="Where the form is sent: https://… or mailto:…; empty, no form"
    )


class Person(Meta):
    """Somebody of the team."""

    name: Given = Field(description="Name")
    role: Words = Field("", description="What this person does")
    text: Passage = Field("", description="A few words")


class TeamContent(Content):
    """People. None are ever made up."""

    items: list[Person] = Field([], max_length=24, description="People to introduce")


class Figure(Meta):
    """One number that the caller vouches for."""

    value: Given = Field(description="The figure as shown")
    label: Given = Field(description="What it counts")


class StatsContent(Content):
    """Figures. None are ever made up."""

    items: list[Figure] = Field([], max_length=8, description="Figures to show")


CONTENTS: dict[SectionType, type[Content]] = {
    "hero": HeroContent,
    "features": FeaturesContent,
    "testimonials": TestimonialsContent,
    "cta": CtaContent,
    "pricing": PricingContent,
    "faq": FaqContent,
    "contact": ContactContent,
    "team": TeamContent,
    "stats": StatsContent,
}
SECTION_TYPES: tuple[SectionType, ...] = get_args(SectionType)


class PageContents(Meta):
    """Content per section; a section with content is on the page by default."""

    hero: HeroContent | None = Field(None, description="Top of the page")
    features: FeaturesContent | None = Field(None, description="Cards")
    testimonials: TestimonialsContent | None = Field(None, description="Quotes")
    cta: CtaContent | None = Field(None, description="One thing to do")
    pricing: PricingContent | None = Field(None, description="Offers")
    faq: FaqContent | None = Field(None, description="Questions and answers")
    contact: ContactContent | None = Field(None, description="How to reach the caller")
    team: TeamContent | None = Field(None, description="People")
    stats: StatsContent | None = Field(None, description="Figures")

    def of(self, section: SectionType) -> Content | None:
        """Return what was given for a section."""
        found: Content | None = getattr(self, section)
        return found


class Styled(Meta):
    """What pages, sections and assets have in common."""

    theme: ThemeName | OwnTheme = Field("harbor", description="A named theme, or colours of one's own")
    language: str = Field(
        "en",
        pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8}){0,4}$",
        description="BCP 47 tag of the words: en, es, fr or de, with or without a region",
    )

    @field_validator("theme", mode="wrap")
    @classmethod
    def _theme(cls, value: Any, accept: ValidatorFunctionWrapHandler) -> Any:
        # A union would name its branches in the path of each problem; a caller knows only `theme`.
        if isinstance(value, str) and value not in THEMES:
            raise ValueError(f"a theme is one of {', '.join(THEMES)}, or an object with colors")
        return accept(value) if isinstance(value, str) else OwnTheme.model_validate(value)

    @field_validator("language")
    @classmethod
    def _spoken(cls, language: str) -> str:
        if language.partition("-")[0].lower() not in PHRASES:
            raise ValueError(f"labels exist in {', '.join(PHRASES)} only")
        return language


class PageMeta(Styled):
    """A page to make. Every field has a default: `{}` is a home page in neutral words."""

    page_type: PageType = Field("home", alias="pageType", description="What the page is for")
    description: Prose = Field("", description="What the page should say, in sentences")
    title: Words = Field("", description="Heading and title of the page")
    brand: Words = Field("", description="Name of whoever the page is by")
    sections: list[SectionType] = Field(
        [],
        max_length=len(SECTION_TYPES),
        json_schema_extra={"uniqueItems": True},
        description="Sections in their order, each once; by default those of the page type",
    )
    content: PageContents = Field(
        default_factory=lambda: PageContents.model_validate({}),
        description="Facts to show: quotes, prices, people, contact details",
    )
    form_action: FormAction = Field(
        "", alias="formAction", description="Where the form is sent: https://… or mailto:…; empty, no form"
    )

    @field_validator("sections")
    @classmethod
    def _once(cls, sections: list[SectionType]) -> list[SectionType]:
        if len(set(sections)) < len(sections):
            raise ValueError("each section may be on a page once")
        return sections


class SectionMeta(Styled):
    """A section to make."""

    section_type: SectionType = Field(alias="sectionType", description="Kind of section")
    content: (
        Prose
        | HeroContent
        | FeaturesContent
        | TestimonialsContent
        | CtaContent
        | PricingContent
        | FaqContent
        | ContactContent
        | TeamContent
        | StatsContent
        | None
    ) = Field(None, description="Plain text, or the fields of this kind of section")
    brand: Words = Field("", description="Name of whoever the section is by")
    heading_level: int = Field(
        2, alias="headingLevel", ge=1, le=5, description="Level of its heading; what is in it is one lower"
    )

    @field_validator("content", mode="wrap")
    @classmethod
    def _content(cls, value: Any, _: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        # The union above describes the field; which branch it is, is known from the section type.
        kind = CONTENTS.get(info.data.get("section_type", ""))
        if value is None or kind is None:
            return None
        return _TEXT.validate_python(value) if isinstance(value, str) else kind.model_validate(value)


class AssetContent(Meta):
    """The words on an image."""

    headline: Words = Field("", description="Large line")
    text: Passage = Field("", description="Text below it")
    brand: Words = Field("", description="Name at the foot")


class AssetMeta(Styled):
    """An image to make."""

    asset_type: AssetType = Field("social_post", alias="assetType", description="Kind and size of the image")
    content: Prose | AssetContent = Field("", description="Plain text, or headline, text and brand")
    description: Prose = Field("", description="What it is for; used where no content is given")
    format: Literal["svg", "png"] = Field("svg", description="File format; png can draw Latin letters only")

    @field_validator("content", mode="wrap")
    @classmethod
    def _content(cls, value: Any, _: ValidatorFunctionWrapHandler) -> Any:
        return _TEXT.validate_python(value) if isinstance(value, str) else AssetContent.model_validate(value)


_SENTENCE = re.compile(r"(?<=[.!?…])\s+|\n+")


def sentences(text: str) -> list[str]:
    """Return the sentences of a text; a line break ends one too."""
    return [part.strip(" -*•\t") for part in _SENTENCE.split(text) if part.strip(" -*•\t")]
