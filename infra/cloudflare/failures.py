"""What Cloudflare's refusals mean. Its error codes belong to a product: the same number differs elsewhere.

One table of rows, read from the top: the first row that fits says which class an answer is and what a person
can do about it. Where no row fits, the HTTP status decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple

from infra.provider import ProviderFailed, Unread

Reach = Literal["one", "kind", "all"]


class CloudflareError(ProviderFailed):
    """Base of everything that goes wrong with a call.

    `number` is Cloudflare's own code, None where no such answer came; `hint` what a person can do.
    """

    title = "Cloudflare refused"
    meaning: ClassVar[str] = "refused"
    """One word for reports, where Cloudflare gave no code."""
    reaches: ClassVar[Reach] = "one"

    def __init__(self, detail: str, *, number: int | None = None, hint: str = "") -> None:
        super().__init__(
            detail, word=str(number) if number else self.meaning, hint=hint or self.title, reach=self.reaches
        )
        self.number = number


class Refused(CloudflareError):
    """The request itself was wrong: a name, a script, a field. The same call fails again."""


class Denied(CloudflareError):
    """The token is good, but may not do this."""

    title = "The token lacks a permission"
    meaning = "denied"
    reaches = "kind"


class BadToken(CloudflareError):
    """The token is none that the API knows."""

    title = "The token is not valid"
    meaning = "bad_token"
    reaches = "all"


class WrongPlace(CloudflareError):
    """The token may not be used from this machine's address: no permission would help."""

    title = "The token may not be used from here"
    meaning = "wrong_place"
    reaches = "all"


class WrongAccount(CloudflareError):
    """There is no such account, or the id is malformed."""

    title = "There is no such account"
    meaning = "wrong_account"
    reaches = "all"


class NotEnabled(CloudflareError):
    """The product is off until a person turns it on in the dashboard."""

    title = "The product is not enabled on this account"
    meaning = "not_enabled"
    reaches = "kind"


class Exists(CloudflareError):
    """Something of that name is there already. Whoever gets this has to go and look it up."""

    title = "It exists already"
    meaning = "exists"


class Missing(CloudflareError):
    """It is not there, or not yet, or in another jurisdiction."""

    title = "It does not exist"
    meaning = "missing"


class Full(CloudflareError):
    """The account may not have more of these."""

    title = "The account is at its limit"
    meaning = "full"
    reaches = "kind"


class Unsupported(CloudflareError):
    """The API does not offer this call to tokens. No permission would help."""

    title = "The API does not offer this"
    meaning = "unsupported"


class Unknown(CloudflareError):
    """No answer, or none that says anything: what was asked may or may not have been done."""

    title = "Cloudflare gave no usable answer"
    meaning = "unknown"
    retryable = True
    wait: float | None = None
    """Seconds that Cloudflare asked to wait."""
    unsent = False
    """Whether it is certain that nothing was sent."""
    final = False
    """Whether the next attempt would end the same way."""


class Throttled(Unknown):
    """Too many calls, by Cloudflare's count or by ours. Nothing was done. It ends the pass."""

    title = "Too many calls to Cloudflare"
    meaning = "throttled"
    reaches = "all"


class Incomplete(Unknown):
    """A list whose end cannot be proved. It must not be used as if it were whole."""

    title = "The list cannot be shown to be complete"
    meaning = "incomplete"


class Garbled(Unknown):
    """A success whose answer has another shape than it should: what was asked for may be done."""

    title = "Cloudflare's answer has an unknown shape"
    meaning = "garbled"


class Trouble(NamedTuple):
    """What a failed answer says: Cloudflare's code, 0 where it gives none, and its message."""

    code: int
    message: str


class Row(NamedTuple):
    """One line of the table. Empty or 0 means any; `says` is a part of the message, in lower case."""

    error: type[CloudflareError]
    product: str = ""
    operation: str = ""
    code: int = 0
    status: int = 0
    says: str = ""
    hint: str = ""

    def fits(self, product: str, operation: str, status: int, trouble: Trouble) -> bool:
        """Whether this row speaks of that answer."""
        return (
            self.product in {"", product}
            and self.operation in {"", operation}
            and self.code in {0, trouble.code}
            and self.status in {0, status}
            and self.says in trouble.message.lower()
        )


PERMISSIONS = (
    "The token is known but may not do this on this account. Give it edit rights on Workers Scripts, Workers "
    "KV Storage and Workers R2 Storage (D1 and Queues where they are used) and read rights on Account "
    "Settings, for this very account; 'missing' names the groups."
)
_COPY_AGAIN = (
    "Copy the token again: whole, without quotes or blanks, and not the global API key. If it was rolled or "
    "deleted, create another."
)
_PLACE = (
    "The token has a client IP condition. Add this machine's outgoing address to it or remove the condition; "
    "addresses of serverless platforms change."
)
_ACCOUNT = "CF_ACCOUNT_ID must be the 32 hexadecimal digits that the dashboard shows for the account."
_ENABLE_R2 = "Open R2 in the Cloudflare dashboard once and accept its terms; no token can do that."
_ENABLE_WORKERS = "Open Workers & Pages in the Cloudflare dashboard once; no token can do that."
_SUBDOMAIN = "Open Workers & Pages in the dashboard once and choose the account's workers.dev subdomain."
_EMAIL = "Confirm the e-mail address of the Cloudflare account, then try again."
_PAID = "This needs the Workers Paid plan."
_TAKEN = "Another call made it, or it stands in another jurisdiction: see what diagnose lists."

