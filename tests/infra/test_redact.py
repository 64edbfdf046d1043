"""Redaction: no form of a secret gets through, ordinary text does, and no text can pass for a log line."""

from __future__ import annotations

import base64
import html
import io
import json
import logging
import re
import sys
import time
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from infra.redact import STARS, RedactingFormatter, Redactor

# Put together here, so that no scanner takes this file for a leak.
RUN = "aZ09bY18cX27dW36eV45fU54gT63hS72"
PEM = f"-----BEGIN RSA PRIVATE KEY-----\nMIIEow{RUN}\n{RUN}==\n-----END RSA PRIVATE KEY-----"
SECRETS = [
    f"cfk_{RUN}",
    f"cfut_{RUN}-{RUN}",
    f"cfat_{RUN}",
    f"cfoat_{RUN}_{RUN}",
    f"sk-{RUN}",
    f"sk-proj-{RUN}_{RUN}-x",
    f"sk-ant-api03-{RUN}",
    f"sk_live_{RUN}",
    f"sk_test_{RUN}",
    f"rk_live_{RUN}",
    f"rk_test_{RUN}",
    f"whsec_{RUN}",
    f"whsk_{RUN}",
    "whsec_" + base64.b64encode(bytes(range(240, 256)) * 2).decode(),
    f"apr_{(RUN * 2)[:38]}",
    f"apr_{RUN[:16]}",
    "AKIA" + "ABCDEFGH23456789",
    "ASIA" + "ABCDEFGH23456789",
    f"ghp_{RUN}",
    f"gho_{RUN}",
    f"ghs_{RUN}",
    f"github_pat_{RUN}_{RUN}",
    f"xoxb-1234567890-{RUN}",
    f"eyJ{RUN}.eyJ{RUN}.{RUN}-_",
]
CONTEXTS = [
    ("Bearer ", RUN),
    ("bearer  ", "only-letters"),
    ("Authorization: Basic ", "dXNlcjpwYXNzd29yZA=="),
    ("authorization: ", "some-raw-value"),
    ("AUTHORIZATION=Token ", RUN),
    ("'authorization': 'Basic ", "dXNlcjpwYXNzd29yZA=="),
    ("(b'authorization', b'Digest ", RUN),
    ('{"Authorization": "Basic ', "dXNlcjpwYXNzd29yZA=="),
    ('{\\"Authorization\\": \\"Basic ', "dXNlcjpwYXNzd29yZA=="),
    ("proxy-authorization=", f"Bearer%20{RUN}"),
    ("?header=Bearer%20", RUN),
    ("aws_secret_access_key = ", RUN + "/+ab5678"),
    ("AWS_SECRET_ACCESS_KEY=", RUN + "/+ab5678"),
    ('"SecretAccessKey": "', RUN + "/+ab5678"),
    ('"SessionToken":"', RUN * 4),
    ("X-Amz-Security-Token=", RUN * 2 + "%2F" + RUN),
    ("&X-Amz-Signature=", "0123456789abcdef" * 4),
    ("https://", "user:p4ssw0rd"),
    ("smtp://", "user%40host:p@ss@word"),
    ("redis://", ":p4ssw0rd"),
    ("https:\\/\\/", "user:p4ssw0rd"),
]
AROUND = [
    ("", ""),
    ("the key is ", " and so on"),
    ("key=", "&next=1"),
    ('{"key":"', '","b":1}'),
    ("'", "'"),
    ("(", ")"),
    ("<b>", "</b>"),
    ("https://host/path?key=", "#end"),
    ("https://host/?key%3D", "%26b"),
    ("line one\n", "\nline three"),
    ("escaped\\n", "\\nmore"),
    ("\\u003d", "\\u0026"),
    ("\x1b[31m", "\x1b[0m"),
    ("ключ:", "。"),
    ("x_", ""),
    ("-", " "),
    (", ", ","),
]
HINTS = re.compile(
    r"cf[a-z]*[kt]_|sk-|[rs]k_(live|test)_|whs|apr_|A(KIA|SIA|BIA|CCA)|gh[a-z]+_|xox|eyJ|-----|bearer"
    r"|authorization|secret|token|x-amz|://|:\\?/",
    re.IGNORECASE,
)


HARD = [
    "-eyJ" * 25_000,
    "://a:" * 20_000,
    "://:" + "a" * 100_000,
    "-----BEGIN " * 9_000,
    "bearer " * 14_000,
    "authorization" + "\\" * 50_000 + " " * 50_000,
    "sk-" * 30_000,
    "eyJaaaaaaaaa.eyJ-" * 6_000,
    ("AKIA" + "A" * 16 + f"sk-{RUN}apr_") * 1_500,
    f"eyJ{RUN}." * 3_000,
]


def fail(text: str) -> None:
    """Be code that fails with a text."""
    raise ValueError(text)


