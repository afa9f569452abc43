"""Business rules on a list: price limits by segment, upsell, repurchase cycles; and reasons.

`dropped` says what a rule forbids: an item above the shopper's price limit, and an item that was
bought too lately. `adjusted` says how rules change a score. The settings are in `rule_settings`.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from recsys_utils import LabError
from recsys_utils.data.interactions import Interactions, codes, pair_ids
from recsys_utils.data.segments import spending_bounds, spending_codes
from recsys_utils.ensembles.rule_settings import DEFAULTS, Tuning, UserSegments

GRAIN = 1 + 1e-9  # a price equal to a limit is within it, whatever the last bit of the limit says


@dataclass
class Facts:
    """What the rules know of a shop, by user and item code."""

    user_ids: pd.Index
    item_ids: pd.Index
    mean_price: np.ndarray  # (users,) NaN: unknown
    price: np.ndarray  # (items,) NaN: unknown
    cycle: np.ndarray  # (items,) days, NaN: not observed
    last: sparse.csr_matrix  # users × items: days from the last purchase to as_of

    @classmethod
    def of(cls, data: Interactions) -> "Facts":
        """Computed once from the receipts."""
        return cls(
            data.user_ids,
            data.item_ids,
            user_prices(data),
            data.price,
            observed_cycles(data),
            last_purchases(data),
        )


def rerank(
    candidates: pd.DataFrame, facts: Facts, tuning: Tuning = DEFAULTS, later: float = 0
) -> pd.DataFrame:
    """Apply every rule to candidates (user_id, item_id, score in 0…1, …).

    What a rule drops is gone, score is final, ranks start from 1 again.

    Any model's table will do once its scores are in 0…1, as `blend.weighted` makes them. Adds
    `relevance`, the score over the largest that anything could attain. later: days from the facts'
    as_of to now.
    """
    if missing := [c for c in ("user_id", "item_id", "score") if c not in candidates]:
        raise LabError(
            f"the candidates lack the column {missing[0]}: rerank needs user_id, item_id, score"
        )
    if len(odd := candidates["score"][~candidates["score"].between(0, 1)]):
        raise LabError(
            f"a candidate's score is {odd.iloc[0]:g}: rerank needs scores in 0…1, as blend.weighted"
            " makes them"
        )
    user = codes(candidates["user_id"], facts.user_ids)
    item = codes(candidates["item_id"], facts.item_ids)
    # The last value, for the code −1 of who or what is not known.
    mean = np.append(facts.mean_price, np.nan)[user]
    price = np.append(facts.price, np.nan)[item]
    cycle = np.append(facts.cycle, np.nan)[item]
    limit = price_limits(mean, segment_bounds(facts.mean_price, tuning.user_segments), tuning)
    kept = ~dropped(price, limit, _days(facts.last, user, item) + later, cycle, tuning)
    result = candidates.assign(
        score=adjusted(candidates["score"].to_numpy(float), price, mean, tuning)
    )[kept]
    result = result.assign(relevance=result["score"] / attainable(facts.price, tuning))
    order = np.lexsort(
        (item[kept], -result["score"].to_numpy(), pd.factorize(result["user_id"])[0])
    )
    result = result.iloc[order].reset_index(drop=True)
    return result.assign(rank=result.groupby("user_id", observed=True).cumcount() + 1)


def user_prices(data: Interactions) -> np.ndarray:
    """(users,) mean unit price over their lines; NaN where it is 0 or there are no prices.

    It is rounded, so that sums in another order are equal.
    """
    if "price" not in data.purchases:
        return np.full(data.shape[0], np.nan)
    paid = np.bincount(data.user, data.purchases["price"].to_numpy(float), data.shape[0])
    return positive(paid / np.maximum(np.bincount(data.user, minlength=data.shape[0]), 1))


def positive(mean: np.ndarray) -> np.ndarray:
    """Means to six decimals, NaN where they are not above 0."""
    return np.where(mean > 0, np.round(mean, 6), np.nan)


def last_purchases(data: Interactions) -> sparse.csr_matrix:
    """Users × items CSR float64: days from a pair's last purchase to as_of, 0 too."""
    pair = pair_ids(data.user, data.item, data.shape[1])
    pairs, at = np.unique(pair, return_inverse=True)
    days = np.full(len(pairs), np.inf)
    np.minimum.at(days, at, data.age)
    starts = np.searchsorted(pairs, np.arange(data.shape[0] + 1) * data.shape[1])
    return sparse.csr_matrix(
        (days, (pairs % data.shape[1]).astype(np.int32), starts.astype(np.int32)), shape=data.shape
    )


