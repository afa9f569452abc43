"""System 5: ALS, co-purchase and popularity blended, then re-ranked by business rules; with reasons. Itself an ordinary model."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import numpy as np
import pandas as pd

from recsys_utils import LabError
from recsys_utils.data.interactions import SPENDING, Interactions, codes
from recsys_utils.ensembles.business_rules import (
    adjusted,
    attainable,
    dropped,
    last_purchases,
    observed_cycles,
    positive,
    price_limits,
    reasons,
    segment_bounds,
    segments,
    user_prices,
)
from recsys_utils.ensembles.rule_settings import tuned
from recsys_utils.models import ALS, CoPurchase, Popular, Recommender
from recsys_utils.models.base import BLOCK_BYTES
from recsys_utils.topk import in_blocks, top_k

PARTS = {"als": ALS, "item_cf": CoPurchase, "popularity": Popular}
MODELS = (*PARTS, "hybrid")
DAY = pd.Timedelta(days=1)
LEARNT = ("user_factors_", "item_factors_", "similarity_", "taste_", "counts_")  # of the parts


@dataclass
class Answer:
    """One user's list: rows item_id, relevance in 0…1, price, reason, source; the model that ran, and whether it is not the one asked for."""

    rows: pd.DataFrame
    primary_model: str
    fallback_used: bool


