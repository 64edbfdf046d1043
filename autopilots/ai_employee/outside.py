"""Failures of the systems outside: mail servers and payment providers."""

from __future__ import annotations

from router.errors import ForwardFailed


class OutsideDown(ForwardFailed):
    """Raise when an outside system could not be reached or failed. Nothing was done; later it may work."""

    title = "An outside system did not do its part"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, retryable=True)


class OutsideRefused(ForwardFailed):
    """Raise when an outside system refused us, such as our credentials. Trying again changes nothing."""

    title = "An outside system refused us"
    retryable = False

    def __init__(self, detail: str) -> None:
        super().__init__(detail, retryable=False)


class MaybeDone(ForwardFailed):
    """Raise when the connection broke at a point where the outside system may have done it or not."""

    title = "It is not known whether an outside system did its part"
    retryable = False

    def __init__(self, detail: str) -> None:
        super().__init__(detail, retryable=False)
