"""The service without HTTP: what is loaded, the cache, lists as typed answers. Reloading swaps one reference; the old one ends its answers."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
from cachetools import TTLCache

from recsys_utils import LabError, __version__
from recsys_utils.data.registry import EVENT_WEIGHTS
from recsys_utils.ensembles.hybrid import MODELS
from recsys_utils.online.update import DATABASE
from recsys_utils.serving.answers import Recommendation, RecommendationResponse, UserInfo
from recsys_utils.serving.artifacts import Artifacts, NotTrained
from recsys_utils.serving.errors import Unavailable
from recsys_utils.serving.lists import (
    STOCK,
    STRANGER,
    TITLES,
    Ask,
    confidences,
    history,
    ids_of,
    made,
    moved,
)
from recsys_utils.serving.online import Online
from recsys_utils.serving.settings import Settings
from recsys_utils.serving.telemetry import Telemetry


@dataclass(frozen=True)
class Loaded:
    """One version in service."""

    art: Artifacts
    online: Online  # the same for all versions
    seconds: float

    @property
    def version(self) -> str:
        """The version's folder, which says when it was trained."""
        return self.art.manifest["folder"]


log = logging.getLogger("recsys_utils.serving")


class Service:
    """Everything behind the routes. `load` may be called at any time, from any thread."""

    def __init__(
        self, folder: Path, db_path: Path | None, config: Settings, clock: Callable[[], datetime]
    ) -> None:
        self.folder, self.db_path, self.config, self.clock = (
            folder,
            db_path or folder / "online" / DATABASE,
            config,
            clock,
        )
        self.telemetry, self.problem = (
            Telemetry(),
            "the models are being loaded: ask again in a moment",
        )
        self.loaded: Loaded | None = None
        self.online: Online | None = None
        self.status, self._loading, self._locked = (
            "initializing",
            threading.Lock(),
            threading.Lock(),
        )
        self.cache = TTLCache(
            config.cache_max_size, config.cache_ttl_seconds or 1, timer=lambda: clock().timestamp()
        )

    def load(self) -> Loaded:
        """Load the version that the manifest names, then serve it; on failure what was served before stays."""
        with self._loading:
            start = time.perf_counter()
            try:
                art = Artifacts.load(self.folder)
                if self.config.tuning is not None:
                    art.hybrid = art.hybrid.retuned(self.config.tuning)
                self.online = self.online or Online(self.db_path)
                self.online.refresh(art.hybrid.as_of)
            except LabError as error:
                log.error("cannot load: %s", error)
                self.status, self.problem = (
                    ("not_trained", UNTRAINED)
                    if isinstance(error, NotTrained)
                    else ("failed", DAMAGED)
                )
                raise Unavailable(self.problem) from error
            self.status, self.loaded = (
                "healthy",
                Loaded(art, self.online, round(time.perf_counter() - start, 3)),
            )
            self.clear()
            return self.loaded

    def ready(self) -> Loaded:
        """What is loaded, or Unavailable with the cure."""
        if self.loaded is None:
            raise Unavailable(self.problem)
        return self.loaded

    def close(self) -> None:
        """Close the database."""
        if self.online is not None:
            self.online.queue.close()

    def clear(self) -> None:
        """Forget every answer."""
        with self._locked:
            self.cache.clear()

    def recommend(self, ask: Ask) -> RecommendationResponse:
        """A list, from the cache where an equal question was answered and nothing about its user has changed since."""
        start, loaded = time.perf_counter(), self.ready()
        key = (loaded.version, loaded.online.stamps[ask.user_id], ask)
        with self._locked:
            found = self.cache.get(key) if self.config.cache_ttl_seconds else None
        self.telemetry.cache.labels("miss" if found is None else "hit").inc()
        answer = found or answered(loaded, ask)
        if found is None and self.config.cache_ttl_seconds:
            with self._locked:
                self.cache[key] = answer
        self._count(ask, answer)
        log.debug(
            "list",
            extra={
                "fields": {
                    "model": ask.model,
                    "primary": answer.primary_model,
                    "items": len(answer.recommendations),
                    "cached": found is not None,
                    "ms": since(start),
                }
            },
        )
        return answer.model_copy(
            update={
                "cached": found is not None,
                "generated_at": self.now(),
                "processing_time_ms": since(start),
            }
        )

    def now(self) -> datetime:
        """The clock's time, UTC."""
        return self.clock().astimezone(UTC)

    def shown(self) -> dict:
        """The live configuration, as plain values."""
        loaded = self.ready()
        return {
            "tuning": loaded.art.hybrid.knobs.to_dict(),
            "service": self.config.shown(),
            "event_weights": dict(EVENT_WEIGHTS),
            "queue": {
                "min_pool": loaded.online.queue.min_pool,
                "max_pool": loaded.online.queue.max_pool,
            },
        }

    def stats(self) -> dict:
        """Counts, cache and latency since the start."""
        loaded, total = self.ready(), self.telemetry
        art, hits = loaded.art, int(total.cache.labels("hit")._value.get())
        model = {
            "users": len(art.users),
            "items": len(art.items),
            "purchases": art.hybrid.line_item_.size,
            "lists": len(art.lists),
            "live_purchases": sum(map(len, loaded.online.bought.values())),
            "version": loaded.version,
            "trained_at": art.manifest["trained_at"],
            "as_of": art.manifest["cut"],
        }
        return {
            "is_initialized": True,
            "model_load_time": loaded.seconds,
            "cache_size": len(self.cache),
            "cache_max_size": int(self.cache.maxsize),
            "cache_hits": hits,
            "cache_misses": total.total("cache") - hits,
            "requests": total.requests,
            "recommendations": total.total("recommendations"),
            "fallbacks": total.total("fallbacks"),
            "latency_ms": total.latency(),
            "model_stats": model,
            "config": self.shown(),
        }

    def _count(self, ask: Ask, answer: RecommendationResponse) -> None:
        self.telemetry.recommendations.labels(ask.model).inc()
        self.telemetry.fallbacks.inc(answer.fallback_used)
        self.telemetry.new_clients.inc(answer.user_info.user_type == "unknown")


