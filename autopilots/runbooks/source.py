"""Reads YAML into plain JSON values, and knows the line of every one of them.

It is a small YAML on purpose. Plain words are texts, but for null, true, false and decimal numbers: no `yes`,
no `on`, no dates, no octals. Anchors, aliases and tags are refused, so a short file cannot become a large
value or an object; so are a name given twice, several documents, and what is larger or deeper than a book is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import yaml

MAX_TEXT = 512 << 10
MAX_NODES = 50_000
MAX_DEPTH = 32
MAX_MISTAKES = 100

Path = tuple[str | int, ...]

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"-?(?:0|[1-9][0-9]{0,17})\.[0-9]{1,17}(?:[eE][-+]?[0-9]{1,2})?")
_HALF = re.compile("[\ud800-\udfff]")
_UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
"""What only an escape can put into a text: no file has it, no command takes it, no JSON says it."""
_WORDS: dict[str, Any] = {"": None, "~": None, "null": None, "true": True, "false": False}

# The parser written in C where there is one: a book is read ten times as fast.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Mistake(NamedTuple):
    """Something wrong in a book. Lines and columns count from 1; `at` is the path of the value."""

    line: int
    column: int
    at: str
    message: str

    def __str__(self) -> str:
        return f"line {self.line}: {f'{self.at}: ' if self.at else ''}{self.message}"


class Source(NamedTuple):
    """A value, where each part of it stands, and the mistakes that were found on the way."""

    value: Any
    marks: dict[Path, tuple[int, int]]
    mistakes: list[Mistake]

    def mistake(self, path: Sequence[str | int], message: str) -> Mistake:
        """Return a mistake at what a path leads to, or at the nearest that is there."""
        path = tuple(path)
        while path and path not in self.marks:
            path = path[:-1]
        return Mistake(*self.marks.get(path, (1, 1)), dotted(path), message)


def dotted(path: Sequence[str | int]) -> str:
    """Return a path as it is written: `steps[3].needs[0]`."""
    shown = ""
    for part in path:
        shown += f"[{part}]" if isinstance(part, int) else f".{part}" if shown else str(part)
    return shown


def read(text: str) -> Source:
    """Return what a YAML text says. Without a value when it is none that can be read to its end."""
    reader = _Reader()
    if len(text) > MAX_TEXT:
        return Source(None, {}, [Mistake(1, 1, "", f"a book has at most {MAX_TEXT} characters")])
    if _HALF.search(text):
        return Source(None, {}, [Mistake(1, 1, "", "is no Unicode text")])
    try:
        value = reader.document(yaml.parse(text, Loader=_LOADER))
    except yaml.YAMLError as error:
        return Source(None, {}, [*reader.mistakes, _of(error)])
    except _TooMuch as error:
        return Source(None, {}, [*reader.mistakes, error.mistake])
    return Source(value, reader.marks, sorted(reader.mistakes))


class _TooMuch(Exception):
    def __init__(self, mistake: Mistake) -> None:
        super().__init__(str(mistake))
        self.mistake = mistake


class _Reader:
    def __init__(self) -> None:
        self.marks: dict[Path, tuple[int, int]] = {}
        self.mistakes: list[Mistake] = []
        self.nodes = 0

    def wrong(self, event: yaml.Event, path: Path, message: str) -> None:
        """Keep a mistake."""
        mistake = Mistake(*_place(event), dotted(path), message)
        if len(self.mistakes) >= MAX_MISTAKES:
            raise _TooMuch(mistake)
        self.mistakes.append(mistake)

    def document(self, events: Iterator[yaml.Event]) -> Any:
        """Return the value of the only document."""
        value: Any = None
        documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self.wrong(event, (), "a book is one document")
            elif isinstance(event, yaml.NodeEvent):
                found = self.node(event, events, ())
                value = found if documents == 1 else value
        if not documents:
            self.mistakes.append(Mistake(1, 1, "", "is empty"))
        return value

    def node(self, event: yaml.Event, events: Iterator[yaml.Event], path: Path) -> Any:
        """Return the value that begins with an event."""
        self.nodes += 1
        self.marks.setdefault(path, _place(event))
        if self.nodes > MAX_NODES or len(path) > MAX_DEPTH:
            raise _TooMuch(Mistake(*_place(event), "", "is larger or deeper than a book can be"))
        if isinstance(event, yaml.AliasEvent):
            self.wrong(event, path, f"*{event.anchor}: aliases are not read; write it out")
            return None
        assert isinstance(event, yaml.ScalarEvent | yaml.SequenceStartEvent | yaml.MappingStartEvent)
        if event.anchor is not None:
            self.wrong(event, path, f"&{event.anchor}: anchors are not read")
        if event.tag is not None:
            self.wrong(event, path, f"{event.tag[:80]}: tags are not read")
        if isinstance(event, yaml.ScalarEvent):
            if _UNWRITABLE.search(event.value):
                self.wrong(event, path, "has a character that no text has")
            return _scalar(event)
        if isinstance(event, yaml.SequenceStartEvent):
            return self.sequence(events, path)
        return self.mapping(events, path)

    def sequence(self, events: Iterator[yaml.Event], path: Path) -> list[Any]:
        """Return the list whose beginning was read."""
        found: list[Any] = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            found.append(self.node(event, events, (*path, len(found))))
        return found

    def mapping(self, events: Iterator[yaml.Event], path: Path) -> dict[str, Any]:
        """Return the object whose beginning was read. Of a name that is given twice the first counts."""
        found: dict[str, Any] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            name = self.name(event, events, path)
            inner = (*path, name)
            if name in found:
                self.wrong(event, inner, "is given twice")
                inner = (*path, f"{name} (again)")
            else:
                self.marks[inner] = _place(event)
            value = self.node(next(events), events, inner)
            found.setdefault(name, value)
        return found

    def name(self, event: yaml.Event, events: Iterator[yaml.Event], path: Path) -> str:
        """Return the name of a member: its text, whatever a value written so would be."""
        if isinstance(event, yaml.ScalarEvent):
            if event.anchor is not None or event.tag is not None:
                self.wrong(event, path, "anchors and tags are not read")
            if _UNWRITABLE.search(event.value):
                self.wrong(event, path, "a name has a character that no text has")
            return str(event.value)
        self.wrong(event, path, "a name must be text")
        self.node(event, events, (*path, "?"))
        return f"?{len(self.marks)}"


def _scalar(event: yaml.ScalarEvent) -> Any:
    """Return a text, or what a plain word stands for."""
    word: str = event.value
    if not event.implicit[0] or event.style:
        return word
    if word in _WORDS:
        return _WORDS[word]
    if _INTEGER.fullmatch(word):
        return int(word)
    return float(word) if _FLOAT.fullmatch(word) else word


def _place(event: yaml.Event) -> tuple[int, int]:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)


def _of(error: yaml.YAMLError) -> Mistake:
    """Return what the parser complains about as one mistake."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    said = [getattr(error, name, None) for name in ("context", "problem")]
    message = ", ".join(str(one) for one in said if one) or str(error).partition("\n")[0]
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    return Mistake(line, column, "", f"no YAML: {message}")
