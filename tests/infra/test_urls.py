"""One spelling per URL: what two parsers may read differently is refused."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from infra.outbound import Url, parse_url
from router.errors import EndpointRefused


@pytest.mark.parametrize(
    ("text", "authority", "target"),
    [
        ("https://A.Example.COM", "a.example.com", "/"),
        ("HTTPS://a.example.com.:443/", "a.example.com", "/"),
        ("http://a.example.com:80/x", "a.example.com", "/x"),
        ("http://a.example.com:443/x/", "a.example.com:443", "/x"),
        ("https://a.example.com:00443//", "a.example.com", "/"),
        ("https://a.example.com?key=1", "a.example.com", "/?key=1"),
        ("https://a.example.com/?key=1&b=/", "a.example.com", "/?key=1&b=/"),
        ("https://a.example.com/b?", "a.example.com", "/b?"),
        ("https://[2606:4700:0:0::AB]:8443/b", "[2606:4700::ab]:8443", "/b"),
        ("https://1.2.3.4./b", "1.2.3.4", "/b"),
        ("https://BÜCHER.example/b", "xn--bcher-kva.example", "/b"),
        ("https://a_b.example/%2e%2e/;v=1", "a_b.example", "/%2e%2e/;v=1"),
    ],
)
def test_a_url_has_one_spelling(text: str, authority: str, target: str) -> None:
    """Case, default port, root dot and trailing slash make no difference."""
    url = parse_url(text)
    assert (url.authority, url.target()) == (authority, target)


def test_a_suffix_goes_between_path_and_query() -> None:
    """The path of an endpoint comes before what the router adds, its query after."""
    assert parse_url("https://a.example/base/?k=1").target("/tasks") == "/base/tasks?k=1"
    assert parse_url("https://a.example").target("/tasks") == "/tasks"
    assert parse_url("https://a.example?k=1").target("/tasks") == "/tasks?k=1"


@pytest.mark.parametrize(
    "text",
    [
        *("https://a.example:/", "https://a.example:0", "https://a.example:65536", "https://a.example:8e1"),
        *("https://a.example:+80", "https://a.example:\u0668\u0660", "https://[::1", "https://::1]"),
        *("https://[::1]x", "https://x[::1]", "https://[]", "https://[::1]]", "https://2606:4700::1"),
        *("https://[2606:4700::1%25eth0]", "https://[2606:4700::1%eth0]", "https://[2606::1%\u00e9]"),
        *(
            "https://a..example",
            "https://.example",
            "https://-a.example",
            "https://a-.example",
            "https://...",
        ),
        *(f"https://{'a' * 64}.example", f"https://{'a.' * 127}example", f"https://a.example/{'x' * 2048}"),
        *("https://a.example/caf\u00e9", "https://a.example/#top", "https://a.example#", "https://1.2.3"),
        *("https://1.2.3.4.5", "https://a.1", "https://a.0x1", "https://256.1.1.1", "https://01.2.3.4"),
        *("https://\ud800.example", "https://stra\u00dfe.example", "https://b\u0075\u0308cher.example"),
        *("https://a\u3002example", "https://a.example\u00a0", "https://a\u200b.example"),
    ],
)
def test_what_two_parsers_may_read_differently_is_refused(text: str) -> None:
    """A URL that is odd in any way is refused with our own error, not taken at a guess."""
    with pytest.raises(EndpointRefused):
        parse_url(text)


LABELS = st.from_regex(r"[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,8}[a-zA-Z0-9_])?", fullmatch=True)
HOSTS = st.one_of(
    st.lists(LABELS, min_size=1, max_size=4).map(".".join),
    st.lists(st.text("abcäöüñçéδжя", min_size=1, max_size=6), min_size=1, max_size=3).map(".".join),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda one: f"[{one.exploded}]"),
)
REST = st.text("abc/%2e;=&~:@!$'()*+,.-_", max_size=20)
URLS = st.builds(
    "{}://{}{}{}{}{}".format,
    st.sampled_from(["https", "http", "HttpS", "ftp"]),
    HOSTS,
    st.sampled_from(["", "", "."]),
    st.sampled_from(["", "", ":443", ":080", ":8443"]),
    st.one_of(st.just(""), REST.map("/{}".format)),
    st.one_of(st.just(""), REST.map("?{}".format)),
)


def written(url: Url) -> str:
    """Return a URL in its one spelling."""
    return f"{url.scheme}://{url.authority}{url.target()}"


@given(URLS)
@example("https://a.example?x")
@example("https://[::1]")
def test_the_one_spelling_is_its_own(text: str) -> None:
    """Parsing the one spelling of a URL changes nothing, and the host is lower-case ASCII."""
    try:
        url = parse_url(text)
    except EndpointRefused:
        return
    assert parse_url(written(url)) == url
    assert url.host.isascii()
    assert url.host == url.host.lower()


@given(URLS)
def test_other_parsers_see_the_host_that_we_checked(text: str) -> None:
    """The standard library and httpx find the host and port we found, in the text and in its one spelling."""
    try:
        url = parse_url(text)
    except EndpointRefused:
        return
    for one in (text, written(url)):
        split = urlsplit(one)
        assert split.hostname is not None
        host = split.hostname.removesuffix(".")
        ours = url.address or url.host
        theirs: object = ipaddress.ip_address(host) if url.address else host.encode("idna").decode()
        assert theirs == ours
        assert (split.port or {"http": 80, "https": 443}[split.scheme]) == url.port
    assert httpx.URL(written(url)).host.encode("idna").decode() == url.host


@given(
    st.one_of(st.text(max_size=60), st.text(max_size=40).map("https://{}".format), URLS.map(lambda u: u[:-1]))
)
def test_any_text_is_a_url_or_refused(text: str) -> None:
    """No text makes the parser fail in any way but its own."""
    try:
        url = parse_url(text)
    except EndpointRefused:
        return
    f"{url.target()}{url.authority}".encode("ascii")
    assert not any(character in written(url) for character in "\r\n\t \\\0")
