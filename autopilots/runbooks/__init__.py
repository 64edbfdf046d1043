"""Runbooks: graphs of tasks written as YAML, and the books that come with the product."""

from __future__ import annotations

from autopilots.runbooks.book import Book, BookInvalid, load, names, parse_book

__all__ = ["Book", "BookInvalid", "load", "names", "parse_book"]