class TestForms:
    """Every form of a secret, wherever it stands."""

    @pytest.mark.parametrize("secret", SECRETS)
    def test_anywhere(self, secret: str) -> None:
        """A secret goes, whatever stands around it, and what stands around it stays."""
        redactor = Redactor()
        for before, after in AROUND:
            assert redactor.text(f"{before}{secret}{after}") == f"{before}{STARS}{after}", (before, after)

    @pytest.mark.parametrize("secret", SECRETS)
    def test_within_json(self, secret: str) -> None:
        """In JSON, and in JSON within JSON, a secret goes and the JSON stays whole."""
        once = json.dumps({"a": [f"x {secret}\n"]})
        assert json.loads(Redactor().text(once)) == {"a": [f"x {STARS}\n"]}
        twice = Redactor().text(json.dumps(once))
        assert json.loads(json.loads(twice)) == {"a": [f"x {STARS}\n"]}

    @pytest.mark.parametrize("secret", SECRETS)
    def test_within_a_url(self, secret: str) -> None:
        """Escaped as part of a URL, nothing of a secret is left."""
        for escaped in (quote(secret, safe=""), quote_plus(secret), quote(secret)):
            assert Redactor().text(f"https://host/?key={escaped}&b=2") == f"https://host/?key={STARS}&b=2"

    @pytest.mark.parametrize(("before", "secret"), CONTEXTS)
    def test_by_what_stands_before(self, before: str, secret: str) -> None:
        """A secret that only its surroundings give away goes, and they stay."""
        end = "@host/path" if before.endswith("/") else "\"'), next"
        assert Redactor().text(f"so {before}{secret}{end}") == f"so {before}{STARS}{end}"

    @pytest.mark.parametrize("secret", [PEM, PEM.replace("\n", "\\n"), PEM.replace("RSA ", ""), PEM[:70]])
    def test_private_keys(self, secret: str) -> None:
        """A private key goes from its first line to its last, or to the end where that is cut off."""
        assert Redactor().text(f"key: {secret}") == f"key: {STARS}"
        if "END" in secret:
            assert Redactor().text(f"key: {secret} after") == f"key: {STARS} after"

    def test_public(self) -> None:
        """Certificates and public keys are no secrets."""
        text = "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----\n-----BEGIN PUBLIC KEY-----\nMII"
        assert Redactor().text(text) == text


class TestKnown:
    """Secrets of this installation."""

    ODD = 'p"ä/ss wörd\\+&%\n<\U0001f511>'

    @pytest.mark.parametrize(
        "form",
        [
            ODD,
            quote(ODD),
            quote(ODD, safe=""),
            quote(ODD, safe="").lower(),
            quote_plus(ODD),
            json.dumps(ODD),
            json.dumps(ODD, ensure_ascii=False),
            repr(ODD),
            html.escape(ODD),
            ODD.replace("/", "\\/"),
        ],
    )
    def test_any_escape(self, form: str) -> None:
        """A known secret goes in whatever way its characters are escaped."""
        text = Redactor([self.ODD]).text(f"pw={form}; next")
        assert "ss" not in text
        assert text.strip("'\"") in {f"pw={STARS}; next", f"pw='{STARS}'; next", f'pw="{STARS}"; next'}

    def test_plain(self) -> None:
        """A known secret that looks like nothing goes everywhere, also from within a word."""
        redactor = Redactor(["correct horse", "battery-staple"])
        assert redactor.text("a correct horse, xbattery-staplex") == f"a {STARS}, x{STARS}x"

    def test_short(self) -> None:
        """A secret too short to tell from words, or none, takes nothing away."""
        assert Redactor(["", "pass"]).text("passing by") == "passing by"

    def test_odd_environment(self) -> None:
        """A secret with bytes that are no UTF-8, as an environment may hold, is one like another."""
        assert Redactor(["sécret\udcff99"]).text("x sécret\udcff99") == f"x {STARS}"

    def test_case(self) -> None:
        """A known secret is that one, not another in capitals."""
        assert Redactor(["abcdefgh"]).text("ABCDEFGH") == "ABCDEFGH"

    @pytest.mark.parametrize("escaped", [False, True])
    def test_cut_off(self, escaped: bool) -> None:
        """A text that was cut within a known secret shows less of it than anybody could use."""
        secret = f"long/{RUN}/secret"
        form = quote(secret, safe="") if escaped else secret
        redactor = Redactor([secret])
        for length in range(len(form) + 1):
            text = redactor.text(f"nothing at {form[:length]}")
            assert text == f"nothing at {STARS}" or len(text) < len("nothing at ") + 20, text
            shown = text.removeprefix("nothing at ")
            assert shown == STARS or len(secret) - len(shown) >= 20
        assert redactor.text(f"{secret[:20]} {secret[:15]}-") == f"{STARS} {STARS}-"

    def test_finds(self) -> None:
        """To ask whether there is a secret is as good as looking for what would be replaced."""
        redactor = Redactor(["correct horse battery"])
        for text in ("a correct horse battery", "the correct horse", f"x sk-{RUN}"):
            assert redactor.finds(text)
        for text in ("", "correct", "a horse", "sk-"):
            assert not redactor.finds(text)