def segment_bounds(mean_price: np.ndarray, knobs: UserSegments) -> np.ndarray:
    """(4,) upper bounds of the spending segments under the settings."""
    return spending_bounds(mean_price, (knobs.small, knobs.low_average, knobs.average))


def segments(mean_price: np.ndarray, bounds: np.ndarray, knobs: UserSegments) -> np.ndarray:
    """Codes of the spending segments under the settings."""
    return spending_codes(mean_price, bounds, knobs.default)


def price_limits(mean_price: np.ndarray, bounds: np.ndarray, tuning: Tuning) -> np.ndarray:
    """The highest price that each user is offered.

    It is the tolerance times their segment's upper bound and, with mode "cap", times their mean.
    """
    tolerance = tuning.price_sensitivity.budget_tolerance
    limit = np.full(np.shape(mean_price), np.inf)
    if tuning.user_segments.enabled:
        limit = tolerance * bounds[segments(mean_price, bounds, tuning.user_segments)]
    return (
        np.fmin(limit, tolerance * mean_price) if tuning.price_sensitivity.mode == "cap" else limit
    )


def dropped(
    price: np.ndarray, limit: np.ndarray, days: np.ndarray, cycle: np.ndarray, tuning: Tuning
) -> np.ndarray:
    """Whether an item is too expensive or was bought too recently.

    An item without a price, or never bought (NaN), is neither. NaN as a cycle stands for the
    default.
    """
    dear = price > limit * GRAIN
    knobs = tuning.repurchase_cycle
    if not knobs.enabled:
        return dear
    usual = np.where(np.isnan(cycle), knobs.default_cycle_days, cycle)
    return dear | (days < knobs.exclusion_factor * usual)


def adjusted(
    score: np.ndarray, price: np.ndarray, mean_price: np.ndarray, tuning: Tuning
) -> np.ndarray:
    """Scores in 0…1 after the price penalty and the upsell boost.

    Without a price or a mean price they stay as they were.
    """
    knobs = tuning.price_sensitivity
    upsell = tuning.upsell
    ratio = price / mean_price
    if knobs.mode == "penalty":
        part = (ratio - knobs.budget_tolerance) / (knobs.full_penalty_at - knobs.budget_tolerance)
        score = score * (1 - knobs.max_penalty * np.clip(np.nan_to_num(part), 0, 1))
    if upsell.enabled and knobs.budget_tolerance > 1:
        gains = (ratio > 1) & (ratio <= knobs.budget_tolerance * GRAIN)
        score = score + np.where(
            gains,
            upsell.factor * upsell.price_boost_weight * (ratio - 1) / (knobs.budget_tolerance - 1),
            0,
        )
    return score


def attainable(price: np.ndarray, tuning: Tuning) -> float:
    """The largest final score that any item could reach.

    It is 1, plus the whole boost where there are prices.
    """
    boost = (
        tuning.upsell.enabled
        and tuning.price_sensitivity.budget_tolerance > 1
        and not np.isnan(price).all()
    )
    return 1 + boost * tuning.upsell.factor * tuning.upsell.price_boost_weight


