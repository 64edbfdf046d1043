"""Signatures against the published vector and an independent implementation of Standard Webhooks."""

from __future__ import annotations

import base64
import binascii
import datetime
import json
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from infra.signing import new_secret, sign

VECTOR = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_the_vector_of_the_specification() -> None:
    """The example of the specification comes out to the letter."""
    signature = sign(VECTOR, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_thousand_messages_both_ways() -> None:
    """The other implementation verifies what we sign, and signs what we sign."""
    rng = random.Random(1000)
    now = int(time.time())
    moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
    for number in range(1000):
        secret = "whsec_" + base64.b64encode(rng.randbytes(rng.randint(24, 64))).decode()
        text = "".join(chr(rng.randrange(32, 0xD800)) for _ in range(50))
        body = json.dumps({"n": number, "text": text}, ensure_ascii=bool(number % 2)).encode()
        ours = sign(secret, f"msg_{number}", now, body)
        headers = {"webhook-id": f"msg_{number}", "webhook-timestamp": str(now), "webhook-signature": ours}
        assert Webhook(secret).verify(body, headers) == {"n": number, "text": text}
        assert Webhook(secret).sign(f"msg_{number}", moment, body.decode()) == ours


@settings(max_examples=30)
@given(st.sampled_from(["id", "timestamp", "body", "secret"]))
def test_any_change_breaks_the_signature(part: str) -> None:
    """Another id, time, body or secret does not verify."""
    now = int(time.time())
    secret = new_secret()
    headers = {
        "webhook-id": "msg_2" if part == "id" else "msg_1",
        "webhook-timestamp": str(now + (part == "timestamp")),
        "webhook-signature": sign(secret, "msg_1", now, b'{"a":1}'),
    }
    other = new_secret() if part == "secret" else secret
    with pytest.raises(WebhookVerificationError):
        Webhook(other).verify(b'{"a":2}' if part == "body" else b'{"a":1}', headers)


def test_secrets_are_as_the_specification_wants_them() -> None:
    """A secret is 32 random bytes behind the prefix, and never the same twice."""
    secrets = {new_secret() for _ in range(100)}
    assert len(secrets) == 100
    for secret in secrets:
        assert secret.startswith("whsec_")
        assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32


def test_a_secret_that_is_no_base64_is_not_used() -> None:
    """A damaged secret fails loudly instead of signing with something else."""
    with pytest.raises(binascii.Error):
        sign("whsec_not*base64", "msg_1", 0, b"{}")
