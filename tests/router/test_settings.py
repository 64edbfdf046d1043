"""Settings: every variable, every problem at once, and secrets that do not print."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.addresses import Address
from infra.outbound import Allowed, Url, parse_url
from router.errors import Invalid
from router.settings import Secret, Settings, is_loopback, read, read_client

KEY = "0123456789abcdef"
HOOK = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
HOOK2 = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"


def problems(environment: dict[str, str], host: str = "127.0.0.1") -> dict[str, str]:
    """Return what is wrong, by variable."""
    with pytest.raises(Invalid) as refused:
        read(environment, host=host)
    return {problem.field: problem.message for problem in refused.value.problems}


def address(text: str) -> Address:
    """Return an address."""
    found = parse_url(f"http://{text}").address
    assert found is not None
    return found


def test_without_variables_the_defaults_hold() -> None:
    """Local, the embedded store, loopback endpoints, no services."""
    settings = read({})
    assert (settings.auth, settings.table, settings.data) == ("local", "", Path(".autopilot"))
    assert not settings.api_key
    assert settings.allowed.name("localhost")
    for text in ("127.0.0.1", "127.9.9.9", "[::1]"):
        assert settings.allowed.holds(address(text))
    assert not settings.allowed.holds(address("10.0.0.1"))
    assert (settings.model, settings.mail_from) == ("gpt-4o-mini", "autopilot@localhost")
    assert not any((settings.cf_token, settings.openai_key, settings.stripe_key, settings.smtp_url))


def test_every_variable_is_read() -> None:
    """Each one ends up in its place."""
    settings = read(
        {
            "AUTOPILOT_AUTH": "required",
            "AUTOPILOT_API_KEY": KEY,
            "AUTOPILOT_TABLE": "table",
            "AUTOPILOT_DATA": "/var/data",
            "AUTOPILOT_ALLOW_ENDPOINTS": " build.internal , 10.0.0.0/8,,fd00::/8 ",
            "AUTOPILOT_PUBLIC_URL": "https://router.example/",
            "DYNAMODB_ENDPOINT_URL": "http://127.0.0.1:8000",
            "CF_API_TOKEN": "cf",
            "OPENAI_API_KEY": "openai",
            "OPENAI_BASE_URL": "https://models.example/v1",
            "AUTOPILOT_MODEL": "small",
            "STRIPE_API_KEY": "stripe",
            "STRIPE_API_BASE": "https://stripe.example",
            "AUTOPILOT_SMTP_URL": "smtps://u:p@mail.example",
            "AUTOPILOT_MAIL_FROM": "router@example.org",
            "AUTOPILOT_WEBHOOK_SECRET": f" {HOOK} {HOOK2}  ",
            "AUTOPILOT_RATE_LIMIT": "600/60",
            "AUTOPILOT_MAX_CONCURRENCY": "7",
            "AUTOPILOT_AUDIT_KEY": "a" * 32,
            "AUTOPILOT_HEAL_MAX_CREATIONS": "3",
            "AUTOPILOT_RECREATE_VANISHED": "yes",
        }
    )
    assert (settings.heal_max_creations, settings.recreate_vanished) == (3, True)
    assert (settings.rate, settings.concurrency) == ((600, 60), 7)
    assert settings.audit_key.reveal() == "a" * 32
    assert (settings.auth, settings.table, settings.data) == ("required", "table", Path("/var/data"))
    assert settings.public_url == "https://router.example"
    assert settings.dynamodb_endpoint == "http://127.0.0.1:8000"
    assert (settings.openai_base_url, settings.model) == ("https://models.example/v1", "small")
    assert (settings.stripe_base_url, settings.mail_from) == ("https://stripe.example", "router@example.org")
    secrets = (settings.api_key, settings.cf_token, settings.openai_key, settings.stripe_key)
    assert [secret.reveal() for secret in secrets] == [KEY, "cf", "openai", "stripe"]
    assert settings.smtp_url.reveal() == "smtps://u:p@mail.example"
    assert [secret.reveal() for secret in settings.webhook_secrets] == [HOOK, HOOK2]
    assert {HOOK, HOOK2} <= set(settings.secrets())
    assert HOOK not in repr(settings)
    assert settings.allowed.name("build.internal")
    assert settings.allowed.holds(address("10.1.2.3"))
    assert settings.allowed.holds(address("[fd00::1]"))
    assert not settings.allowed.holds(address("127.0.0.1"))


def test_a_variable_that_is_empty_is_not_set() -> None:
    """As shells and compose files leave them."""
    empty = dict.fromkeys(
        ("AUTOPILOT_AUTH", "AUTOPILOT_API_KEY", "AUTOPILOT_DATA", "AUTOPILOT_MODEL", "AUTOPILOT_MAIL_FROM"),
        "",
    )
    settings = read({**empty, "AUTOPILOT_ALLOW_ENDPOINTS": ""})
    assert (settings.auth, settings.data, settings.model) == ("local", Path(".autopilot"), "gpt-4o-mini")
    assert settings.allowed.name("localhost")


@pytest.mark.parametrize(
    ("environment", "host", "auth"),
    [
        ({}, "127.0.0.1", "local"),
        ({}, "localhost", "local"),
        ({}, "::1", "local"),
        ({"AUTOPILOT_API_KEY": KEY}, "127.0.0.1", "required"),
        ({"AUTOPILOT_API_KEY": KEY, "AUTOPILOT_AUTH": "local"}, "127.0.0.1", "local"),
        ({"AUTOPILOT_API_KEY": KEY}, "0.0.0.0", "required"),
        ({"AUTOPILOT_API_KEY": KEY}, "router.example", "required"),
    ],
)
def test_a_key_is_required_wherever_others_could_call(
    environment: dict[str, str], host: str, auth: str
) -> None:
    """Open only on this machine, and there only while no key is set or it is asked for."""
    settings = read(environment, host=host)
    assert settings.auth == auth
    assert settings.allowed.name("localhost") is (auth == "local")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "router.example", ""])
def test_serving_others_without_a_key_is_refused(host: str) -> None:
    """Whether the mode is asked for or follows from the host."""
    assert set(problems({}, host)) == {"AUTOPILOT_API_KEY"}
    assert set(problems({"AUTOPILOT_AUTH": "required"}, host)) == {"AUTOPILOT_API_KEY"}
    for environment in ({}, {"AUTOPILOT_API_KEY": KEY}):
        found = problems({**environment, "AUTOPILOT_AUTH": "local"}, host)
        assert set(found) == {"AUTOPILOT_AUTH"}


def test_a_required_key_must_be_there() -> None:
    """Also on this machine."""
    assert set(problems({"AUTOPILOT_AUTH": "required"})) == {"AUTOPILOT_API_KEY"}


def test_a_short_key_is_refused() -> None:
    """Where others can call: 15 characters are too few there, 16 are enough, and here any will do."""
    assert set(problems({"AUTOPILOT_API_KEY": KEY[:15]}, "0.0.0.0")) == {"AUTOPILOT_API_KEY"}
    assert read({"AUTOPILOT_API_KEY": KEY[:16]}, host="0.0.0.0").api_key
    assert read({"AUTOPILOT_API_KEY": "k"}).auth == "required"


@pytest.mark.parametrize(
    "entry", ["10.0.0.0/33", "10.0.0.1/8", "a b", "http://x", "x/y", "1.2.3", "[::1]", "a..b"]
)
def test_an_allow_list_that_cannot_be_read_is_refused(entry: str) -> None:
    """By the variable's name, whichever rule it breaks: a typing error must not open or close more."""
    assert set(problems({"AUTOPILOT_ALLOW_ENDPOINTS": f"localhost,{entry}"})) == {"AUTOPILOT_ALLOW_ENDPOINTS"}


