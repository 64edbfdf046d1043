"""No secret leaves: a walk over every endpoint with secrets in every place, and a look at all it leaves."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.router.api.canaries import GOOD, walk
from tests.router.api.hostile import (
    CREDENTIALS,
    META,
    OURS,
    RESOLVER,
    SETTINGS,
    SHAPED,
    UPSTREAM,
    Answer,
    Left,
)

UNREFUSED = {"/health", "/ready", "/openapi.json"}
"""Open to everyone, and there is nothing to get wrong."""
KEPT = ("employee:", "key'")
"""Partitions of what people wrote and wanted kept: mail, leads, the names of keys."""
PIECE = 13
"""So many first characters of a secret are as bad as all of it."""


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Left:
    """Give what a walk over everything leaves behind."""
    return asyncio.run(walk(tmp_path_factory.mktemp("canaries")))


def callers(left: Left) -> list[str]:
    """Return what proves who calls; of keys that part which is not their id."""
    return [
        left.key[12:36],
        left.poor_key[12:36],
        *(value.partition(" ")[2] or value for value in CREDENTIALS.values()),
    ]


def problems(left: Left) -> list[Answer]:
    """Return the answers that are problem documents."""
    return [one for one in left.answers if "content-type: application/problem+json" in one.text]


def found(text: str, canaries: list[str]) -> list[str]:
    """Return the canaries of which anything to speak of is in a text."""
    return [one for one in canaries if one[:PIECE] in text]


def test_no_endpoint_is_unknown(left: Left) -> None:
    """Whoever adds an endpoint says how it is called, in `GOOD`, so that it is walked like the others."""
    assert left.unknown == set()
    assert set(GOOD) <= left.walked


def test_everything_was_walked(left: Left) -> None:
    """Every endpoint was answered well at least once, and refused at least once."""
    for method, template in GOOD:
        statuses = {
            answer.status
            for answer in left.answers
            if answer.call.split("?")[0].split(" ")[0] == method
            and _fits(answer.call.split(" ")[1], template)
        }
        assert statuses & {200, 201, 204}, (method, template, statuses)
        assert any(status >= 400 for status in statuses) or template in UNREFUSED, template
    assert len(left.answers) > 400


def _fits(path: str, template: str) -> bool:
    given, wanted = path.split("?")[0].split("/"), template.split("/")
    return len(given) == len(wanted) and all(
        b.startswith("{") or a == b for a, b in zip(given, wanted, strict=True)
    )


def test_no_secret_of_ours_is_answered(left: Left) -> None:
    """In no body and no header, whatever failed; of what the settings hold nothing comes out."""
    for answer in left.answers:
        assert found(answer.text, OURS) == [], answer


def test_nothing_that_proves_who_calls_is_answered(left: Left) -> None:
    """Neither the key nor what stands in other headers, on any path, well or not."""
    for answer in left.answers:
        assert found(answer.text, callers(left)) == [], answer


def test_what_looks_like_a_secret_does_not_come_back_in_a_problem(left: Left) -> None:
    """Names, values and paths that a caller made up are shown, but for what looks like a secret in them."""
    assert len(problems(left)) > 200
    for answer in problems(left):
        assert found(answer.text, [SHAPED, UPSTREAM, META, RESOLVER, "10.9.8.7"]) == [], answer


def test_every_problem_is_one(left: Left) -> None:
    """With what is taken out it is still a whole document with all its members."""
    for answer in problems(left):
        document = json.loads(answer.text.partition("\n\n")[2])
        assert {"type", "title", "status", "detail", "code", "error"} <= set(document)
        assert document["status"] == answer.status


def test_no_credential_goes_on_to_an_autopilot(left: Left) -> None:
    """What an autopilot is sent has the task's own meta, and nothing of who asked or of ours."""
    tasks = [one for one in left.upstream if one.path.endswith("/tasks")]
    assert any(META in one.body.decode() for one in tasks)
    for one in left.upstream:
        text = json.dumps(one.headers) + one.path + one.body.decode()
        assert found(text, [*OURS, *callers(left)]) == [], text
        assert SHAPED not in json.dumps(one.headers) + one.path


def test_each_service_outside_gets_its_own_key_and_no_other(left: Left) -> None:
    """The model sees the model's key, the payment provider the one for payments, neither anything else."""
    assert len(left.outside) >= 2
    for one in left.outside:
        text = json.dumps(one.headers) + one.path + one.body.decode()
        own = "STRIPE_API_KEY" if "checkout" in one.path else "OPENAI_API_KEY"
        assert found(text, [*OURS, *callers(left), SHAPED]) == [SETTINGS[own]]
        assert one.headers["authorization"] == f"Bearer {SETTINGS[own]}"


def test_cloudflare_is_sent_its_token_and_no_other_secret(left: Left) -> None:
    """As the header that it asks for, and in nothing else; when it says it back, nobody hears of that."""
    assert any(b"leaky" in one.body for one in left.cloud)
    for one in left.cloud:
        assert one.headers.pop("authorization") == f"Bearer {SETTINGS['CF_API_TOKEN']}"
        text = json.dumps(one.headers) + one.path + one.body.decode()
        assert found(text, [*OURS, *callers(left), SHAPED, META]) == []
    told = [answer.text for answer in left.answers if "leaky" in answer.text]
    assert any('"errors"' in text for text in told)
    assert any('"details"' in text for text in told)


def test_the_log_has_no_secret(left: Left) -> None:
    """Whatever was logged, crashes with all secrets in them too; and nothing of a caller was given to it."""
    assert any("unexpected error" in line for line in left.log)
    assert any(line.endswith("(AUTOPILOT_ALLOW_ENDPOINTS): 127.0.0.1/32") for line in left.log)
    for line in left.log:
        assert found(line, [*OURS, *callers(left), SHAPED, META, UPSTREAM]) == [], line
    for line in left.raw_log:
        assert found(line, [*callers(left), META]) == [], line


def test_the_store_has_no_secret(left: Left) -> None:
    """In no row: neither what proves who calls, nor ours, nor what was in a meta or said by an autopilot."""
    assert len(left.rows) > 10_000
    assert '"call.denied"' in left.rows
    for row in left.rows.splitlines():
        kept = any(f"('{partition}" in row for partition in KEPT)
        looked_for = [*OURS, *callers(left), META, UPSTREAM, RESOLVER, *([] if kept else [SHAPED])]
        assert found(row, looked_for) == [], row


def test_the_files_have_no_secret(left: Left) -> None:
    """In no file of the data folder, the store's own pages and log among them."""
    assert any(name.endswith("router.db") for name in left.blobs)
    for name, content in left.blobs.items():
        for canary in [*OURS, *callers(left), META, UPSTREAM, RESOLVER]:
            assert canary[:PIECE].encode() not in content, (name, canary)


def test_what_everybody_may_see_has_no_secret(left: Left) -> None:
    """The admin page, all that it loads, the documents of the API and deployed pages."""
    shown = [one for one in left.answers if one.call.startswith(("GET /admin", "GET /openapi", "GET /pages"))]
    assert len(shown) > 10
    for answer in shown:
        assert found(answer.text, [*OURS, *callers(left)]) == [], answer.call
        assert SHAPED not in answer.text, answer.call


def test_a_data_folder_is_given(left: Left, tmp_path: Path) -> None:
    """The walk leaves files in its own folder only."""
    assert left.blobs
    assert list(tmp_path.iterdir()) == []
