"""What to do about failures that say what they are: a table that needs no model.

A rule is found by what the failure says. Where the step lists a fix that is meant for such failures, that is
what to do; where it does not, the rule says it. Rules of what a repetition cannot change come first.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from router.diagnosis import Decision, StepFailed
from router.graph import Fix

Kind = Literal["retry", "skip", "fix", "escalate"]

_ENV = r"(?-i:([A-Z][A-Z0-9_]{2,63}))"
_LONG_ENV = r"(?-i:([A-Z][A-Z0-9]{0,40}_[A-Z0-9_]{1,60}))"
"""With an underscore: where nothing else says so, it might be any word in capitals."""
_PROGRAM = r"([A-Za-z0-9][A-Za-z0-9._+-]{0,59})"


class Rule(NamedTuple):
    """`reason` may hold `{what}`, which is what the first group of the pattern that took part has found.

    What a rule would skip is left to a person unless it is optional.
    """

    name: str
    pattern: re.Pattern[str]
    kind: Kind
    reason: str


def _rule(name: str, kind: Kind, reason: str, *patterns: str) -> Rule:
    return Rule(name, re.compile("|".join(patterns), re.IGNORECASE), kind, reason)


RULES = (
    _rule(
        "disk_full",
        "escalate",
        "the disk is full: make room, then try the step again",
        r"\bENOSPC\b",
        r"no space left on device",
        r"disk quota exceeded",
    ),
    _rule(
        "out_of_memory",
        "escalate",
        "the memory is used up: it needs a larger machine, or less to do at once",
        r"heap out of memory",
        r"\bENOMEM\b",
        r"cannot allocate memory",
        r"\bout of memory\b",
    ),
    _rule(
        "missing_env",
        "escalate",
        "the environment variable {what} is not set",
        rf"(?:environment|env) var(?:iable)?s?\W{{1,4}}{_ENV}\W{{1,4}}(?:is |are |was )?"
        r"(?:not set|not defined|not provided|missing|required|undefined|empty)",
        r"(?:missing|undefined|set the|setting the|no)(?: required)? (?:environment|env) var(?:iable)?s?"
        rf"\W{{1,4}}{_ENV}",
        rf"\b{_LONG_ENV}\W{{1,3}}(?:environment variable )?(?:is |was |are )?"
        r"(?:not set|not defined|not provided|not configured|missing|required|undefined|empty)\b",
        rf"(?:setting|set) (?:the )?{_ENV} environment variable",
        rf"KeyError: '{_LONG_ENV}'",
    ),
    _rule(
        "missing_program",
        "escalate",
        "{what} is not installed where the step runs",
        rf"command not found: {_PROGRAM}",
        rf"\b{_PROGRAM}: command not found",
        rf"\bsh: (?:\d{{1,4}}: |line \d{{1,4}}: )?{_PROGRAM}: not found",
        rf"\bspawn {_PROGRAM} ENOENT",
    ),
    _rule(
        "port_in_use",
        "escalate",
        "the port {what} is in use: end what listens there, then try the step again",
        r"\bEADDRINUSE\b[^\n]{0,80}:(\d{1,5})\b",
        r"\bport (\d{1,5}) is (?:already )?(?:in use|being used|allocated)",
        r"\bEADDRINUSE\b",
        r"address already in use",
    ),
    _rule(
        "already_done",
        "skip",
        "what it makes is there already: when its verification holds, mark it done",
        r"\balready (?:exists|been applied|applied|been created|created|registered|recorded)\b",
        r"\bduplicate[ _](?:table|column|key|object|database|schema)\b",
        r"\b(?:42P07|42701|42710|42P06)\b",
    ),
    _rule(
        "rate_limited",
        "retry",
        "it was asked too often: it is tried again after its cool-down",
        r"(?:answered|status(?: code)?:?|error:?) 429\b",
        r"too many requests",
        r"\brate.?limit(?:ed| exceeded| reached)",
        r"\bthrottl(?:ed|ing)\b",
    ),
    _rule(
        "denied",
        "escalate",
        "it was denied: whoever runs it needs valid credentials, or the right to do it",
        r"(?:answered|status(?: code)?:?|error:?) 40[13]\b",
        r"\b(?:401 unauthorized|403 forbidden)\b",
        r"\b(?:permission|access) denied\b",
        r"\b(?:EACCES|EPERM)\b",
        r"\b(?:invalid|bad|expired) (?:api key|access token|token|credentials)\b",
        r"\bauthentication (?:failed|required)\b",
        r"\bnot logged in\b",
    ),
    _rule(
        "network",
        "retry",
        "the connection failed, which passes: it is tried again",
        r"\b(?:ETIMEDOUT|ESOCKETTIMEDOUT|ECONNRESET|ECONNREFUSED|EAI_AGAIN|ENETUNREACH|ERR_SOCKET_TIMEOUT)\b",
        r"\b(?:connect(?:ion)?|read|request|network|registry|socket)\b[^\n]{0,60}?\b(?:timed out|timeout)\b",
        r"\bconnection (?:reset|refused|aborted|closed)\b",
        r"temporary failure in name resolution",
        r"socket hang up",
        r"\b(?:Read|Connect)Timeout(?:Error)?\b",
    ),
    _rule(
        "busy",
        "retry",
        "what it needs is busy or down, which passes: it is tried again",
        r"(?:answered|status(?: code)?:?|error:?) 50[234]\b",
        r"\bbad gateway\b",
        r"\bgateway time-?out\b",
        r"\bservice (?:is )?(?:temporarily )?unavailable\b",
        r"\b(?:please )?try again later\b",
        r"\bdatabase is locked\b",
        r"\bdeadlock detected\b",
        r"index\.lock'?: File exists",
    ),
)


def by_rule(failed: StepFailed, text: str) -> Decision | None:
    """Return what the step's own fixes, or the table, say about a failure; None when they say nothing.

    `text` is what the failure says, redacted. It may be hostile: whatever it says, only what the step allows
    comes of it.
    """
    said = text.lower()
    for fix in failed.fixes:
        if fix.when.strip() and fix.when.lower() in said:
            return _fix(fix, f"the failure says {fix.when!r}", "runbook")
    for rule in RULES:
        if match := rule.pattern.search(text):
            return _ruled(rule, match, failed)
    return None


def _ruled(rule: Rule, match: re.Match[str], failed: StepFailed) -> Decision:
    source = f"rule {rule.name}"
    meant = next((fix for fix in failed.fixes if rule.pattern.search(fix.when)), None)
    if meant is not None:
        return _fix(meant, f"the failure is of the kind {meant.when!r}", source)
    what = next((group for group in match.groups() if group), "that it asks for")
    kind = "escalate" if rule.kind == "skip" and not failed.optional else rule.kind
    return Decision(kind, rule.reason.format(what=what), source=source, free=True)


def _fix(fix: Fix, why: str, source: str) -> Decision:
    about = f": {fix.description}" if fix.description else ""
    return Decision("fix", f"{why}, which {fix.name} is for{about}", fix=fix.name, source=source, free=True)
