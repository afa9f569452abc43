"""System 5: ALS, co-purchase and popularity blended, then re-ranked by business rules; with reasons. Itself an ordinary model."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import numpy as np
import pandas as pd
from scipy import sparse

from . import LabError
from .eda import SPENDING
from .interactions import Interactions, codes
from .models import ALS, CoPurchase, Popular, Recommender
from .models.base import BLOCK_BYTES
from .rerank import (Facts, adjusted, attainable, dropped, last_purchases, positive, price_limits, reasons, segment_bounds, segments,
                     user_prices)
from .rerank import _observed_cycles as observed_cycles
from .topk import in_blocks, top_k
from .tuning import Tuning, tuned

PARTS = {"als": ALS, "item_cf": CoPurchase, "popularity": Popular}
MODELS = (*PARTS, "hybrid")
DAY = pd.Timedelta(days=1)
LEARNT = ("user_factors_", "item_factors_", "similarity_", "taste_", "counts_")      # of the parts


@dataclass
class Answer:
    """One user's list: rows item_id, relevance in 0…1, price, reason, source; the model that ran, and whether it is not the one asked for."""

    rows: pd.DataFrame
    primary_model: str
    fallback_used: bool


@dataclass
class Hybrid(Recommender):
    """Level 1: a weighted mean of three models' scores, min-max scaled per user (SPEC S5-07). Level 2: the rules of `rerank`.

    A model that cannot tell a user's items apart has no weight for that user; without history popularity alone is left.
    Scores are scaled over the whole catalogue, so that leaving items out changes no score. `recommend` ranks the whole
    catalogue: the `candidate_pool_size` best of level 1 by final score (0…1, the relevance), then the rest by final score
    minus 2, then what the rules drop, minus 4. als, item_cf: parameters of the parts. tuning: knobs that differ from the
    defaults of `tuning.Tuning`.
    """

    family: ClassVar[str] = "hybrid"
    als: dict = field(default_factory=dict)
    item_cf: dict = field(default_factory=dict)
    tuning: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.knobs = tuned(self.tuning, "Hybrid(tuning)")
        self._models()

    def retuned(self, tuning: dict) -> Self:
        """The same fitted model under other knobs; nothing is fitted again."""
        other = replace(self, tuning=tuning)
        if other.knobs.popularity_days != self.knobs.popularity_days:
            raise LabError("popularity_days changes what popularity is: fit a new Hybrid with it")
        vars(other).update({name: value for name, value in vars(self).items() if name.endswith("_") or name == "as_of"})
        return other._bounded()

    def candidates(self, users: Iterable[str], exclude: object = None, only: Iterable[str] | None = None, price_min: float | None = None,
                   price_max: float | None = None, model: str = "hybrid") -> pd.DataFrame:
        """Level 1: each user's `candidate_pool_size` best allowed items before any rule: user_id, item_id, score, rank, source."""
        users = pd.Index(pd.unique(pd.Series(users, dtype=str)), name="user_id")
        known, banned, weights = self.user_ids_.get_indexer(users), self._banned(users, exclude), self._weights(model)
        closed = self._closed(price_min, price_max) | (False if only is None else ~self.item_ids_.isin([str(item) for item in only]))

        def block(rows: slice) -> tuple[np.ndarray, ...]:
            parts = self._parts(known[rows], weights)
            columns, scores = self._block(parts.sum(axis=0), banned[rows] if banned is not None else None, closed, self.knobs.candidate_pool_size)
            return columns, scores, np.take_along_axis(parts.argmax(axis=0), columns, axis=1)
        empty = (np.zeros((0, 1), int),) * 3
        columns, scores, source = (np.concatenate(part) for part in zip(*in_blocks(len(users), self._rows(), block))) if len(users) else empty
        names = pd.Categorical.from_codes(source[scores > -np.inf], list(PARTS))
        return self._table(users, columns, scores).assign(source=names)

    def explain_list(self, user: str, n: int = 5, model: str = "hybrid", as_of: pd.Timestamp | str | None = None, exclude_purchased: bool = False,
                     price_min: float | None = None, price_max: float | None = None, history: pd.DataFrame | None = None) -> Answer:
        """The n best items for one user at a moment, with price, reason and source; fewer only where fewer are allowed.

        as_of: what was bought until then counts for the rules; the models know what was bought until their cut. history:
        purchases since (item_id, ts, [price]) that count too; those of a stranger become what item_cf goes by.
        """
        _check_n(n)
        item, days, price = self._lines(user, as_of, history)
        since, closed = self._since(item, days), self._closed(price_min, price_max)
        closed |= exclude_purchased & ~np.isnan(since)
        parts, asked = self._one(user, item, model)
        mean = _mean(price)
        final, drop = self._ruled(parts.sum(axis=0)[None], np.array([mean]), since[None])
        score = self._tiers(np.where(closed, -np.inf, parts.sum(axis=0))[None], final, drop)
        best = top_k(np.where(closed | drop[0], -np.inf, score[0])[None], n)[0]
        best = best[~(closed | drop[0])[best]]
        used = self._able(parts)
        primary = model if model in used or len(used & asked) > 1 else min(used)
        return Answer(self._explained(best, final[0], parts, item, since), primary, primary != model)

    def user_info(self, user: str, as_of: pd.Timestamp | str | None = None, history: pd.DataFrame | None = None) -> dict:
        """What is known of a user at a moment: user_type, segment, lines, distinct items, mean price, last purchase (SPEC S5-41 to S5-43)."""
        item, days, price = self._lines(user, as_of, history)
        mean, last = _mean(price), self._now(as_of) - days.min() * DAY if len(days) else None
        segment = segments(np.array([mean]), self.bounds_, self.knobs.user_segments)[0]
        kind = "unknown" if not len(item) else "loyal" if len(item) >= self.knobs.loyal_purchases else "new"
        return {"user_id": str(user), "user_type": kind, "spending_segment": SPENDING[segment], "total_purchases": len(item),
                "unique_items": len(np.unique(item)), "avg_item_price": None if np.isnan(mean) else float(mean), "last_purchase_date": last}
