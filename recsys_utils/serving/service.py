"""The service without HTTP: what is loaded, the cache, lists as typed answers.

Reloading swaps one reference; requests that hold the old one end with it.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from cachetools import TTLCache

from recsys_utils import LabError, __version__
from recsys_utils.ensembles.hybrid import MODELS, Shopper
from recsys_utils.online.queue import DATABASE
from recsys_utils.serving.answers import Recommendation, RecommendationResponse, Tried, UserInfo
from recsys_utils.serving.arrange import known_codes
from recsys_utils.serving.artifacts import Artifacts, NotTrained
from recsys_utils.serving.errors import Unavailable
from recsys_utils.serving.fallback import notes, tried
from recsys_utils.serving.lists import (
    STOCK,
    STRANGER,
    TITLES,
    Query,
    Target,
    confidences,
    look_up,
    recommend,
)
from recsys_utils.serving.near import near_ids
from recsys_utils.serving.online import READY, Online
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

    @property
    def shipped(self) -> dict:
        """report: the model that the report ships; served: the best of those served here."""
        return self.art.manifest.get("shipped") or {}


log = logging.getLogger("recsys_utils.serving")


class Service:
    """Everything behind the routes. `load` may be called at any time, from any thread."""

    def __init__(
        self,
        folder: Path,
        db_path: Path | None,
        config: Settings,
        clock: Callable[[], datetime],
        timer: Callable[[], float],
    ) -> None:
        self.folder = folder
        self.db_path = db_path or folder / "online" / DATABASE
        self.config = config
        self.clock = clock
        self.telemetry = Telemetry()
        self.status = "initializing"
        self.problem = "the models are being loaded: ask again in a moment"
        self.loaded: Loaded | None = None
        self.online: Online | None = None
        self._loading = threading.Lock()
        self._locked = threading.Lock()
        self.cache = TTLCache(config.cache_max_size, config.cache_ttl_seconds or 1, timer)

    def load(self) -> Loaded:
        """Load the version that the manifest names, then serve it.

        On failure what was served before stays.
        """
        with self._loading:
            start = time.perf_counter()
            try:
                art = Artifacts.load(self.folder)
                apply_settings(art, self.config)
                self.online = self.online or Online(self.db_path, self.config.queue)
                self.online.refresh(art.hybrid)
            except LabError as error:
                log.error("cannot load: %s", error)
                is_untrained = isinstance(error, NotTrained)
                self.status = "not_trained" if is_untrained else "failed"
                unfit = str(error) if isinstance(error, Unfit) else DAMAGED
                self.problem = UNTRAINED if is_untrained else unfit
                raise Unavailable(self.problem) from error
            seconds = round(time.perf_counter() - start, 3)
            self.loaded = Loaded(art, self.online, seconds)
            self.status = "healthy"
            self.clear()
            self._bring_in_tower(art)
            return self.loaded

    def _bring_in_tower(self, art: Artifacts) -> None:
        """Beside the first lists, and not in somebody's request."""
        try:
            _ = art.tower
        except (LabError, OSError) as error:
            log.error("new customers: %s", error)

    def ready(self) -> Loaded:
        """What is loaded, or Unavailable with the cure."""
        if self.loaded is None:
            raise Unavailable(self.problem)
        return self.loaded

    @property
    def default_model(self) -> str:
        """Who answers where a request names no model."""
        return self.config.default_model or "hybrid"

    @property
    def page_model(self) -> str:
        """Who answers on the page, where nobody chose."""
        return self.config.default_model or self.ready().shipped.get("served") or "hybrid"

    def parts(self) -> dict[str, str]:
        """Each part that can fail alone: "ready", or what is missing and what brings it back."""
        if self.loaded is None:
            return {"lists": self.problem}
        return {"lists": READY} | self.loaded.online.parts()

    def close(self) -> None:
        """Close the database."""
        if self.online is not None:
            self.online.close()

    def clear(self) -> None:
        """Forget every answer."""
        with self._locked:
            self.cache.clear()

    def recommend(self, query: Query) -> RecommendationResponse:
        """A list, from the cache if nothing about its user has changed since it was computed."""
        start = time.perf_counter()
        loaded = self.ready()
        key = (loaded.version, loaded.online.stamps[query.user_id], query)
        answer = self._cached(key)
        is_hit = answer is not None
        self.telemetry.cache.labels("hit" if is_hit else "miss").inc()
        if answer is None:
            answer = compute_answer(loaded, query)
            self._keep(key, answer)
        self._count(query, answer)
        milliseconds = elapsed_ms(start)
        fields = {
            "model": query.model,
            "primary": answer.primary_model,
            "items": len(answer.recommendations),
            "cached": is_hit,
            "ms": milliseconds,
        }
        log.debug("list", extra={"fields": fields})
        return answer.model_copy(
            update={
                "cached": is_hit,
                "generated_at": self.now(),
                "processing_time_ms": milliseconds,
            }
        )

    def now(self) -> datetime:
        """The clock's time, UTC."""
        return self.clock().astimezone(UTC)

    def live_config(self) -> dict:
        """The live configuration, as plain values."""
        loaded = self.ready()
        return {
            "tuning": loaded.art.hybrid.knobs.to_dict(),
            "service": self.config.shown(),
            "event_weights": loaded.online.weights,
            "queue": loaded.online.sizes,
        }

    def stats(self) -> dict:
        """Counts, cache and latency since the start."""
        loaded = self.ready()
        art = loaded.art
        telemetry = self.telemetry
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
            "cache_hits": telemetry.total("cache", outcome="hit"),
            "cache_misses": telemetry.total("cache", outcome="miss"),
            "requests": telemetry.requests,
            "recommendations": telemetry.total("recommendations"),
            "fallbacks": telemetry.total("fallbacks"),
            "latency_ms": telemetry.latency(),
            "model_stats": model,
            "config": self.live_config(),
        }

    def _cached(self, key: tuple) -> RecommendationResponse | None:
        if not self.config.cache_ttl_seconds:
            return None
        with self._locked:
            return self.cache.get(key)

    def _keep(self, key: tuple, answer: RecommendationResponse) -> None:
        if self.config.cache_ttl_seconds:
            with self._locked:
                self.cache[key] = answer

    def _count(self, query: Query, answer: RecommendationResponse) -> None:
        self.telemetry.recommendations.labels(query.model).inc()
        self.telemetry.fallbacks.inc(answer.fallback_used)
        self.telemetry.new_clients.inc(answer.user_info.user_type == "unknown")


