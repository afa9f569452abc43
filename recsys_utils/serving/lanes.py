"""How many requests are worked on at once and how many may wait; one too many is told at once.

Batches have a lane of their own: however many there are, one thread works on them, and single
requests keep the others.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext

from starlette.types import Scope

SINGLES = 3  # requests worked on at once; health and metrics need a thread too
BATCHES = 1
BATCHES_WAITING = 8  # whoever sends a batch does not sit before a page
LARGE = 16 << 10  # bytes of a body from which it counts as a batch
BATCH_PATHS = ("/predict_user_list", "/api/v1/reload")
FREE_PATHS = ("/api/v1/health", "/metrics", "/static/", "/docs", "/redoc", "/openapi.json")


class Full(Exception):
    """As many requests as may wait are waiting."""


class Lane:
    """Room for some requests at work and some that wait for them, first come, first served."""

    def __init__(self, working: int, waiting: int) -> None:
        self.most = working + waiting
        self.inside = 0
        self._slots = asyncio.Semaphore(working)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait for a slot and keep it; Full where there is no room to wait."""
        if self.inside >= self.most:
            raise Full
        self.inside += 1
        try:
            async with self._slots:
                yield
        finally:
            self.inside -= 1


class Lanes:
    """The lanes of one app. waiting: how many single requests may wait."""

    def __init__(self, waiting: int) -> None:
        self.singles = Lane(SINGLES, waiting)
        self.batches = Lane(BATCHES, BATCHES_WAITING)

    def place(self, scope: Scope, size: int) -> object:
        """A place for a request in the lane that it belongs to. size: of its body, in bytes."""
        path = scope["path"]
        if path == "/" or path.startswith(FREE_PATHS):
            return nullcontext()
        is_batch = size > LARGE or path in BATCH_PATHS
        return (self.batches if is_batch else self.singles).place()
