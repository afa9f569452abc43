"""Who may ask: names of hosts that the service answers to, and pages that may write.

A page of another site cannot pose as the service, and cannot write to it.
"""

import re
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope

from recsys_utils.serving.settings import Settings

HOST = re.compile(r"(\[[\da-f:.]+\]|[^\s\[\]:/@?#\\]+)(:\d+)?")
READING = ("GET", "HEAD", "OPTIONS")


def refusal(scope: Scope, config: Settings) -> tuple[int, str] | None:
    """Status and sentence for a request that must not be answered; None for the others."""
    headers = Headers(scope=scope)
    host = headers.get("host", "").lower()
    origin = headers.get("origin")
    name = HOST.fullmatch(host)
    if "*" not in config.allowed_hosts and (
        name is None or name[1].strip("[]") not in config.allowed_hosts
    ):
        return (
            400,
            f"the host is {host[:60]!r}: this service answers to the names in ALLOWED_HOSTS only",
        )
    if (
        scope["method"] in READING
        or origin is None
        or _netloc(origin) == host
        or {"*", origin} & set(config.cors_origins)
    ):
        return None
    return (
        403,
        (
            f"the origin is {origin[:60]!r}: a page of another site may not write here unless"
            " CORS_ORIGINS names it"
        ),
    )


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
