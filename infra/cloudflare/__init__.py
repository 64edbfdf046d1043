"""Cloudflare as a provider of storage. Imported only where there is a token: see `router.wiring`."""
