"""Reading real messages, and messages made to break whoever reads them."""

from __future__ import annotations

import time
from email.message import EmailMessage
from email.policy import SMTP

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autopilots.ai_employee.inbox import read_message, text_of_html

HEAD = (
    b"From: Ada <ada@example.com>\r\nDate: Thu, 1 Jan 2026 12:00:00 +0100\r\nMessage-ID: <1@example.com>\r\n"
)


def test_multipart_message_with_attachments() -> None:
    """Plain text is preferred over HTML, and attachments are listed with name, type and decoded size."""
    message = EmailMessage(policy=SMTP)
    message["From"] = "Zoë Müller <Zoe@Example.COM>"
    message["To"] = "office@school.example"
    message["Subject"] = "Größe der Klasse, ok?"
    message["Date"] = "Thu, 01 Jan 2026 12:00:00 +0100"
    message["Message-ID"] = "<abc@example.com>"
    message.set_content("Plain wörds.\n")
    message.add_alternative("<p>HTML words</p>", subtype="html")
    message.add_attachment(b"\x00" * 1234, maintype="application", subtype="pdf", filename="Lebenslauf ä.pdf")
    mail = read_message(message.as_bytes())
    assert (mail.sender, mail.sender_name) == ("zoe@example.com", "Zoë Müller")
    assert mail.subject == "Größe der Klasse, ok?"
    assert (mail.text, mail.body_from) == ("Plain wörds.", "plain")
    assert (mail.message_id, mail.date) == ("<abc@example.com>", "2026-01-01T11:00:00.000Z")
    [attachment] = mail.attachments
    assert (attachment.name, attachment.type, attachment.size) == (
        "Lebenslauf ä.pdf",
        "application/pdf",
        1234,
    )
    assert mail.defects == ()


def test_base64_body_and_encoded_words() -> None:
    """A body in base64 and headers in RFC 2047 are decoded, Latin-1 included."""
    raw = (
        HEAD
        + b"Subject: =?iso-8859-1?Q?Caf=E9?= =?utf-8?B?IPCfjok=?=\r\n"
        + b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        + b"R3LDvMOfZSBhdXMgS8O2bG4=\r\n"
    )
    mail = read_message(raw)
    assert mail.subject == "Café 🎉"
    assert mail.text == "Grüße aus Köln"


def test_latin_1_body_and_raw_8_bit_headers() -> None:
    """A Latin-1 body is decoded by its charset; a header with bare bytes is read as UTF-8 or Latin-1."""
    raw = HEAD + b"Subject: na\xc3\xafve\r\nContent-Type: text/plain; charset=iso-8859-1\r\n\r\nfa\xe7ade"
    mail = read_message(raw)
    assert (mail.subject, mail.text) == ("naïve", "façade")
    assert read_message(b"Subject: na\xefve\r\n\r\n").subject == "naïve"


def test_message_given_as_text_keeps_its_characters() -> None:
    """A message that came as a JSON string is not decoded a second time."""
    mail = read_message(
        "From: Zoë <zoe@example.com>\nSubject: Größe\nContent-Type: text/plain; charset=latin-1\n\nfünf"
    )
    assert (mail.sender_name, mail.subject, mail.text) == ("Zoë", "Größe", "fünf")


def test_html_only_message_becomes_text() -> None:
    """Without plain text the HTML's words are used: no scripts, no styles, no comments, entities decoded."""
    html = (
        b"<html><head><title>T</title><style>p{}</style></head><body><!-- <p>no</p> --><p>Tea &amp; <b>"
        b"caf&eacute;</b></p><script>alert('x')</script><div>2 < 3</div><ul><li>one<li>two</ul></body></html>"
    )
    mail = read_message(HEAD + b"Content-Type: text/html; charset=utf-8\r\n\r\n" + html)
    assert mail.body_from == "html"
    assert mail.text.split("\n") == ["Tea & café", "", "2 < 3", "", "one", "two"]


def test_empty_plain_part_does_not_hide_the_html() -> None:
    """Programs that send an empty plain part beside the HTML are understood."""
    message = EmailMessage(policy=SMTP)
    message.set_content("\n")
    message.add_alternative("<p>Here it is</p>", subtype="html")
    assert read_message(message.as_bytes()).text == "Here it is"


def test_missing_headers_are_reported_not_fatal() -> None:
    """A message without sender, date and id is read, and the defects say what is missing."""
    mail = read_message(b"\r\nOnly a body.\r\n")
    assert (mail.sender, mail.subject, mail.date, mail.message_id) == ("", "", None, "")
    assert mail.text == "Only a body."
    assert {"no From header", "no Date header", "no Message-ID header"} <= set(mail.defects)


@pytest.mark.parametrize(
    ("raw", "text", "defect"),
    [
        (
            HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhalf a mess",
            "half a mess",
            "CloseBoundaryNotFoundDefect",
        ),
        (HEAD + b"Content-Type: multipart/mixed\r\n\r\nno boundary", "no boundary", "NoBoundary"),
        (
            HEAD + b"Content-Type: text/plain; charset=klingon\r\n\r\nnuqneH",
            "nuqneH",
            "unknown charset klingon",
        ),
        (
            HEAD + b"Content-Type: text/plain; charset=utf-8\r\n\r\nfa\xe7ade",
            "façade",
            "text is not valid utf-8",
        ),
        (
            HEAD + b"Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\naGVsbG8@#",
            "hello",
            "Base64",
        ),
        (b"Date: the other day\r\nFrom: x\r\n\r\nhello", "hello", "the Date header is not valid"),
        (b"From: <<<@@>>>\r\n\r\nhello", "hello", "no usable sender address"),
        (b"From: " + b"(" * 3000 + b"\r\n\r\nhello", "hello", "no usable sender address"),
        (HEAD + b"Content-Type: " + b"(" * 3000 + b"\r\n\r\nhello", "hello", "header Content-Type is longer"),
        (HEAD + b"Subject: " + b"x" * 9000 + b"\r\n\r\nhello", "hello", "header Subject is longer"),
    ],
)
def test_broken_messages_are_read_as_far_as_possible(raw: bytes, text: str, defect: str) -> None:
    """Broken MIME still gives its text, and names what was broken."""
    mail = read_message(raw)
    assert mail.text == text
    assert any(defect in one for one in mail.defects), mail.defects