@pytest.mark.parametrize("text", [HOOK[:-1], f"{HOOK},{HOOK2}", f"{HOOK} plain", HOOK.removeprefix("whsec_")])
def test_a_webhook_secret_that_is_none_is_refused_unshown(text: str) -> None:
    """One that could verify nothing stops the start, by the name of its variable alone."""
    found = problems({"AUTOPILOT_WEBHOOK_SECRET": text})
    assert set(found) == {"AUTOPILOT_WEBHOOK_SECRET"}
    assert "24 to 64 bytes" in found["AUTOPILOT_WEBHOOK_SECRET"]
    assert HOOK[6:20] not in str(found)


def test_without_a_webhook_secret_there_is_none() -> None:
    """Unset and blank are the same."""
    assert read({"AUTOPILOT_WEBHOOK_SECRET": " "}).webhook_secrets == read({}).webhook_secrets == ()


@pytest.mark.parametrize(
    ("token", "why"),
    [
        ("cfk_" + "k" * 40, "is a global API key"),
        ("two words", "copy it again"),
        ("line\nbreak", "copy it again"),
        ("tökén", "copy it again"),
    ],
)
def test_a_cloudflare_token_that_must_not_be_used_is_refused(token: str, why: str) -> None:
    """A key that may do everything, and what was copied wrongly; neither is shown."""
    found = problems({"CF_API_TOKEN": token})
    assert set(found) == {"CF_API_TOKEN"}
    assert why in found["CF_API_TOKEN"]
    assert token not in str(found)


