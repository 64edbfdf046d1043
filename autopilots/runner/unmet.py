"""How the runner says that something came out otherwise than expected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from router.errors import AutopilotError, Conflict


class Unmet(AutopilotError):
    """Raise when what was done, or looked at, is not as expected.

    `unmet` has a sentence for each thing; `result` is what a success would have answered, where there is one.
    """

    code = "unmet"
    title = "It did not come out as expected"

    def __init__(self, unmet: Sequence[str], result: dict[str, Any] | None = None, **more: Any) -> None:
        super().__init__("; ".join(unmet), unmet=list(unmet), result=result, **more)
        self.done = True


class MayHaveRun(Conflict):
    """Raise when something that must not be done twice was begun before, and nobody lived to see its end.

    It was done, in part or whole, or not at all. Somebody looks, or a check says.
    """

    title = "It was begun before, and nobody knows how it ended"
