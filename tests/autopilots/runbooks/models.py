"""Language models for tests: each reads its answers as the real adapter does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from infra.model import Answer, ModelUnavailable


class Saying:
    """A model that says a text, or what a function makes of the data; what is no valid answer is none."""

    name = "stub"

    def __init__(self, *says: str | dict[str, Any] | Callable[[str], dict[str, Any]]) -> None:
        self.says = says
        self.asked: list[str] = []

    async def ask(self, instructions: str, data: str, answer: type[Answer]) -> Answer:
        said = self.says[min(len(self.asked), len(self.says) - 1)]
        self.asked.append(data)
        said = said(data) if callable(said) else said
        try:
            return answer.model_validate_json(said if isinstance(said, str) else json.dumps(said))
        except ValidationError as error:
            raise ModelUnavailable("stub gave no valid answer") from error


class Down:
    """A model that does not answer."""

    name = "down"

    async def ask(self, instructions: str, data: str, answer: type[Answer]) -> Answer:
        raise ModelUnavailable("down did not answer")


class Slow:
    """A model that never comes to an end."""

    name = "slow"

    async def ask(self, instructions: str, data: str, answer: type[Answer]) -> Answer:
        await asyncio.Event().wait()
        raise AssertionError


class Unchecked:
    """A model that hands out answers of the right type that nobody has checked."""

    name = "unchecked"

    def __init__(self, **says: Any) -> None:
        self.says = says

    async def ask(self, instructions: str, data: str, answer: type[Answer]) -> Answer:
        return answer.model_construct(**self.says)
