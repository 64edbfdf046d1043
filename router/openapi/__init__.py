"""The OpenAPI 3.1 document of every endpoint: pure data, and the function that puts it together."""

from router.openapi.document import Entry, document

__all__ = ["Entry", "document"]