def test_cloudflare_is_read_as_it_is_meant() -> None:
    """Blanks and line ends around a token or an id are what a file of secrets adds."""
    settings = read(
        {"CF_API_TOKEN": " cfut_x\n", "CF_ACCOUNT_ID": "abc\n", "CF_API_BASE": "https://api.example/v4/"}
    )
    assert settings.cf_token.reveal() == "cfut_x"
    assert (settings.cf_account, settings.cf_api_base) == ("abc", "https://api.example/v4")
    assert (read({}).cf_account, read({}).cf_api_base) == ("", "")


@pytest.mark.parametrize(
    "base", ["api.example", "http://api.example", "https://10.0.0.1", "http://127.0.0.1:1/v4"]
)
def test_an_api_that_may_not_be_called_is_refused(base: str) -> None:
    """At the start, not at the first call; what is allowed though it is not public may be one."""
    found = problems({"CF_API_BASE": base, "AUTOPILOT_ALLOW_ENDPOINTS": "192.168.0.1"})
    assert set(found) == {"CF_API_BASE"}
    assert "AUTOPILOT_ALLOW_ENDPOINTS" in found["CF_API_BASE"]
    assert read(
        {"CF_API_BASE": "http://127.0.0.1:1/v4", "AUTOPILOT_ALLOW_ENDPOINTS": "127.0.0.1"}
    ).cf_api_base


def test_all_problems_are_reported_together_and_show_no_secret() -> None:
    """Whoever sets a router up corrects everything at once."""
    found = problems(
        {"AUTOPILOT_AUTH": "maybe", "AUTOPILOT_API_KEY": "hush", "AUTOPILOT_ALLOW_ENDPOINTS": "10.0.0.0/99"},
        "0.0.0.0",
    )
    assert set(found) == {"AUTOPILOT_AUTH", "AUTOPILOT_API_KEY", "AUTOPILOT_ALLOW_ENDPOINTS"}
    assert "hush" not in str(found)


def test_secrets_print_as_stars() -> None:
    """In every way of turning settings into text."""
    names = ("AUTOPILOT_API_KEY", "CF_API_TOKEN", "OPENAI_API_KEY", "STRIPE_API_KEY", "AUTOPILOT_SMTP_URL")
    settings = read(dict.fromkeys(names, "hush-hush-hush-hush"))
    assert "hush" not in f"{settings} {settings!r} {settings.api_key} {settings.api_key!r}"
    assert str(Secret("x")) == "Secret('****')"
    assert (bool(Secret("")), bool(Secret("x"))) == (False, True)


def test_settings_do_not_change() -> None:
    """They are read once."""
    with pytest.raises(AttributeError):
        Settings().table = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.255.0.9", True),
        ("::1", True),
        ("[::1]", True),
        ("0.0.0.0", False),
        ("::", False),
        ("128.0.0.1", False),
        ("localhost.evil.example", False),
        ("", False),
        ("127.1", False),
        ("0x7f000001", False),
    ],
)
def test_which_hosts_are_this_machine(host: str, local: bool) -> None:
    """In their plain spelling only."""
    assert is_loopback(host) is local


def test_what_a_client_needs() -> None:
    """Where the router is, and the key if there is one."""
    assert read_client({}) == ("http://127.0.0.1:8080", "")
    environment = {"ORCHESTRATOR_URL": "https://router.example/", "AUTOPILOT_API_KEY": KEY}
    assert read_client(environment) == ("https://router.example", KEY)


def test_an_allow_list_of_its_own_replaces_the_default() -> None:
    """Who lists one host did not list loopback."""
    settings = read({"AUTOPILOT_ALLOW_ENDPOINTS": "Build.Internal."})
    assert settings.allowed == Allowed(frozenset({"build.internal"}))
    assert isinstance(parse_url("http://build.internal"), Url)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            ("AUTOPILOT_RATE_LIMIT", text)
            for text in ("600", "0/60", "60/0", "a/b", "-1/60", "1.5/60", "6/6/6")
        ),
        *(("AUTOPILOT_MAX_CONCURRENCY", text) for text in ("0", "-1", "many", "1e3", "\u0663", "9" * 20)),
        ("AUTOPILOT_AUDIT_KEY", "a" * 31),
        *(("AUTOPILOT_HEAL_MAX_CREATIONS", text) for text in ("-1", "1001", "all")),
        *(("AUTOPILOT_RECREATE_VANISHED", text) for text in ("true", "1", "YES", "maybe")),
    ],
)
def test_what_is_no_limit_or_key_is_refused(name: str, value: str) -> None:
    """A variable that is not what it has to be is named."""
    assert list(problems({name: value})) == [name]


