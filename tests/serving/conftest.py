"""Fixtures of all tests of the service: a small shop, trained once, and an app that serves it."""

from test_serving_shop import art, base, client, folder

__all__ = ["art", "base", "client", "folder"]
