"""Fixtures of all tests of the service: a small shop, trained once, an app, a page in a browser."""

from contextlib import suppress

import pytest
from asking import user
from test_serving_shop import art, base, client, folder

with suppress(pytest.skip.Exception):  # without playwright only the page's tests are skipped
    from pages import browser, locked, page, served, trained

__all__ = [
    "art",
    "base",
    "browser",
    "client",
    "folder",
    "locked",
    "page",
    "served",
    "trained",
    "user",
]
