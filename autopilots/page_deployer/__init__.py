"""The page deployer: stores pages as versions, publishes them, and serves them under `/pages/`.

`pilot` is the autopilot; `pages(parts)` are the routes that answer the URLs it returns.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from autopilots.kit import Call, Meta, Parts, Pilot
from autopilots.page_deployer import deploy as work
from autopilots.page_deployer.document import full_page
from autopilots.page_deployer.pages import MAX_SLUG, SLUG, pages
from autopilots.page_deployer.store import BUCKET

__all__ = ["Archive", "Deploy", "Publish", "pages", "pilot"]

MAX_HTML = 600 * 1024
"""Bytes of HTML one version may have, in UTF-8, as it was sent."""

pilot: Pilot[Parts] = Pilot(
    "page-deployer",
    "Deploys pages as versions, publishes and rolls back, and serves them",
    needs={"r2Buckets": [BUCKET]},
    tasks={"publish_page": "web.pages.publish"},
)


def _html(text: str) -> str:
    if not text.strip():
        raise ValueError("there is nothing on the page")
    if len(text.encode()) > MAX_HTML:
        raise ValueError(f"the page is over the limit of {MAX_HTML} bytes in UTF-8")
    return text


Slug = Annotated[
    str,
    StringConstraints(pattern=f"^{SLUG.pattern}$", max_length=MAX_SLUG),
    Field(description="Where the page is: words of a-z, 0-9 and -, joined by /", examples=["home", "a/b"]),
]
PageId = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9._:-]+$", max_length=64),
    Field(description="The caller's own id of the page; without one the page gets an id"),
]


class Deploy(Meta):
    """A page to store. HTML is kept to the byte: its blanks are not stripped."""

    slug: Slug
    html: Annotated[
        str,
        StringConstraints(strip_whitespace=False, min_length=1, max_length=MAX_HTML),
        AfterValidator(_html),
        Field(description="A whole document, kept as it is, or a fragment, which is wrapped into one"),
    ]
    pageId: PageId | None = None  # noqa: N815
    title: Annotated[str, Field(max_length=200, description="Title of a page whose HTML is a fragment")] = ""
    status: Annotated[
        Literal["published", "draft"],
        Field(description="published: live at once; draft: seen at its preview URL only"),
    ] = "published"


class Named(Meta):
    """A page by its slug, its id, or both."""

    slug: Slug | None = None
    pageId: PageId | None = None  # noqa: N815

    @model_validator(mode="after")
    def _one(self) -> Named:
        if self.slug is None and self.pageId is None:
            raise ValueError("slug or pageId is needed")
        return self


class Publish(Named):
    """A version to make live."""

    version: Annotated[
        int | None,
        Field(ge=1, le=99_999_999, description="The version to make live; the newest without one"),
    ] = None


class Archive(Named):
    """A page to take down."""


@pilot.capability("web.pages.deploy")
async def deploy_page(meta: Deploy, call: Call[Parts]) -> work.Result:
    """Store a page as a new version and publish it, or keep it as a draft with a preview URL."""
    document = full_page(meta.html, title=meta.title, slug=meta.slug)
    draft = meta.status == "draft"
    return await work.deploy(call, slug=meta.slug, page_id=meta.pageId, html=document, draft=draft)


@pilot.capability("web.pages.publish")
async def publish_page(meta: Publish, call: Call[Parts]) -> work.Result:
    """Make a version of a page live: the newest, or an older one to roll back."""
    return await work.publish(call, slug=meta.slug, page_id=meta.pageId, number=meta.version)


@pilot.capability("web.pages.archive", optional=True)
async def archive_page(meta: Archive, call: Call[Parts]) -> work.Result:
    """Take a page down: its URL answers 410 until it is published again."""
    return await work.archive(call, slug=meta.slug, page_id=meta.pageId)