class TestOverlap:
    """Secrets beside, within and across each other."""

    @pytest.mark.parametrize("first", SECRETS)
    @pytest.mark.parametrize("second", SECRETS)
    def test_adjacent(self, first: str, second: str) -> None:
        """Two secrets without anything between them leave nothing of either."""
        text = Redactor().text(f"x {first}{second} y")
        assert re.fullmatch(r"x [*.]+ y", text), text

    def test_across(self) -> None:
        """Two known secrets that share their middle both go."""
        assert Redactor(["abcdefgh1234", "gh1234567890"]).text("<abcdefgh1234567890>") == f"<{STARS}>"

    def test_within(self) -> None:
        """Of a secret that contains another nothing is left, whichever is found first."""
        inner, outer = "abcdefgh", "12abcdefgh34"
        assert Redactor([inner, outer]).text(outer) == STARS
        assert Redactor([outer, inner]).text(outer) == STARS
        assert Redactor(["abcdefgh", "abcdefgh12"]).text("abcdefgh12") == STARS
        assert Redactor([RUN]).text(f"sk-proj-{RUN}-rest-of-it") == STARS
        assert Redactor([f"pa!sk-{RUN}!word"]).text(f"pa!sk-{RUN}!word") == STARS

    @settings(deadline=None)
    @given(
        st.lists(st.sampled_from(["abcdefgh", "efghijkl", "hijklmnop", "abc", " ", "op", "sk-"]), max_size=9)
    )
    def test_nothing_left(self, pieces: list[str]) -> None:
        """However they are strung together, no secret is left, and a second look finds no more."""
        redactor = Redactor(["abcdefgh", "efghijkl", "hijklmnop"])
        text = redactor.text("".join(pieces))
        assert not any(secret in text for secret in ("abcdefgh", "efghijkl", "hijklmnop"))
        assert redactor.text(text) == text


class TestOrdinary:
    """Text without secrets."""

    @settings(max_examples=300, deadline=None)
    @given(st.text())
    @example("the task-management disk-usage risk-free work_live_stream; whose apron, cfg_value")
    def test_unchanged(self, text: str) -> None:
        """What has none of the telltale words stays as it is, to the last character."""
        assume(not HINTS.search(text))
        assert Redactor(["a known secret"]).text(text) == text

    @pytest.mark.parametrize(
        "text",
        [
            "task-management-plan, disk-usage-report, risk-assessment-2026",
            "test_task_live_stream(), desk_test_harness_one",
            "apr_2026 and apr_percentage and whsec_ and sk- and sk-SK, apr_",
            "https://host:8080/path@2x and http://a/b:c and mailto:ann@example.org at 10:30",
            "ssh://git@github.com/x and https://example.org/~user:name",
            "AKIA is a prefix; so is ASIA; BRASIAN",
            "send a key as 'Authorization: Bearer KEY'",
            "trace 0af7651916cd43dd8448eb211c80319c, sha256 " + "ab" * 32,
            "550e8400-e29b-41d4-a716-446655440000",
            "eyJ is how it starts. eyJust a word",
            '{"token": 3, "session_token": null, "secret_access_key": ""}',
            "config cfg_kit_test_value, half_life_test_data",
        ],
    )
    def test_near_misses(self, text: str) -> None:
        """What only resembles a secret stays."""
        assert Redactor().text(text) == text

    @pytest.mark.parametrize("text", HARD)
    def test_no_text_takes_long(self, text: str) -> None:
        """A hundred kilobytes made to be hard take no minutes."""
        began = time.process_time()
        Redactor(["known secret", "a" * 30 + "b"]).text(text)
        assert time.process_time() - began < 20


class TestValues:
    """JSON values."""

    def test_nested(self) -> None:
        """Secrets go from texts and keys at any depth; everything else stays what it is."""
        value = {
            "n": [1, 2.5, None, True, ("x", f"sk-{RUN}")],
            f"whsec_{RUN}": {"deep": {"er": f"Bearer {RUN}"}},
            "plain": "text",
        }
        assert Redactor().value(value) == {
            "n": [1, 2.5, None, True, ["x", STARS]],
            STARS: {"deep": {"er": f"Bearer {STARS}"}},
            "plain": "text",
        }

    def test_untouched(self) -> None:
        """The value given is not changed."""
        value = {"a": [f"sk-{RUN}"], 7: "x"}
        assert Redactor().value(value) == {"a": [STARS], 7: "x"}
        assert value == {"a": [f"sk-{RUN}"], 7: "x"}


