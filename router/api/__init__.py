"""The JSON endpoints, one module per resource. Each parses, calls one function and renders."""
