"""What a visitor's browser is given: a fragment becomes a full HTML page, a full page stays as it is."""

from __future__ import annotations

import html

_FULL = ("<!doctype", "<html")
_BLANK = " \t\r\n\f\ufeff"

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
</head>
<body>
{body}
</body>
</html>
"""


def is_full(text: str) -> bool:
    """Return whether `text` is a whole document: a doctype or `<html` after nothing but comments."""
    at = 0
    while True:
        while at < len(text) and text[at] in _BLANK:
            at += 1
        if not text.startswith("<!--", at):
            return text[at : at + 9].lower().startswith(_FULL)
        end = text.find("-->", at + 4)
        if end < 0:
            return False
        at = end + 3


def full_page(text: str, *, title: str, slug: str) -> str:
    """Return `text` as a whole page. `title` is for a fragment; without one the slug's last word serves."""
    if is_full(text):
        return text
    words = title or slug.rpartition("/")[2].strip("-").replace("-", " ").capitalize() or "Page"
    return _PAGE.format(title=html.escape(words), body=text)