def arranged(
    worth: np.ndarray, alike: np.ndarray, n: int, diversity: float, first: int = 0
) -> np.ndarray:
    """Places of n items by maximal marginal relevance (Carbonell & Goldstein 1998), best first.

    Each next item has the highest (1 − diversity) · worth − diversity · its greatest likeness to
    those before it; ties go to the earlier place.

    worth: (m,) relevance in 0…1, best first. alike: (m, m) likeness of two items in 0…1.
    first: so many items stay in front, in their order.

    >>> alike = np.array([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]])
    >>> arranged(np.array([0.9, 0.8, 0.5]), alike, 2, 0.0).tolist()
    [0, 1]
    >>> arranged(np.array([0.9, 0.8, 0.5]), alike, 2, 0.5).tolist()
    [0, 2]
    """
    is_open = np.ones(len(worth), bool)
    nearest = np.zeros(len(worth))
    places = []
    for place in range(min(n, len(worth))):
        margin = np.where(is_open, (1 - diversity) * worth - diversity * nearest, -np.inf)
        best = place if place < first else int(margin.argmax())
        places.append(best)
        is_open[best] = False
        nearest = np.maximum(nearest, alike[best])
    return np.array(places, int)


def in_force(price: np.ndarray, tuning: Tuning) -> dict[str, str]:
    """Each rule with "on", "off", or why it cannot act.

    Price rules leave items without a price alone.
    """
    bare = "off: no prices in the receipts" if np.isnan(price).all() else ""
    wanted = {
        "user_segments": tuning.user_segments.enabled,
        "price_sensitivity": tuning.price_sensitivity.mode != "off",
        "upsell": tuning.upsell.enabled,
    }
    result = {rule: (bare or "on") if on else "off" for rule, on in wanted.items()}
    return result | {"repurchase_cycle": "on" if tuning.repurchase_cycle.enabled else "off"}


def reasons(
    source: np.ndarray,
    neighbours: np.ndarray,
    shoppers: np.ndarray,
    days: np.ndarray,
    cycle: np.ndarray,
) -> list[str]:
    """Why each item is shown, true by construction.

    A restock is due where the item's cycle is observed (not NaN) and has passed since the user's
    last purchase. Otherwise the model with the largest contribution gives the reason: the
    neighbours among what the user bought, or the number of shoppers.
    """
    return [
        _reason(*row)
        for row in zip(
            *(np.asarray(column).tolist() for column in (source, neighbours, shoppers, days, cycle))
        )
    ]


def _reason(source: str, neighbours: int, shoppers: int, days: float, cycle: float) -> str:
    if days >= cycle:
        return f"Time to restock: usual cycle {_of(max(1, round(cycle)), 'day')}"
    if source == "item_cf" and neighbours:
        return f"Similar to {_of(neighbours, 'item')} in your purchase history"
    if source == "popularity":
        return popular_with(shoppers)
    return "Matches your preferences"


def popular_with(shoppers: int) -> str:
    """The reason of what sells."""
    return f"Popular with {_of(shoppers, 'shopper')}" if shoppers else "Nobody bought it yet"


def _of(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'s' * (n != 1)}"


def observed_cycles(data: Interactions) -> np.ndarray:
    """(items,) median over users of the median gap in days.

    NaN where no user bought the item on two days.
    """
    day = data.purchases["ts"].to_numpy().astype("datetime64[D]").astype(np.int64)
    span = np.ptp(day) + 1
    pair, day = np.divmod(
        np.sort(pair_ids(data.user, data.item, data.shape[1]) * span + day - day.min()),
        span,
    )
    same = (pair[1:] == pair[:-1]) & (day[1:] > day[:-1])
    usual = pd.Series(np.diff(day)[same], dtype=float).groupby(pair[1:][same]).median()
    return (
        usual.groupby(usual.index.to_numpy() % data.shape[1])
        .median()
        .reindex(range(data.shape[1]))
        .to_numpy(float)
    )


def _days(last: sparse.csr_matrix, user: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Days since the last purchase of pairs; NaN where there was none.

    Stored zeros are purchases too, so pairs are looked up, not values.
    """
    held = pair_ids(
        np.repeat(np.arange(last.shape[0]), np.diff(last.indptr)), last.indices, last.shape[1]
    )
    wanted = pair_ids(user, item, last.shape[1])
    at = np.minimum(np.searchsorted(held, wanted), len(held) - 1)
    found = (user >= 0) & (item >= 0) & (held[at] == wanted)
    return np.where(found, last.data[at], np.nan)