def test_on_lambda_the_audit_needs_a_key_of_its_own() -> None:
    """A key in a file would be another one in each process."""
    there = {"AWS_LAMBDA_FUNCTION_NAME": "router"}
    assert list(problems(there)) == ["AUTOPILOT_AUDIT_KEY"]
    assert read({**there, "AUTOPILOT_AUDIT_KEY": "a" * 32}).audit_key


@pytest.mark.parametrize(
    ("url", "passwords"),
    [
        ("smtp://ann:p%40ss%2Fword@mail.example:587", {"p%40ss%2Fword", "p@ss/word"}),
        ("smtps://ann%40x:secret-word@mail.example", {"secret-word"}),
        ("smtp://:secret-word@mail.example", {"secret-word"}),
        ("smtp://ann@mail.example", set()),
        ("smtp://mail.example:587", set()),
    ],
)
def test_a_password_within_a_url_is_a_secret_of_its_own(url: str, passwords: set[str]) -> None:
    """A mail server may say it without the rest of the URL, and as it was sent."""
    assert set(read({"AUTOPILOT_SMTP_URL": url}).secrets()) == {url, *passwords}


def test_without_a_folder_there_is_no_runner(tmp_path: Path) -> None:
    """What else is said of it makes none."""
    assert read({"AUTOPILOT_RUNNER_ENV": "A", "AUTOPILOT_RUNNER_SHELL": "yes"}).runner is None


def test_the_runner_has_what_its_operator_names(tmp_path: Path) -> None:
    """A folder, a shell or none, variables by name and the plain ones: nothing else of the environment."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    settings = read(
        {
            "AUTOPILOT_DATA": str(tmp_path / "data"),
            "AUTOPILOT_RUNNER_ROOT": str(tmp_path / "link"),
            "AUTOPILOT_RUNNER_ENV": " VERCEL_TOKEN, NOT_SET ,,",
            "AUTOPILOT_RUNNER_SHELL": "yes",
            "VERCEL_TOKEN": "hush-hush-hush",
            "OTHER": "other",
            "PATH": "/bin",
            "HOME": "",
        }
    )
    assert settings.runner is not None
    assert settings.runner.root == tmp_path / "real"
    assert settings.runner.shell
    assert settings.runner.allowed == {"VERCEL_TOKEN", "NOT_SET"}
    assert {name: one.reveal() for name, one in settings.runner.given.items()} == {
        "VERCEL_TOKEN": "hush-hush-hush"
    }
    assert settings.runner.environment == {"PATH": "/bin"}
    assert "hush-hush-hush" in settings.secrets()
    assert "hush" not in repr(settings)
    assert not read({"AUTOPILOT_RUNNER_ROOT": str(tmp_path / "real")}).runner.shell  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("AUTOPILOT_RUNNER_ROOT", "{there}/nowhere"),
        ("AUTOPILOT_RUNNER_ROOT", "{there}/file"),
        ("AUTOPILOT_RUNNER_ROOT", "{there}"),
        ("AUTOPILOT_RUNNER_ROOT", "{there}/data"),
        ("AUTOPILOT_RUNNER_ROOT", "{there}/data/work"),
        ("AUTOPILOT_RUNNER_ENV", "A B"),
        ("AUTOPILOT_RUNNER_ENV", "A=1"),
        ("AUTOPILOT_RUNNER_ENV", "AUTOPILOT_API_KEY"),
        ("AUTOPILOT_RUNNER_ENV", "A,CF_API_TOKEN"),
        ("AUTOPILOT_RUNNER_ENV", "AWS_SECRET_ACCESS_KEY"),
        ("AUTOPILOT_RUNNER_SHELL", "true"),
    ],
)
def test_a_runner_nothing_can_be_made_of_is_refused(tmp_path: Path, variable: str, value: str) -> None:
    """No folder, one with the router's own data, the router's own secrets: each names its variable."""
    (tmp_path / "file").touch()
    (tmp_path / "root").mkdir()
    (tmp_path / "data/work").mkdir(parents=True)
    environment = {"AUTOPILOT_DATA": f"{tmp_path}/data", "AUTOPILOT_RUNNER_ROOT": f"{tmp_path}/root"}
    assert read(environment).runner is not None
    with pytest.raises(Invalid) as raised:
        read({**environment, variable: value.format(there=tmp_path)})
    assert [problem.field for problem in raised.value.problems] == [variable]
