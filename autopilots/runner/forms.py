"""What the runner's tasks look like: the meta of each capability, and what may be expected."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, model_validator

from autopilots.kit import Meta

LONGEST = 1 << 20
"""Characters of a text that is written or sent."""
BACKUP = r"^[0-9a-f]{16}/[0-7]{1,4}-[0-9a-f]{64}$"

_NO_NUL = r"^[^\x00]*$"


class Exact(Meta):
    """A form whose texts are taken as they are, with the blanks around them."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=False)


def _printable(text: str) -> str:
    if not text.isprintable() or not text.isascii():
        raise ValueError("has to be printable ASCII")
    return text


Text = Annotated[str, StringConstraints(max_length=65_536)]
Argument = Annotated[str, StringConstraints(max_length=131_072, pattern=_NO_NUL)]
Place = Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=_NO_NUL)]
Env = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]
JsonPath = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Header = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,200}$")]
Texts = Annotated[
    list[Annotated[str, StringConstraints(min_length=1, max_length=8192)]], Field(max_length=50)
]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]

Contains = Annotated[Texts, Field(description="Texts that have to be in it, each of them")]
Lacks = Annotated[Texts, Field(description="Texts of which none may be in it")]
Cwd = Annotated[
    Place, Field(description="A folder, relative to the runner's own; no .. and no absolute path")
]
FilePath = Annotated[Place, Field(description="The file, relative to cwd; no .. and no absolute path")]
Secrets = Annotated[
    list[Env] | None,
    Field(
        max_length=64,
        description="Variables of the runner that ${env.NAME} stands for; with this $$ is a dollar sign",
    ),
]


class Conditions(Exact):
    """What a value has to be like. Of one that is not there only `exists: false` holds."""

    is_: Annotated[Any, Field(alias="is", description="It is equal to this; true is not 1")] = None
    not_: Annotated[Any, Field(alias="not", description="It is anything but this")] = None
    at_least: Annotated[float | None, Field(description="A number, or a text that is one")] = None
    at_most: Annotated[float | None, Field(description="A number, or a text that is one")] = None
    exists: Annotated[bool, Field(description="Whether it is there")] = True
    contains: Annotated[
        Any,
        Field(
            description="A part of a text, a name of an object or an element of a list, given an object one "
            "that has at least its members; or a list of these"
        ),
    ] = None
    lacks: Annotated[Any, Field(description="The opposite of contains, for each of a list")] = None

    def said(self) -> dict[str, Any]:
        """Return the conditions that were given, by name."""
        return self.model_dump(by_alias=True, exclude_unset=True)


Values = Annotated[
    dict[JsonPath, Conditions],
    Field(
        max_length=50,
        description="Conditions by dotted path, such as data.items.0.id; $ is the whole value",
    ),
]


class Expected(Exact):
    """What all answers may be held to."""

    contains: Contains = Field(default=[])
    lacks: Lacks = Field(default=[])
    json_: Annotated[Values, Field(alias="json")] = Field(default={}, alias="json")

    def conditions(self) -> dict[str, dict[str, Any]]:
        """Return the conditions on the JSON, by path."""
        return {path: one.said() for path, one in self.json_.items()}


class OfCommand(Expected):
    """What the end of a command has to be like. Texts and JSON are those of its standard output."""

    exit: Annotated[
        list[Annotated[int, Field(ge=-64, le=255)]],
        Field(min_length=1, max_length=20, description="Good exit codes; -9 is an end by signal 9"),
    ] = Field(default=[0])


class OfAnswer(Expected):
    """What an answer has to be like. Texts and JSON are those of its body."""

    status: Annotated[
        list[Annotated[int, Field(ge=100, le=599)]],
        Field(max_length=20, description="Good statuses; none means any 2xx"),
    ] = Field(default=[])
    header: Annotated[
        dict[Header, Conditions], Field(max_length=20, description="Conditions by name of a header")
    ] = Field(default={})
    seconds: Annotated[Seconds | None, Field(description="The most that the answer may take")] = None


class WithSecrets(Exact):
    """A task that may have secrets, in the fields that `SECRET` names."""

    SECRET: ClassVar[frozenset[str]] = frozenset()

    secrets: Secrets = None