def test_message_inside_a_message_is_an_attachment() -> None:
    """A forwarded message is listed, and its words are not taken for the sender's."""
    inner = EmailMessage(policy=SMTP)
    inner["Subject"] = "Old"
    inner.set_content("viagra viagra")
    message = EmailMessage(policy=SMTP)
    message["From"] = "a@b.co"
    message.set_content("See below.")
    message.add_attachment(inner)
    mail = read_message(message.as_bytes())
    assert mail.text == "See below."
    [attachment] = mail.attachments
    assert attachment.type == "message/rfc822"
    assert attachment.size > 10


@pytest.mark.parametrize("depth", [10, 150, 400, 700, 30_000])
def test_messages_inside_messages_without_end(depth: int) -> None:
    """However deep messages are nested, the outermost is read."""
    nested = b"From: a@b.co\r\n" + b"Content-Type: message/rfc822\r\n\r\n" * depth + b"Subject: x\r\n\r\nhi"
    mail = read_message(nested)
    assert mail.sender == "a@b.co"
    assert [one.type for one in mail.attachments] == ["message/rfc822"]


def test_long_message_is_read_in_time() -> None:
    """A message of 200 KB is read whole up to the limit, and soon."""
    began = time.perf_counter()
    mail = read_message(HEAD + b"Subject: long\r\n\r\n" + b"All work and no play. \r\n" * 9000)
    assert len(mail.text) == 100_000
    assert any("cut" in one for one in mail.defects)
    assert time.perf_counter() - began < 20


@pytest.mark.parametrize(
    "raw",
    [
        HEAD + b"Content-Type: text/plain; " + b"a=b; " * 100_000 + b"\r\n\r\nx",
        b"".join(
            b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (i, i) for i in range(2000)
        ),
        HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\n\r\n" * 50_000,
        HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"\r--b\r\r\r" * 50_000,
        HEAD + b"Content-Type: text/plain; charset=punycode\r\n\r\n" + b"a-" + b"b9" * 100_000,
        HEAD + b"Content-Type: text/html\r\n\r\n" + b"<a " * 30_000,
        HEAD + b"Content-Type: text/html\r\n\r\n" + b"<a b='<" * 20_000,
        HEAD + b"Content-Type: text/html\r\n\r\n" + b"<!--" * 30_000,
        HEAD + b"Content-Type: text/html\r\n\r\n" + b"<![x" * 30_000,
        b"From: " + b"a@b.co, " * 50_000 + b"\r\n\r\nx",
    ],
    ids=[
        "parameters",
        "nested",
        "parts",
        "parts-cr",
        "punycode",
        "tags",
        "quotes",
        "comments",
        "cdata",
        "from",
    ],
)
def test_messages_made_to_be_slow_are_not(raw: bytes) -> None:
    """Input on which the standard parsers take minutes is read soon."""
    began = time.perf_counter()
    read_message(raw)
    assert time.perf_counter() - began < 20


@pytest.mark.parametrize(
    ("header", "field"),
    [
        (b"Auto-Submitted: auto-replied", "automatic"),
        (b"Precedence: auto_reply", "automatic"),
        (b"Return-Path: <>", "automatic"),
        (b"From: no-reply@shop.example", "automatic"),
        (b"List-Unsubscribe: <mailto:x@y.z>", "bulk"),
        (b"Precedence: bulk", "bulk"),
        (b"X-Spam-Flag: YES", "marked_spam"),
        (b"X-Priority: 1 (Highest)", "urgent"),
        (b"Importance: High", "urgent"),
    ],
)
def test_headers_that_change_the_judgement(header: bytes, field: str) -> None:
    """Machines, mass mail, filtered mail and mail marked urgent are recognised by their headers."""
    assert getattr(read_message(header + b"\r\n\r\nhello"), field) is True
    assert getattr(read_message(HEAD + b"\r\nhello"), field) is False


def test_controls_cannot_reach_a_result() -> None:
    """Control characters and lines hidden in encoded words are flattened."""
    mail = read_message(b"Subject: =?utf-8?q?one=0D=0ABcc:_x=00?=\r\n\r\na\x00b\x1b[31m")
    assert mail.subject == "one Bcc: x"
    assert mail.text == "ab[31m"


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=300),
    st.sampled_from([b"", HEAD, b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"]),
)
def test_no_bytes_at_all_make_it_fail(raw: bytes, head: bytes) -> None:
    """Whatever bytes come, reading them returns a message."""
    assert read_message(head + raw).text is not None
    assert read_message((head + raw).decode("latin-1")).text is not None


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="<>!-/ap&;#x'\"= \n", max_size=200))
def test_no_html_makes_it_fail(html: str) -> None:
    """Whatever HTML comes, its text can be had."""
    assert isinstance(text_of_html(html), str)
