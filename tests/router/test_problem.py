"""Errors as HTTP shows them: one status each, one document, and nothing that a caller must not see."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from router import errors
from router.errors import AutopilotError, Forbidden, Invalid, Problem, TaskRequired, UnknownTask
from router.problem import STATUS, document_of, status_of

CONTRACT = {
    "task_required": 400,
    "unknown_task": 400,
    "no_autopilot": 422,
    "not_ready": 503,
    "forward_failed": 502,
    "deadline": 504,
    "invalid_body": 422,
    "malformed": 400,
    "media_type": 415,
    "too_large": 413,
    "conflict": 409,
    "stale": 412,
    "unauthenticated": 401,
    "forbidden": 403,
    "rate_limited": 429,
    "store_unavailable": 503,
    "endpoint_refused": 422,
    "not_found": 404,
}


def kinds(above: type[AutopilotError] = AutopilotError) -> Iterator[type[AutopilotError]]:
    """Give every error of the tree that `router.errors` has."""
    for kind in above.__subclasses__():
        if kind.__module__ == errors.__name__:
            yield kind
        yield from kinds(kind)


@pytest.mark.parametrize(("code", "status"), CONTRACT.items())
def test_the_codes_of_the_contract(code: str, status: int) -> None:
    """Each is the code of one error and has its status."""
    assert STATUS[code] == status
    assert [kind.code for kind in kinds()].count(code) == 1


def test_every_error_has_a_status_of_its_own_right() -> None:
    """None falls through to 500 by being forgotten in the table, and no two share a code."""
    codes = [kind.code for kind in kinds()]
    assert len(codes) == len(set(codes))
    assert set(codes) <= set(STATUS)


def test_every_error_says_in_words_what_it_is() -> None:
    """A title of its own; those that may succeed later are no mistakes of the caller."""
    titles = [kind.title for kind in kinds()]
    assert len(titles) == len(set(titles))
    for kind in kinds():
        assert kind.title
        if kind.retryable:
            assert STATUS[kind.code] >= 429


def test_an_answer_about_a_thousand_mistakes_is_not_a_thousand_lines_long() -> None:
    """A hundred are told, each in short, and how many more there are: the caller wrote what is in them."""
    error = Invalid([(f"{number}-{'x' * 2_000}", "y" * 2_000) for number in range(1_000)])
    told = document_of(error)["errors"]
    assert [one["field"].partition("-")[0] for one in told[:100]] == [str(number) for number in range(100)]
    assert told[100] == {"field": "", "message": "and 900 more"}
    assert len(told) == 101
    assert len(json.dumps(document_of(error))) < 250_000
    assert len(Invalid([("a", "b")] * 100).problems) == 100


def test_an_error_nobody_foresaw_is_ours() -> None:
    """500, and no word of what it was."""
    document = document_of(AutopilotError())
    assert status_of(AutopilotError()) == 500
    assert document["title"] == document["detail"] == "Something went wrong on our side"


def test_a_document_has_the_standard_members_and_ours() -> None:
    """RFC 9457's, the code, the seed's `error`, the trace and the extras."""
    error = Forbidden("this key lacks the scope 'plan'", scope="plan")
    assert document_of(error, "t" * 32) == {
        "type": "urn:autopilot:problem:forbidden",
        "title": "Not allowed",
        "status": 403,
        "detail": "this key lacks the scope 'plan'",
        "code": "forbidden",
        "error": "Not allowed",
        "trace_id": "t" * 32,
        "scope": "plan",
    }
    assert "trace_id" not in document_of(error)


def test_the_seeds_texts_are_kept() -> None:
    """Clients of the seed look for these words in `error`."""
    assert document_of(TaskRequired())["error"] == "task required"
    unknown = document_of(UnknownTask("Unknown task: x", error="Unknown task: x", availableTasks=["a"]))
    assert (unknown["error"], unknown["availableTasks"]) == ("Unknown task: x", ["a"])


def test_an_invalid_body_lists_its_fields() -> None:
    """As objects that JSON can show, whether given as problems or as pairs."""
    document = document_of(Invalid([Problem("name", "is required"), Problem("", "is wrong")]))
    assert json.loads(json.dumps(document))["errors"] == [
        {"field": "name", "message": "is required"},
        {"field": "", "message": "is wrong"},
    ]
    assert document["detail"] == "name: is required; is wrong"
    assert Invalid([("a", "b")]).problems == [Problem("a", "b")]
