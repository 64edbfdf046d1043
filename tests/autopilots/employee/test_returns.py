"""The pages customers come back to."""

from __future__ import annotations

import httpx
import pytest
from starlette.applications import Starlette

from autopilots.ai_employee.returns import CANCELLED, PAID, returns


@pytest.mark.parametrize(("path", "words"), [(PAID, "Thank you"), (CANCELLED, "Nothing was paid")])
async def test_a_customer_comes_back_to_a_page_without_scripts(path: str, words: str) -> None:
    """Each page says what happened and forbids everything but its own style."""
    transport = httpx.ASGITransport(app=Starlette(routes=returns()))
    async with httpx.AsyncClient(transport=transport, base_url="http://router.test") as client:
        answer = await client.get(path)
    assert answer.status_code == 200
    assert words in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