class Command(WithSecrets):
    """A program and its arguments, or with `shell` one script."""

    SECRET = frozenset({"set", "stdin"})

    run: Annotated[
        list[Argument],
        Field(
            min_length=1, max_length=256, description="The program and its arguments; with shell one script"
        ),
    ]
    shell: Annotated[
        bool, Field(description="The script is run by sh -c; the runner's operator has to allow it")
    ] = False
    cwd: Cwd = "."
    env: Annotated[
        list[Env],
        Field(max_length=64, description="Variables handed on from the runner's own, where they are set"),
    ] = Field(default=[])
    set: Annotated[dict[Env, Argument], Field(max_length=64, description="Further variables")] = Field(
        default={}
    )
    stdin: Annotated[
        str, StringConstraints(max_length=LONGEST), Field(description="Text for the standard input")
    ] = ""
    timeout_seconds: Annotated[
        Seconds, Field(description="After that it is killed, with all that it started")
    ] = 600.0
    idempotent: Annotated[
        bool,
        Field(description="It may be run again when nobody lived to see how it ended"),
    ] = False
    expect: Annotated[OfCommand, Field(description="What its end has to be like")] = OfCommand()

    @model_validator(mode="after")
    def _fits(self) -> Command:
        if not self.run[0].strip():
            raise ValueError("a command begins with its program")
        if self.shell and len(self.run) > 1:
            raise ValueError("with shell run is one script")
        return self


class Http(WithSecrets):
    """An HTTP call. With `wait_seconds` it is repeated until the answer is as expected."""

    SECRET = frozenset({"url", "headers", "body"})

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    url: Annotated[
        str,
        StringConstraints(min_length=1, max_length=8192),
        Field(description="What is called, if the router may call it; redirects are not followed"),
    ]
    headers: Annotated[
        dict[Header, Annotated[str, StringConstraints(max_length=8192), AfterValidator(_printable)]],
        Field(max_length=50, description="Headers of the request"),
    ] = Field(default={})
    body: Annotated[Any, Field(description="A text is sent as it is, everything else as JSON")] = None
    expect: Annotated[OfAnswer, Field(description="What the answer has to be like")] = OfAnswer()
    timeout_seconds: Annotated[Seconds, Field(description="For one try")] = 30.0
    wait_seconds: Annotated[
        float, Field(ge=0, le=600, description="So long it is repeated until the answer is as expected")
    ] = 0.0
    every_seconds: Annotated[float, Field(ge=0.01, le=60, description="The pause between tries")] = 5.0
    keep: Annotated[
        list[JsonPath] | None,
        Field(max_length=50, description="The paths of the body that the result has; all of it when absent"),
    ] = None


class Change(Exact):
    """A change of one file: see `action`. Done a second time it changes nothing."""

    path: FilePath
    cwd: Cwd = "."
    action: Annotated[
        Literal["write", "append", "replace", "delete", "restore"],
        Field(description="write and append take text, replace find and with, restore backup"),
    ]
    text: Annotated[str, StringConstraints(max_length=LONGEST)] | None = None
    find: Annotated[str, StringConstraints(min_length=1, max_length=LONGEST)] | None = None
    with_: Annotated[
        Annotated[str, StringConstraints(max_length=LONGEST)] | None,
        Field(alias="with", description="What takes the place of find"),
    ] = None
    all: Annotated[bool, Field(description="Everywhere; otherwise find has to be there once")] = False
    if_missing: Annotated[bool, Field(description="write leaves a file alone that is there")] = False
    backup: Annotated[
        str | None,
        StringConstraints(pattern=rf"^$|{BACKUP}"),
        Field(description="What the result of a change said; empty: there was no file"),
    ] = None
    within: Annotated[
        str,
        StringConstraints(max_length=200),
        Field(
            description="What this is a part of, such as a run: the same change again has the first's backup"
        ),
    ] = ""

    @model_validator(mode="after")
    def _fits(self) -> Change:
        needs = _NEEDS[self.action]
        given = {name for name in ("text", "find", "with_", "backup") if getattr(self, name) is not None}
        if given != needs:
            words = " and ".join(sorted(name.rstrip("_") for name in needs))
            raise ValueError(f"{self.action} takes {words or 'neither text nor backup'}")
        if self.all and self.action != "replace":
            raise ValueError("all is for replace")
        if self.if_missing and self.action != "write":
            raise ValueError("if_missing is for write")
        return self


_NEEDS: dict[str, set[str]] = {
    "write": {"text"},
    "append": {"text"},
    "replace": {"find", "with_"},
    "delete": set(),
    "restore": {"backup"},
}


class Check(Expected):
    """What a file has to be like."""

    path: FilePath
    cwd: Cwd = "."
    exists: Annotated[bool, Field(description="false: there must be none")] = True
    at_most_bytes: Annotated[int | None, Field(ge=0, description="The most that it may have")] = None
    sha256: Annotated[
        str | None,
        StringConstraints(pattern=r"^[0-9a-f]{64}$"),
        Field(description="The SHA-256 of its bytes"),
    ] = None

    @model_validator(mode="after")
    def _fits(self) -> Check:
        asked = self.contains or self.lacks or self.json_ or self.sha256 or self.at_most_bytes is not None
        if not self.exists and asked:
            raise ValueError("nothing can be expected of a file that must not be there")
        return self
