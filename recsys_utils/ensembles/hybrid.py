"""The hybrid of the product recommendation service: three models blended, then business rules.

Itself an ordinary model of the leaderboard; for the service it also explains one shopper's list.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import numpy as np
import pandas as pd
from scipy import sparse

from recsys_utils import LabError
from recsys_utils.data.interactions import Interactions, codes
from recsys_utils.data.segments import SPENDING
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
from recsys_utils.models.base import min_max
from recsys_utils.topk import top_k

PARTS = ("als", "item_cf", "popularity")
MODELS = (*PARTS, "hybrid")
DAY = pd.Timedelta(days=1)
ROUNDING = 1e-9  # days: a nanosecond of rounding is not the future
LOWEST_REST = -2.5  # what rules drop scores −3 or less, the rest −2 or more
SHARED = ("user_ids_", "item_ids_", "seen_", "recent_")  # what the parts have in common


@dataclass
class Shopper:
    """One shopper at a moment, with everything they bought until then.

    code: the models' code of the shopper, −1 for a stranger.
    items, days, prices: (lines,) item code, days before the moment, unit price (NaN: unknown).
    """

    user_id: str
    code: int
    moment: pd.Timestamp
    items: np.ndarray
    days: np.ndarray
    prices: np.ndarray

    @property
    def mean_price(self) -> float:
        """The mean of the known prices, NaN where there is none above 0."""
        known = self.prices[~np.isnan(self.prices)]
        return float(positive(known.mean())) if len(known) else np.nan

    def days_since_purchase(self, n_items: int) -> np.ndarray:
        """(items,) days since each item's last purchase, NaN for never."""
        days = np.full(n_items, np.nan)
        np.fmin.at(days, self.items, self.days)
        return days


@dataclass
class Answer:
    """One shopper's list.

    rows: item_id, relevance in 0…1, price, reason, source.
    primary_model: the model that made the list. fallback_used: it is not the one asked for.
    """

    rows: pd.DataFrame
    primary_model: str
    fallback_used: bool