@dataclass
class Hybrid(Recommender):
    """Level 1: a weighted mean of three models' scores, min-max scaled per user. Level 2: the rules of `rerank`.

    A model that cannot tell a user's items apart has no weight for that user; without history popularity alone is left.
    Scores are scaled over the whole catalogue, as `blend.weighted` does with whole tables, so that leaving items out changes
    no score. `recommend` ranks the whole catalogue: the `candidate_pool_size` best of level 1 by final score (0…1, the
    relevance), then the rest by final score − 2, then what the rules drop, − 4. als, item_cf: parameters of the parts.
    tuning: knobs that differ from the defaults of `tuning.Tuning`.
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
        vars(other).update(
            {
                name: value
                for name, value in vars(self).items()
                if name.endswith("_") or name == "as_of"
            }
        )
        other.bounds_ = segment_bounds(other.mean_price_, other.knobs.user_segments)
        return other

    def candidates(
        self,
        users: Iterable[str],
        exclude: object = None,
        only: Iterable[str] | None = None,
        price_min: float | None = None,
        price_max: float | None = None,
        model: str = "hybrid",
    ) -> pd.DataFrame:
        """Level 1: each user's `candidate_pool_size` best allowed items before any rule: user_id, item_id, score, rank, source."""
        users = pd.Index(pd.unique(pd.Series(users, dtype=str)), name="user_id")
        known, banned, weights = (
            self.user_ids_.get_indexer(users),
            self._banned(users, exclude),
            self._weights(model),
        )
        closed = self.outside(price_min, price_max) | (
            False if only is None else ~self.item_ids_.isin([str(item) for item in only])
        )

        def block(rows: slice) -> tuple[np.ndarray, ...]:
            parts, share = _blended(self._raw(known[rows]), weights)
            columns, scores = self._block(
                parts.sum(axis=0),
                banned[rows] if banned is not None else None,
                closed,
                self.knobs.candidate_pool_size,
            )
            return columns, scores, np.take_along_axis(_source(parts, share), columns, axis=1)

        blocks = in_blocks(len(users), max(1, BLOCK_BYTES // (12 * len(self.item_ids_))), block)
        columns, scores, source = (
            (np.concatenate(part) for part in zip(*blocks))
            if len(users)
            else (np.zeros((0, 1), int),) * 3
        )
        return self._table(users, columns, scores).assign(
            source=pd.Categorical.from_codes(source[scores > -np.inf], list(PARTS))
        )

    def explain_list(
        self,
        user: str,
        n: int = 5,
        model: str = "hybrid",
        as_of: pd.Timestamp | str | None = None,
        exclude_purchased: bool = False,
        price_min: float | None = None,
        price_max: float | None = None,
        history: pd.DataFrame | None = None,
        closed: np.ndarray | None = None,
    ) -> Answer:
        """The n best items for one user at a moment, with price, reason and source; fewer only where fewer are allowed.

        as_of: what was bought until then counts for the rules; the models know what was bought until their cut. history:
        purchases since (item_id, ts, [price]) that count too; those of a stranger become what item_cf goes by. closed: (items,)
        bool, what else must not be listed.
        """
        _check_n(n)
        item, days, price = self.lines(user, as_of, history)
        since = self.since(item, days)
        closed = (
            self.outside(price_min, price_max)
            | (exclude_purchased & ~np.isnan(since))
            | (False if closed is None else closed)
        )
        parts, share = self.shares(user, model, item, days)
        blend = parts.sum(axis=0)
        final, drop = self._ruled(blend, np.array([mean_price(price)]), since[None])
        score = self._tiers(np.where(closed, -np.inf, blend), final, drop)[0]
        score[closed | drop[0]] = -np.inf
        best = top_k(score[None], n)[0]
        best = best[score[best] > -np.inf]
        fell = (
            share[:2].max() == 0 and self._weights(model)[:2].max() > 0
        )  # neither ALS nor item_cf knows the user
        rows = self._explained(
            best,
            _relevance(final[0, best], score[best] >= 0),
            _source(parts, share)[0, best],
            item,
            since[best],
        )
        return Answer(rows, "popularity" if fell else model, bool(fell))

    def user_info(
        self,
        user: str,
        as_of: pd.Timestamp | str | None = None,
        history: pd.DataFrame | None = None,
    ) -> dict:
        """A user at a moment: user_type, spending_segment, lines, distinct items, mean price, last purchase."""
        item, days, price = self.lines(user, as_of, history)
        mean, lines = mean_price(price), len(item)
        segment = segments(np.array([mean]), self.bounds_, self.knobs.user_segments)[0]
        return {
            "user_id": str(user),
            "user_type": "unknown"
            if not lines
            else "loyal"
            if lines >= self.knobs.loyal_purchases
            else "new",
            "spending_segment": SPENDING[segment],
            "total_purchases": lines,
            "unique_items": len(np.unique(item)),
            "avg_item_price": None if np.isnan(mean) else float(mean),
            "last_purchase_date": (self._now(as_of) - pd.Timedelta(days=days.min())).round("us")
            if lines
            else None,
        }

    def lines(
        self, user: str, as_of: pd.Timestamp | str | None, history: pd.DataFrame | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Items, days before the moment and prices of a user's lines until then; items outside the catalogue are left out."""
        now, code = self._now(as_of), self.user_ids_.get_indexer([str(user)])[0]
        mine = slice(*self.line_start_[code : code + 2]) if code >= 0 else slice(0, 0)
        item, days, price = (
            self.line_item_[mine],
            self.line_age_[mine] + (now - self.as_of) / DAY,
            self.line_price_[mine],
        )
        if history is not None:
            if missing := [column for column in ("item_id", "ts") if column not in history]:
                raise LabError(
                    f"history lacks the column {missing[0]}: it takes item_id, ts and optional price"
                )
            given = (
                history["price"].to_numpy(float)
                if "price" in history
                else np.full(len(history), np.nan)
            )
            item, price = (
                np.append(item, codes(history["item_id"], self.item_ids_)),
                np.append(price, given),
            )
            days = np.append(days, (now - history["ts"]) / DAY)
        past = (days >= -1e-9) & (item >= 0)  # a nanosecond of rounding is not the future
        return item[past], np.maximum(days[past], 0), price[past]

    def since(self, item: np.ndarray, days: np.ndarray) -> np.ndarray:
        """(items,) days since each item's last purchase, NaN for never."""
        since = np.full(len(self.item_ids_), np.nan)
        np.fmin.at(since, item, days)
        return since

    def outside(self, low: float | None = None, high: float | None = None) -> np.ndarray:
        """(items,) bool: outside the price range, both ends inclusive; an item without a price is in no range."""
        if low is None and high is None:
            return np.zeros(len(self.price_), bool)
        low, high = _price("price_min", low, 0.0), _price("price_max", high, np.inf)
        if low > high:
            raise LabError(f"price_min is {low:g}, above price_max, {high:g}: swap them")
        if np.isnan(self.price_).all():
            raise LabError(
                "price_min and price_max need prices, and these receipts have none: leave them out"
            )
        return ~((self.price_ >= low) & (self.price_ <= high))

    def shares(
        self, user: str, model: str, item: np.ndarray, days: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """One user's blend for the lines given: (models, 1, items) contributions and the models' (models, 1) shares.

        A stranger's lines are what item_cf goes by. An item is most like itself, so that a few lines would leave their neighbours
        next to nothing of the scale: what was bought scores no more than the best of what was not.
        """
        code = self.user_ids_.get_indexer([str(user)])
        raw = self._raw(code)
        if code[0] < 0 and len(item):
            tau = self._models()["item_cf"].tau
            score = self.similarity_[item].T @ np.exp(-days / (tau or np.inf))
            score[item] = np.minimum(score[item], np.delete(score, item).max(initial=0))
            raw[1, 0] = score
        return _blended(raw, self._weights(model))

    def _models(self) -> dict[str, Recommender]:
        return {
            "als": ALS(**{"factors": 64, "weighting": "signal"} | self.als),
            "item_cf": CoPurchase(**self.item_cf),
            "popularity": Popular(self.knobs.popularity_days or None, "mixed"),
        }

    def _fit(self, data: Interactions) -> None:
        for part in self._models().values():
            learnt = vars(part.fit(data))
            vars(self).update({name: learnt[name] for name in LEARNT if name in learnt})
        self.price_, self.cycle_, self.last_ = (
            data.price,
            observed_cycles(data),
            last_purchases(data),
        )
        self.shoppers_ = np.bincount(data.seen.indices, minlength=data.shape[1])
        self.mean_price_ = user_prices(data)
        self.bounds_ = segment_bounds(self.mean_price_, self.knobs.user_segments)
        self._keep_lines(data)

    def _keep_lines(self, data: Interactions) -> None:
        """Every line by user, oldest first: what exclude_purchased, as_of and the users' facts need."""
        price = (
            data.purchases["price"].to_numpy(float)
            if "price" in data.purchases
            else np.full(len(data.user), np.nan)
        )
        order = np.lexsort((data.item, -data.age, data.user))
        self.line_item_, self.line_age_, self.line_price_ = (
            data.item[order],
            data.age[order],
            price[order],
        )
        self.line_start_ = np.searchsorted(data.user[order], np.arange(data.shape[0] + 1))

    def _scores(self, users: np.ndarray) -> np.ndarray:
        return self._all_scores(users, None, None)

    def _all_scores(
        self, users: np.ndarray, names: pd.Index | None, profiles: pd.DataFrame | None
    ) -> np.ndarray:
        """Codes −1, without history, have popularity and the default segment's limit; profiles say nothing here."""
        blend = _blended(self._raw(users), self._weights("hybrid"))[0].sum(axis=0)
        since, known = np.full(blend.shape, np.nan, np.float64), np.flatnonzero(users >= 0)
        last = self.last_[users[known]]
        since[np.repeat(known, np.diff(last.indptr)), last.indices] = last.data
        return self._tiers(
            blend, *self._ruled(blend, np.append(self.mean_price_, np.nan)[users], since)
        ).astype(np.float32)

    def _similar(self, item: int) -> np.ndarray:
        return PARTS["item_cf"]._similar(self, item)

    def _raw(self, users: np.ndarray) -> np.ndarray:
        """(models, users, items) scores as each part gives them; 0 where it does not know the user."""
        raw, known = np.zeros((len(PARTS), len(users), len(self.item_ids_)), np.float32), users >= 0
        for m, (name, part) in enumerate(PARTS.items()):
            rows = known | (name == "popularity")
            raw[m, rows] = part._scores(self, users[rows])
        return raw

    def _weights(self, model: str) -> np.ndarray:
        """(models,) shares of a selectable model."""
        if model not in MODELS:
            raise LabError(f"model '{model}' is unknown: choose {', '.join(MODELS)}")
        weights = self.knobs.model_weights
        return np.array(
            [
                getattr(weights, name) if model == "hybrid" else float(name == model)
                for name in PARTS
            ],
            np.float32,
        )

    def _ruled(
        self, blend: np.ndarray, mean: np.ndarray, since: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """(users, items) relevance after the rules, and which items they drop."""
        drop = dropped(
            self.price_,
            price_limits(mean, self.bounds_, self.knobs)[:, None],
            since,
            self.cycle_,
            self.knobs,
        )
        return adjusted(blend, self.price_, mean[:, None], self.knobs) / attainable(
            self.price_, self.knobs
        ), np.broadcast_to(drop, blend.shape)

    def _tiers(self, blend: np.ndarray, final: np.ndarray, drop: np.ndarray) -> np.ndarray:
        """Final scores of the candidates, the best of the blend; of the rest − 2; of what is dropped − 4."""
        pool, made = top_k(blend, self.knobs.candidate_pool_size), final - 2
        np.put_along_axis(made, pool, np.take_along_axis(final, pool, axis=1), axis=1)
        return np.where(drop, final - 4, made)

    def _now(self, as_of: pd.Timestamp | str | None) -> pd.Timestamp:
        moment = self.as_of if as_of is None else pd.Timestamp(as_of)
        return moment if moment.tz is None else moment.tz_convert(None)

    def _explained(
        self,
        best: np.ndarray,
        relevance: np.ndarray,
        source: np.ndarray,
        item: np.ndarray,
        since: np.ndarray,
    ) -> pd.DataFrame:
        source, mine = np.array(list(PARTS))[source], np.unique(item)
        alike = (self.similarity_[mine][:, best].toarray() > 0) & (mine[:, None] != best)
        why = reasons(source, alike.sum(axis=0), self.shoppers_[best], since, self.cycle_[best])
        return pd.DataFrame(
            {
                "item_id": self.item_ids_[best],
                "relevance": relevance,
                "price": self.price_[best],
                "reason": why,
                "source": source,
            }
        )


def min_max(raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(models, users, items) scores scaled to 0…1 per model and user, and whether each could tell the user's items apart."""
    low, high = raw.min(axis=-1, keepdims=True), raw.max(axis=-1, keepdims=True)
    able = high > low
    return (raw - low) / np.where(able, high - low, 1), able[..., 0]


def _blended(raw: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(models, users, items) contributions to the blend, and the (models, users) shares of the models able to score the user."""
    scaled, able = min_max(raw)
    share = able * weights[:, None]
    share[-1] = np.where(share.sum(axis=0) > 0, share[-1], 1)  # popularity where no model is able
    share /= share.sum(axis=0)
    return scaled * share[:, :, None], share


def _source(parts: np.ndarray, share: np.ndarray) -> np.ndarray:
    """(users, items) number of the model with the largest contribution, of those that have a share."""
    return np.where(share[..., None] > 0, parts, -1).argmax(axis=0)


def _relevance(final: np.ndarray, candidate: np.ndarray) -> np.ndarray:
    """Final scores down a list; what follows the candidates is scaled to stay below them."""
    if candidate.any() and not candidate.all():
        last, first = final[candidate][-1], final[~candidate].max()
        final = np.where(candidate, final, final * min(1, last / max(first, 1e-12)))
    return final


def mean_price(price: np.ndarray) -> float:
    """The mean of the known prices, NaN where there is none above 0."""
    known = price[~np.isnan(price)]
    return float(positive(known.mean())) if len(known) else np.nan


def _check_n(n: int) -> None:
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise LabError(f"n is {n!r}: ask for 1 or more items")


def _price(name: str, value: float | None, default: float) -> float:
    if value is not None and not 0 <= value < np.inf:
        raise LabError(f"{name} is {value!r}: it takes a price of 0 or more")
    return default if value is None else float(value)