def compute_answer(loaded: Loaded, query: Query) -> RecommendationResponse:
    """A list computed now: the user is looked up once, ranked, and described."""
    target = look_up(query, loaded.art, loaded.online)
    ranked = recommend(target)
    art = loaded.art
    confidence = confidences(target, ranked)
    stock = art.stock_of(query.user_id)
    last = last_purchases(target.shopper, ranked.item, len(art.items))
    rows = [
        Recommendation(
            rank=place + 1,
            item_id=art.items.index[item],
            item_name=art.names[item],
            category=art.categories[item],
            relevance_score=number_or_none(ranked.relevance[place]),
            confidence_score=confidence[place],
            score=number_or_none(ranked.score[place]),
            item_price=number_or_none(art.hybrid.price_[item]),
            stock=STOCK[stock[item]],
            recommendation_reason=ranked.reason[place],
            model_source=ranked.source[place],
            last_purchase_date=last[place],
        )
        for place, item in enumerate(ranked.item.tolist())
    ]
    user = query.user_id
    if user == STRANGER:
        user = "anonymous" if query.history is None else "custom"
    return RecommendationResponse(
        user_id=user,
        user_info=user_info(target, user),
        recommendations=rows,
        primary_model=ranked.primary_model,
        fallback_used=ranked.fallback_used,
        fallback=[Tried(model=name, outcome=said) for name, said in tried(target, ranked)],
        near=near_ids(art, user) if is_stranger(target) else [],
        notes=notes(target, ranked),
        processing_time_ms=0,
        generated_at=datetime.now(UTC),
        cached=False,
        model_version=loaded.version,
    )


def is_stranger(target: Target) -> bool:
    """Whether an id was given of which nothing is known."""
    query = target.query
    is_known = target.user >= 0 or target.later_purchases is not None
    return (
        bool(query.user_id) and not is_known and query.user_id not in target.artifacts.clients.index
    )


class Unfit(LabError):
    """The settings name what was not trained."""


def apply_settings(art: Artifacts, config: Settings) -> None:
    """Take over the knobs; Unfit where settings name a model or a product that was not trained."""
    known = (*MODELS, *art.lists)
    if config.default_model is not None and config.default_model not in known:
        raise Unfit(f"DEFAULT_MODEL is {config.default_model!r}: choose {', '.join(known)}")
    try:
        if config.tuning is not None:
            art.hybrid = art.hybrid.retuned(config.tuning)
        knobs = art.hybrid.knobs.merchandising
        for name in ("pin", "exclude", "boost"):
            known_codes(f"merchandising.{name}", getattr(knobs, name), art.hybrid)
    except LabError as error:
        raise Unfit(f"the knobs do not fit what was trained: {error}") from error


def last_purchases(shopper: Shopper, items: np.ndarray, n_items: int) -> list[datetime | None]:
    """When a shopper last bought each of some items; None for never."""
    days = shopper.days_since_purchase(n_items)[items]
    age = np.rint(np.nan_to_num(days) * DAY_US).astype("timedelta64[us]")
    moments = (np.datetime64(shopper.moment, "us") - age).tolist()
    return [None if never else moment for moment, never in zip(moments, np.isnan(days))]


def user_info(target: Target, user: str) -> UserInfo:
    """A user at a moment. user: the id to show."""
    return UserInfo(**target.artifacts.hybrid.describe(target.shopper) | {"user_id": user})


def models(loaded: Loaded) -> list[dict]:
    """Every model to choose."""
    weights = vars(loaded.art.hybrid.knobs.model_weights)
    lists = loaded.art.manifest["lists"]
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


def number_or_none(value: float) -> float | None:
    """A number, None where it is not known."""
    return None if np.isnan(value) else float(value)


def elapsed_ms(start: float) -> float:
    """Milliseconds since a time of `time.perf_counter`."""
    return round((time.perf_counter() - start) * 1e3, 3)


LIVE = {
    "hybrid": "A weighted blend of the three below, then business rules",
    "als": "Matrix factorization of spending and quantity signals",
    "item_cf": "Items that are bought together, weighted by spending",
    "popularity": "What sells, for everybody",
}
DAY_US = 86_400_000_000  # microseconds
VERSION = __version__
DAMAGED = "what was trained cannot be loaded, the log says why: train again"
UNTRAINED = "nothing was trained yet: run python -m recsys_utils.serving train --dataset NAME"