@dataclass
class Hybrid(Recommender):
    """A weighted mean of three models' scores, min-max scaled per shopper; then business rules.

    A model that cannot tell a shopper's items apart has no weight for that shopper; without history
    popularity alone is left. Scores are scaled over the whole catalogue, as `blend.weighted` does
    with whole tables, so that leaving items out changes no score. `recommend` ranks the whole
    catalogue: the `candidate_pool_size` best of the blend by final score (0…1, the relevance), then
    the rest by final score − 2, then what the rules drop, by final score − 4.

    als, item_cf: parameters of these parts. tuning: settings that differ from the defaults.
    """

    family: ClassVar[str] = "hybrid"
    als: dict = field(default_factory=dict)
    item_cf: dict = field(default_factory=dict)
    tuning: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.knobs = tuned(self.tuning, "Hybrid(tuning)")
        self.parts: dict[str, Recommender] = {
            "als": ALS(**{"factors": 64, "weighting": "signal"} | self.als),
            "item_cf": CoPurchase(**self.item_cf),
            "popularity": Popular(self.knobs.popularity_days or None, "mixed"),
        }

    @property
    def similarity(self) -> sparse.csr_matrix:
        """Items × items: how alike two items are by the baskets they share."""
        return self.parts["item_cf"].similarity_

    @property
    def popularity(self) -> np.ndarray:
        """(items,) popularity in 0…1."""
        return self.parts["popularity"].counts_

    def retuned(self, tuning: dict) -> Self:
        """The same fitted model under other settings; nothing is fitted again."""
        other = replace(self, tuning=tuning)
        if other.knobs.popularity_days != self.knobs.popularity_days:
            raise LabError("popularity_days changes what popularity is: fit a new Hybrid with it")
        other.parts = self.parts
        other.as_of = self.as_of
        for name, value in vars(self).items():
            if name.endswith("_"):
                setattr(other, name, value)
        other.bounds_ = segment_bounds(other.mean_price_, other.knobs.user_segments)
        return other

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
        """The n best items for one user at a moment, explained: `shopper` and `list_for` in one.

        exclude_purchased: leave out what the user bought. price_min, price_max: a price range, both
            ends inclusive. closed: (items,) bool, what else must not be listed.
        """
        shopper = self.shopper(user, as_of, history)
        out = self.outside(price_min, price_max)
        if closed is not None:
            out = out | closed
        if exclude_purchased:
            out[shopper.items] = True
        return self.list_for(shopper, n, model, out)

    def shopper(
        self,
        user: str,
        as_of: pd.Timestamp | str | None = None,
        history: pd.DataFrame | None = None,
    ) -> Shopper:
        """A user at a moment; purchases of items outside the catalogue are left out.

        as_of: what was bought until then counts for the rules; the models know what was bought
            until their cut, which is the default.
        history: later purchases (item_id, ts, [price]) that count too. Those of a stranger become
            what item_cf goes by.
        """
        moment = self._naive(as_of)
        code = int(self.user_ids_.get_indexer([str(user)])[0])
        lines = slice(*self.line_start_[code : code + 2]) if code >= 0 else slice(0, 0)
        items = self.line_item_[lines]
        days = self.line_age_[lines] + (moment - self.as_of) / DAY
        prices = self.line_price_[lines]
        if history is not None:
            for column in ("item_id", "ts"):
                if column not in history:
                    raise LabError(
                        f"history lacks the column {column}: it takes item_id, ts, optional price"
                    )
            unknown = np.full(len(history), np.nan)
            later = history["price"].to_numpy(float) if "price" in history else unknown
            items = np.append(items, codes(history["item_id"], self.item_ids_))
            days = np.append(days, (moment - history["ts"]) / DAY)
            prices = np.append(prices, later)
        is_past = (days >= -ROUNDING) & (items >= 0)
        return Shopper(
            str(user),
            code,
            moment,
            items[is_past],
            np.maximum(days[is_past], 0),
            prices[is_past],
        )

    def list_for(
        self,
        shopper: Shopper,
        n: int,
        model: str = "hybrid",
        closed: np.ndarray | None = None,
        capped: bool = True,
        bonus: np.ndarray | None = None,
    ) -> Answer:
        """The n best items for a shopper, with price, reason and source.

        closed: (items,) bool, what must not be listed. capped: whether the rules' highest price
        holds; it does not where the shopper named a range. bonus: (items,) what to add to the blend
        before the rules. Fewer than n only where fewer are allowed.
        """
        _check_n(n)
        days = shopper.days_since_purchase(len(self.item_ids_))
        parts, share = self.shares(shopper, model)
        blend = parts.sum(axis=0)
        if bonus is not None:
            blend = blend + bonus
        final, drop = self._ruled(blend, np.array([shopper.mean_price]), days[None], capped)
        open_blend = blend if closed is None else np.where(closed, -np.inf, blend)
        score = self._tiers(open_blend, final, drop)[0]
        score[drop[0]] = -np.inf
        if closed is not None:
            score[closed] = -np.inf
        best = top_k(score[None], n)[0]
        best = best[score[best] > -np.inf]
        rows = self._explained(
            shopper,
            best,
            _relevance(final[0, best], score[best] >= 0),
            _source(parts, share)[0, best],
            days[best],
        )
        # Popularity answers where neither ALS nor item_cf, though they have weight, know the user.
        has_fallen_back = share[:2].max() == 0 and self._weights(model)[:2].max() > 0
        return Answer(rows, "popularity" if has_fallen_back else model, bool(has_fallen_back))

    def lists_for(self, codes: np.ndarray, n: int, closed: np.ndarray | None = None) -> np.ndarray:
        """(users, n) item codes, best first: `list_for` of known users, scored all at once.

        codes: of users as they stood at the models' cut. closed: (users, items) bool, what must
        not be listed. −1 where no more is allowed.
        """
        _check_n(n)
        score = self._ranking(codes, closed)
        score[score < LOWEST_REST] = -np.inf
        if closed is not None:
            score[closed] = -np.inf
        best = top_k(score, n)
        found = np.take_along_axis(score, best, axis=1) > -np.inf
        best = np.where(found, best, -1)
        return np.pad(best, ((0, 0), (0, n - best.shape[1])), constant_values=-1)

    def user_info(
        self,
        user: str,
        as_of: pd.Timestamp | str | None = None,
        history: pd.DataFrame | None = None,
    ) -> dict:
        """`describe` of a user at a moment."""
        return self.describe(self.shopper(user, as_of, history))

    def describe(self, shopper: Shopper) -> dict:
        """user_type, spending_segment, lines, distinct items, mean price, last purchase."""
        mean = shopper.mean_price
        lines = len(shopper.items)
        segment = segments(np.array([mean]), self.bounds_, self.knobs.user_segments)[0]
        user_type = "loyal" if lines >= self.knobs.loyal_purchases else "new"
        last = None
        if lines:
            last = (shopper.moment - pd.Timedelta(days=shopper.days.min())).round("us")
        return {
            "user_id": shopper.user_id,
            "user_type": user_type if lines else "unknown",
            "spending_segment": SPENDING[segment],
            "total_purchases": lines,
            "unique_items": len(np.unique(shopper.items)),
            "avg_item_price": None if np.isnan(mean) else mean,
            "last_purchase_date": last,
        }

    def outside(self, low: float | None = None, high: float | None = None) -> np.ndarray:
        """(items,) bool: outside a price range, both ends inclusive; an item without price is."""
        if low is None and high is None:
            return np.zeros(len(self.price_), bool)
        low = _checked_price("price_min", low, 0.0)
        high = _checked_price("price_max", high, np.inf)
        if low > high:
            raise LabError(f"price_min is {low:g}, above price_max, {high:g}: swap them")
        if np.isnan(self.price_).all():
            raise LabError(
                "price_min and price_max need prices, and these receipts have none: leave them out"
            )
        return ~((self.price_ >= low) & (self.price_ <= high))

    def shares(self, shopper: Shopper, model: str) -> tuple[np.ndarray, np.ndarray]:
        """(models, 1, items) parts of a shopper's blend, and (models, 1) shares of the models.

        For a shopper without history item_cf uses the purchases given in the request. An item is
        most like itself, so with a few purchases their neighbours would get almost none of the
        scale: what was bought scores no more than the best of what was not.
        """
        raw = self._raw(np.array([shopper.code]))
        if shopper.code < 0 and len(shopper.items):
            tau = self.parts["item_cf"].tau or np.inf
            score = self.similarity[shopper.items].T @ np.exp(-shopper.days / tau)
            best_new = np.delete(score, shopper.items).max(initial=0)
            score[shopper.items] = np.minimum(score[shopper.items], best_new)
            raw[1, 0] = score
        return _blended(raw, self._weights(model))

    def alike(self, items: np.ndarray) -> np.ndarray:
        """(n, n) cosine of items by the shoppers who bought both, as the report's diversity."""
        bought = (self.seen_[:, items] > 0).astype(np.float32)
        both = (bought.T @ bought).toarray()
        size = np.sqrt(both.diagonal())
        return both / np.maximum(np.outer(size, size), 1e-12)

    def learnt(self) -> dict:
        """What fitting learnt, by name; of the parts as `part.name`."""
        found = super().learnt()
        for part, model in self.parts.items():
            for name, value in model.learnt().items():
                if name not in SHARED:
                    found[f"{part}.{name}"] = value
        return found

    def restore(self, learnt: dict, as_of: pd.Timestamp) -> None:
        """Take back what `learnt` gave."""
        super().restore({name: value for name, value in learnt.items() if "." not in name}, as_of)
        shared = {name: getattr(self, name) for name in SHARED}
        for part, model in self.parts.items():
            own = {
                name.removeprefix(f"{part}."): value
                for name, value in learnt.items()
                if name.startswith(f"{part}.")
            }
            model.restore(shared | own, as_of)

    def _fit(self, data: Interactions) -> None:
        for part in self.parts.values():
            part.fit(data)
        self.price_ = data.price
        self.cycle_ = observed_cycles(data)
        self.last_ = last_purchases(data)
        self.shoppers_ = np.bincount(data.seen.indices, minlength=data.shape[1])
        self.mean_price_ = user_prices(data)
        self.bounds_ = segment_bounds(self.mean_price_, self.knobs.user_segments)
        self._keep_lines(data)

    def _keep_lines(self, data: Interactions) -> None:
        """Every line by user, oldest first: what a shopper at a moment needs."""
        unknown = np.full(len(data.user), np.nan)
        has_prices = "price" in data.purchases
        price = data.purchases["price"].to_numpy(float) if has_prices else unknown
        order = np.lexsort((data.item, -data.age, data.user))
        self.line_item_ = data.item[order]
        self.line_age_ = data.age[order]
        self.line_price_ = price[order]
        self.line_start_ = np.searchsorted(data.user[order], np.arange(data.shape[0] + 1))

    def _scores(self, users: np.ndarray) -> np.ndarray:
        return self._all_scores(users, None, None)

    def _all_scores(
        self, users: np.ndarray, names: pd.Index | None, profiles: pd.DataFrame | None
    ) -> np.ndarray:
        return self._ranking(users).astype(np.float32)

    def _ranking(self, users: np.ndarray, closed: np.ndarray | None = None) -> np.ndarray:
        """(users, items) final scores; closed items are no candidates.

        Users with code −1, without history, get popularity and the default segment's limit.
        """
        parts, _ = _blended(self._raw(users), self._weights("hybrid"))
        blend = parts.sum(axis=0)
        days = np.full(blend.shape, np.nan, np.float64)
        known = np.flatnonzero(users >= 0)
        last = self.last_[users[known]]
        days[np.repeat(known, np.diff(last.indptr)), last.indices] = last.data
        mean_price = np.append(self.mean_price_, np.nan)[users]
        final, drop = self._ruled(blend, mean_price, days)
        return self._tiers(
            blend if closed is None else np.where(closed, -np.inf, blend), final, drop
        )

    def _similar(self, item: int) -> np.ndarray:
        return self.parts["item_cf"]._similar(item)

    def _raw(self, users: np.ndarray) -> np.ndarray:
        """(models, users, items) scores as each part gives them.

        0 where it does not know the user.
        """
        raw = np.zeros((len(PARTS), len(users), len(self.item_ids_)), np.float32)
        is_known = users >= 0
        for position, (name, part) in enumerate(self.parts.items()):
            rows = is_known | (name == "popularity")
            raw[position, rows] = part._scores(users[rows])
        return raw

    def _weights(self, model: str) -> np.ndarray:
        """(models,) shares of a selectable model."""
        if model not in MODELS:
            raise LabError(f"model '{model}' is unknown: choose {', '.join(MODELS)}")
        if model == "hybrid":
            shares = [getattr(self.knobs.model_weights, name) for name in PARTS]
        else:
            shares = [float(name == model) for name in PARTS]
        return np.array(shares, np.float32)

    def _ruled(
        self, blend: np.ndarray, mean_price: np.ndarray, days: np.ndarray, capped: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """(users, items) relevance after the rules, and which items they drop."""
        limit = np.full((len(mean_price), 1), np.inf)
        if capped:
            limit = price_limits(mean_price, self.bounds_, self.knobs)[:, None]
        drop = dropped(self.price_, limit, days, self.cycle_, self.knobs)
        score = adjusted(blend, self.price_, mean_price[:, None], self.knobs)
        relevance = score / attainable(self.price_, self.knobs)
        return relevance, np.broadcast_to(drop, blend.shape)

    def _tiers(self, blend: np.ndarray, final: np.ndarray, drop: np.ndarray) -> np.ndarray:
        """Final scores of the candidates, the best of the blend; of the rest − 2; dropped − 4."""
        pool = top_k(blend, self.knobs.candidate_pool_size)
        tiers = final - 2
        np.put_along_axis(tiers, pool, np.take_along_axis(final, pool, axis=1), axis=1)
        return np.where(drop, final - 4, tiers)

    def _naive(self, as_of: pd.Timestamp | str | None) -> pd.Timestamp:
        """A moment in UTC without zone, as receipts have it; the models' cut by default."""
        moment = self.as_of if as_of is None else pd.Timestamp(as_of)
        return moment if moment.tz is None else moment.tz_convert(None)

    def _explained(
        self,
        shopper: Shopper,
        best: np.ndarray,
        relevance: np.ndarray,
        source: np.ndarray,
        days: np.ndarray,
    ) -> pd.DataFrame:
        source = np.array(PARTS)[source]
        bought = np.unique(shopper.items)
        similarity = self.similarity[bought][:, best].toarray()
        is_neighbour = (similarity > 0) & (bought[:, None] != best)
        neighbours = is_neighbour.sum(axis=0)
        reason = reasons(source, neighbours, self.shoppers_[best], days, self.cycle_[best])
        return pd.DataFrame(
            {
                "item_id": self.item_ids_[best],
                "relevance": relevance,
                "price": self.price_[best],
                "reason": reason,
                "source": source,
            }
        )


def _blended(raw: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(models, users, items) contributions, and (models, users) shares of the able models."""
    scaled = min_max(raw)
    # Whether a model can tell the user's items apart.
    is_able = raw.max(axis=-1) > raw.min(axis=-1)
    share = is_able * weights[:, None]
    # Popularity answers where no model is able.
    share[-1] = np.where(share.sum(axis=0) > 0, share[-1], 1)
    share /= share.sum(axis=0)
    return scaled * share[:, :, None], share


def _source(parts: np.ndarray, share: np.ndarray) -> np.ndarray:
    """(users, items) number of the model with the largest contribution, of those with a share."""
    return np.where(share[..., None] > 0, parts, -1).argmax(axis=0)


def _relevance(final: np.ndarray, is_candidate: np.ndarray) -> np.ndarray:
    """Final scores down a list; what follows the candidates is scaled to stay below them."""
    if is_candidate.all() or not is_candidate.any():
        return final
    last = final[is_candidate][-1]
    first = final[~is_candidate].max()
    return np.where(is_candidate, final, final * min(1, last / max(first, 1e-12)))


def _check_n(n: int) -> None:
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise LabError(f"n is {n!r}: ask for 1 or more items")


def _checked_price(name: str, value: float | None, default: float) -> float:
    if value is None:
        return default
    if not 0 <= value < np.inf:
        raise LabError(f"{name} is {value!r}: it takes a price of 0 or more")
    return float(value)