TABLE: Sequence[Row] = (
    # Answers that mean the same everywhere. A status narrows a number that some product uses otherwise.
    Row(Throttled, status=429),
    Row(Throttled, code=971),
    Row(Throttled, "r2", code=10058),
    Row(WrongPlace, code=9109, says="from location", hint=_PLACE),
    Row(Denied, code=9109),
    Row(BadToken, code=6003, hint=_COPY_AGAIN),
    Row(BadToken, code=9106, hint=_COPY_AGAIN),
    Row(WrongAccount, code=7003, hint=_ACCOUNT),
    Row(BadToken, "tokens", "verify", 1000, hint=_COPY_AGAIN),
    Row(BadToken, "tokens", "verify", 1001, hint=_COPY_AGAIN),
    Row(Denied, code=10000, status=403, hint=PERMISSIONS),
    Row(Denied, code=10000, status=401, hint=PERMISSIONS),
    Row(Unsupported, code=10000, status=405),
    Row(Unsupported, code=10405),
    Row(Unsupported, code=7001),
    Row(Denied, status=403, says="requires permission"),
    # Workers KV
    Row(Exists, "kv", "create", 10014, hint=_TAKEN),
    Row(Refused, "kv", "create", 10019, hint="A namespace needs a title."),
    Row(Missing, "kv", code=10013),
    # R2
    Row(NotEnabled, "r2", code=10042, hint=_ENABLE_R2),
    Row(Exists, "r2", "create", 10004, hint=_TAKEN),
    Row(Exists, "r2", "create", 10073, hint=_TAKEN),
    Row(
        Refused,
        "r2",
        code=10005,
        hint="A bucket name has 3 to 63 lower-case letters, digits or hyphens, and no hyphen at either end.",
    ),
    Row(Missing, "r2", code=10006),
    Row(Full, "r2", "create", 10009),
    Row(Denied, "r2", code=10002),
    Row(Denied, "r2", code=10003),
    Row(Unknown, "r2", code=10001),
    Row(Unknown, "r2", code=10043),
    # Workers
    Row(NotEnabled, "workers", "subdomain", 10007, hint=_SUBDOMAIN),
    Row(Missing, "workers", code=10007),
    Row(NotEnabled, "workers", code=10015, hint=_ENABLE_WORKERS),
    Row(NotEnabled, "workers", code=10063, hint=_SUBDOMAIN),
    Row(NotEnabled, "workers", code=10034, hint=_EMAIL),
    Row(NotEnabled, "workers", code=10075, hint=_PAID),
    Row(Denied, "workers", code=10023, hint="The Worker is bound to something that the token may not use."),
    Row(Unknown, "workers", code=10002),
    Row(Unknown, "workers", code=10014),
    Row(Refused, "workers", "upload", 10021, hint="The script or its metadata did not pass validation."),
    Row(Refused, "workers", "upload", 10068, hint="The script did not pass validation."),
    Row(Full, "workers", "upload", 10027, hint="The script is too large for the account's plan."),
    # D1
    Row(Exists, "d1", "create", 7502, hint=_TAKEN),
    Row(Full, "d1", "create", 7406),
    Row(Missing, "d1", code=7404),
    Row(Refused, "d1", code=7400, hint="A name has letters, digits, hyphens and underscores."),
    # Queues
    Row(Exists, "queues", "create", 11009, hint=_TAKEN),
    Row(Refused, "queues", code=11003, hint="A name has lower-case letters, digits and hyphens."),
    # Where only the status speaks
    Row(BadToken, status=401, hint=_COPY_AGAIN),
    Row(Denied, status=403),
    Row(Missing, status=404),
    Row(Unsupported, status=405),
    Row(Unknown, status=408),
)


def failure(product: str, operation: str, status: int, troubles: Sequence[Trouble]) -> CloudflareError:
    """Return the error of a failed answer. `troubles` may be empty: a page of HTML says nothing.

    Several are read in order; the first that any row with a code knows decides.
    """
    listed = list(troubles) or [Trouble(0, f"HTTP {status} without a message")]
    for trouble in listed:
        for row in TABLE:
            if row.code and row.fits(product, operation, status, trouble):
                return _error(row.error, row.hint, trouble)
    for row in TABLE:
        if not row.code and row.fits(product, operation, status, listed[0]):
            return _error(row.error, row.hint, listed[0])
    kind = Unknown if status >= 500 or status < 400 else Refused
    return _error(kind, "", listed[0])


def _error(kind: type[CloudflareError], hint: str, trouble: Trouble) -> CloudflareError:
    text = trouble.message or kind.title
    shown = f"{text} [code: {trouble.code}]" if trouble.code else text
    return kind(shown, number=trouble.code or None, hint=hint)


def kind_of(product: str, unread: Unread) -> type[CloudflareError]:
    """Return the class of the failure that a list of `product` ended in, from how it was reported."""
    code = int(unread.code) if unread.code.isdigit() else 0
    for row in TABLE if code else ():
        if row.code == code and row.fits(product, "list", row.status, Trouble(code, unread.message)):
            return row.error
    named = {one.meaning: one for one in (Denied, BadToken, WrongPlace, WrongAccount, NotEnabled, Refused)}
    return named.get(unread.code, Unknown)