class TestLog:
    """Log records."""

    @pytest.fixture
    def stream(self) -> io.StringIO:
        """Give where the log goes."""
        return io.StringIO()

    @pytest.fixture
    def log(self, stream: io.StringIO) -> logging.Logger:
        """Give a logger with the formatter."""
        logger = logging.Logger("test")
        handler = logging.StreamHandler(stream)
        handler.setFormatter(RedactingFormatter(Redactor(["known secret"]), "%(levelname)s %(message)s"))
        logger.addHandler(handler)
        return logger

    def test_message_and_arguments(self, log: logging.Logger, stream: io.StringIO) -> None:
        """Secrets go from a message and from its arguments, whatever those are."""
        log.warning("a known secret, %s and %r", f"sk-{RUN}", {"authorization": f"Bearer {RUN}"})
        assert stream.getvalue() == f"WARNING a {STARS}, {STARS} and {{'authorization': 'Bearer {STARS}'}}\n"

    def test_traceback(self, log: logging.Logger, stream: io.StringIO) -> None:
        """Secrets go from tracebacks, from causes and notes too, which stand indented under the message."""
        try:
            try:
                fail(f"whsec_{RUN}")
            except ValueError as error:
                error.add_note(f"noted sk-{RUN}")
                raise RuntimeError("known secret") from error
        except RuntimeError:
            log.exception("failed")
        first, *rest = stream.getvalue().splitlines()
        assert first == "ERROR failed"
        assert rest[0] == "    Traceback (most recent call last):"
        assert all(line.startswith("    ") for line in rest)
        assert f"    RuntimeError: {STARS}" in rest
        assert not any(secret in stream.getvalue() for secret in (RUN, "known secret"))
        assert "    noted ****" in rest

    def test_another_handler_first(self, log: logging.Logger, stream: io.StringIO) -> None:
        """What another formatter left in the record is not taken over."""
        plain = logging.StreamHandler(io.StringIO())
        log.handlers.insert(0, plain)
        try:
            fail("known secret\nERROR forged")
        except ValueError:
            log.exception("failed")
        assert "known secret" not in stream.getvalue()
        assert "\n    ERROR forged\n" in stream.getvalue()

    def test_stack(self, log: logging.Logger, stream: io.StringIO) -> None:
        """A stack is indented as a traceback is."""
        log.info("here", stack_info=True)
        first, *rest = stream.getvalue().splitlines()
        assert first == "INFO here"
        assert rest
        assert all(line.startswith("    ") for line in rest)

    @pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"])
    def test_forging(self, log: logging.Logger, stream: io.StringIO, end: str) -> None:
        """No line end in a message or an exception makes a line that looks like another record."""
        log.info("from %s", f"ann{end}ERROR forged")
        assert len(stream.getvalue().splitlines()) == 1
        try:
            fail(f"x{end}ERROR forged")
        except ValueError:
            log.exception("with%sERROR forged", end)
        lines = stream.getvalue().splitlines()
        assert [line.split()[0] for line in lines if not line.startswith("    ")] == ["INFO", "ERROR"]

    @settings(deadline=None)
    @given(st.text(st.characters()), st.text(st.characters()))
    def test_one_record_one_line(self, message: str, error: str) -> None:
        """Whatever a message and an exception say, one line starts a record, and all of it is printable."""
        formatter = RedactingFormatter(Redactor(), "%(levelname)s %(message)s")
        try:
            fail(error)
        except ValueError:
            record = logging.LogRecord("x", logging.INFO, "", 0, message, None, sys.exc_info())
        text = formatter.format(record)
        text.encode()
        first, *rest = text.splitlines()
        assert first.startswith("INFO ")
        assert all(line.startswith("    ") for line in rest)
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)

    def test_terminal(self, log: logging.Logger, stream: io.StringIO) -> None:
        """Terminals are not driven by what is logged."""
        log.info("\x1b[2J\x07\x9b31m\t\ud800")
        assert stream.getvalue() == "INFO \\x1b[2J\\x07\\x9b31m\\t\\ud800\n"

    def test_arguments_that_do_not_fit(
        self, log: logging.Logger, stream: io.StringIO, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A message whose arguments do not fit is logged without secrets, not written raw to stderr."""
        log.info("%d %s", f"sk-{RUN}")
        assert stream.getvalue() == f"INFO '%d %s' does not go with ('{STARS}',)\n"
        assert capsys.readouterr().err == ""

    def test_time(self) -> None:
        """A format with the time gets it."""
        formatter = RedactingFormatter(Redactor(), "%(asctime)s %(name)s %(message)s")
        record = logging.LogRecord("router", logging.INFO, "", 0, "hello", None, None)
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} router hello", formatter.format(record))