def answered(loaded: Loaded, ask: Ask) -> RecommendationResponse:
    """A list computed now."""
    art, past = loaded.art, history(loaded.art, ask, loaded.online)
    ask = moved(ask, art, past)
    listing = made(art, ask, past)
    sure, stock, price = (
        confidences(art, ask, listing, past),
        art.stock_of(ids_of(art, ask.user_id)),
        art.hybrid.price_,
    )
    rows = [
        Recommendation(
            rank=n + 1,
            item_id=art.items.index[item],
            item_name=art.names[item],
            category=art.categories[item],
            relevance_score=listing.relevance[n],
            confidence_score=None if sure is None else sure[n],
            score=listing.score[n],
            item_price=number(price[item]),
            stock=STOCK[stock[item]],
            recommendation_reason=listing.reason[n],
            model_source=listing.source[n],
        )
        for n, item in enumerate(listing.item.tolist())
    ]
    user = (
        ask.user_id if ask.user_id != STRANGER else "anonymous" if ask.history is None else "custom"
    )
    return RecommendationResponse(
        user_id=user,
        user_info=info(art, ask, past, user),
        recommendations=rows,
        primary_model=listing.primary,
        fallback_used=listing.fell,
        processing_time_ms=0,
        generated_at=datetime.now(UTC),
        cached=False,
        model_version=loaded.version,
    )


def info(art: Artifacts, ask: Ask, past: pd.DataFrame | None, shown: str) -> UserInfo:
    """A user at a moment."""
    return UserInfo(**art.hybrid.user_info(ask.user_id, ask.as_of, past) | {"user_id": shown})


def profile_info(loaded: Loaded, user: str) -> UserInfo:
    """A user now."""
    past = history(loaded.art, Ask(user), loaded.online)
    return info(loaded.art, moved(Ask(user), loaded.art, past), past, user)


def models(loaded: Loaded) -> list[dict]:
    """Every model to choose."""
    weights, lists = vars(loaded.art.hybrid.knobs.model_weights), loaded.art.manifest["lists"]
    live = [
        {
            "name": name,
            "title": TITLES[name],
            "description": LIVE[name],
            "family": name,
            "weight": weights.get(name),
            "live": True,
        }
        for name in ("hybrid", *MODELS[:-1])
    ]
    return live + [
        {
            "name": name,
            "title": TITLES.get(name, name),
            "description": "Lists made in training, on all receipts",
            "family": about["family"],
            "weight": None,
            "live": False,
        }
        for name, about in sorted(lists.items(), key=lambda pair: list(TITLES).index(pair[0]))
    ]


def number(value: float) -> float | None:
    """A number, or nothing where it is not known."""
    return None if np.isnan(value) else float(value)


def since(start: float) -> float:
    """Milliseconds since a time."""
    return round((time.perf_counter() - start) * 1e3, 3)


LIVE = {
    "hybrid": "A weighted blend of the three below, then business rules",
    "als": "Matrix factorization of spending and quantity signals",
    "item_cf": "Items that are bought together, weighted by spending",
    "popularity": "What sells, for everybody",
}
VERSION = __version__
DAMAGED = "what was trained cannot be loaded, the log says why: train again"
UNTRAINED = "nothing was trained yet: run python -m recsys_utils.serving train --dataset NAME"
