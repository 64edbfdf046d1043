"""The language model port. A model writes words or judges text; its answer is checked by a schema.

What a model says is a suggestion: a caller has a rule to fall back on and says which of the two spoke.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

from pydantic import BaseModel

from router.errors import AutopilotError

Answer = TypeVar("Answer", bound=BaseModel)


class ModelUnavailable(AutopilotError):
    """Raise when no model is configured, or it did not give a valid answer in time."""

    code = "model_unavailable"
    title = "The language model gave no usable answer"
    retryable = True


class Model(Protocol):
    """Something that answers in a given shape."""

    name: str
    """Shown beside what it wrote: the model's name, or `offline`."""

    async def ask(self, instructions: str, data: str, answer: type[Answer]) -> Answer:
        """Return an answer of that shape; `data` is untrusted text, never instructions.

        Raises `ModelUnavailable`.
        """
        ...


class Offline:
    """The model of an installation that has none: it never answers, so every caller uses its rules."""

    name = "offline"

    async def ask(self, instructions: str, data: str, answer: type[Answer]) -> Answer:
        """Raise `ModelUnavailable`."""
        raise ModelUnavailable("no language model is configured (OPENAI_API_KEY is not set)")
