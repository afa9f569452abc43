"""One user's list by any model.

A request becomes a `Query`. `look_up` finds the user once: a `Target` holds the query, what was
trained, and the shopper at the moment asked for; everything else takes the target. Filters act
before anything is cut off, and what is missing is filled by what sells.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from recsys_utils import LabError
from recsys_utils.ensembles.business_rules import popular_with
from recsys_utils.ensembles.hybrid import MODELS, Shopper
from recsys_utils.ensembles.new_for_you import NEW_FOR_YOU
from recsys_utils.serving.arrange import (
    DEEP,
    SHOP,
    RankedList,
    Wishes,
    arrange,
    checked_wishes,
    known_codes,
    with_new,
)
from recsys_utils.serving.artifacts import IN, UNKNOWN, Artifacts
from recsys_utils.serving.confidence import of_places
from recsys_utils.serving.online import Online

TITLES = {
    "hybrid": "Hybrid",
    "als": "ALS",
    "item_cf": "Item-item",
    "popularity": "Popularity",
    "two_stage": "Two-stage ranker",
    "two_stage_new": "New for you (two-stage)",
    "main_recommender": "Main recommender",
    "tifuknn": "Next basket (TIFU-KNN)",
    "item_bm25": "Item neighbours (BM25)",
    "preference_pairs": "Preference pairs",
    "progressive": "Progressive online",
    "own_decayed": "Own purchases",
}
STOCK = {UNKNOWN: "unknown", IN: "in_stock", 0: "out_of_stock"}
STRANGER = ""  # no id is empty, so nobody's history is meant


@dataclass(frozen=True)
class Query:
    """A request for a list; equal ones are answered from the cache.

    as_of: the moment to look from. history: item ids that a made-up shopper bought.
    pin_items, boost_items, diversity, min_relevance: as `Merchandising` has them; None: as it says.
    new_items: how many of the n are promised to be new to the shopper.
    """

    user_id: str
    n: int = 5
    model: str = "hybrid"
    as_of: pd.Timestamp | None = None
    exclude_purchased: bool = False
    exclude_items: tuple[str, ...] = ()
    price_min: float | None = None
    price_max: float | None = None
    category: str | None = None
    in_stock_only: bool = False
    history: tuple[str, ...] | None = None
    prefiltered: bool = False
    pin_items: tuple[str, ...] = ()
    boost_items: tuple[str, ...] = ()
    diversity: float | None = None
    min_relevance: float | None = None
    new_items: int = 0


@dataclass
class Target:
    """A query with the user looked up in what was trained.

    user: the code of their row in `users`, −1 for a stranger. shopper: what the models may go by;
        a stranger to them too where nothing was bought by the moment asked for.
    """

    query: Query
    artifacts: Artifacts
    user: int
    shopper: Shopper
    later_purchases: pd.DataFrame | None  # item_id, ts, price: that the models have not learnt

    @property
    def baskets(self) -> int:
        """How many baskets are known of the shopper."""
        if self.is_past:  # one time, one basket
            return len(np.unique(self.shopper.days.round(6)))
        code = self.shopper.code
        trained = int(self.artifacts.users["baskets"].iat[code]) if code >= 0 else 0
        later = 0 if self.later_purchases is None else self.later_purchases["ts"].nunique()
        return trained + later

    @property
    def is_past(self) -> bool:
        """Whether the models have learnt from what happened after the moment asked for."""
        return self.shopper.moment < self.artifacts.hybrid.as_of

    @cached_property
    def newcomer(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Lists by model where only the shop's file of clients knows the shopper; else empty."""
        is_made_up = self.query.history is not None
        if is_made_up or self.user >= 0 or self.later_purchases is not None:
            return {}
        return self.artifacts.lists_of_newcomer(self.query.user_id)

    @cached_property
    def wishes(self) -> Wishes:
        """What people decided of the list."""
        query = self.query
        hybrid = self.artifacts.hybrid
        return checked_wishes(
            hybrid.knobs.merchandising,
            query.pin_items,
            query.boost_items,
            query.diversity,
            query.min_relevance,
            hybrid,
        )

    @property
    def is_new_only(self) -> bool:
        """Whether the list goes without what was bought before."""
        query = self.query
        is_asked = query.exclude_purchased or query.model == NEW_FOR_YOU
        return is_asked or not self.artifacts.manifest["repeats"]

    @property
    def new_by(self) -> str:
        """Which model chooses the items that are promised to be new."""
        has_list = NEW_FOR_YOU in self.artifacts.lists and self.shopper.code >= 0
        return NEW_FOR_YOU if has_list else self.query.model

    @cached_property
    def habits_closed(self) -> np.ndarray:
        """(items,) bool: what was bought, where lists go without it; else nothing."""
        if self.is_new_only:
            return self.is_bought
        return np.zeros(len(self.artifacts.items), bool)

    @cached_property
    def is_bought(self) -> np.ndarray:
        """(items,) bool: what the shopper bought until the moment asked for."""
        mask = np.zeros(len(self.artifacts.items), bool)
        mask[self.shopper.items] = True
        return mask

    @cached_property
    def closed(self) -> np.ndarray:
        """(items,) bool: what the query's filters leave out."""
        query = self.query
        artifacts = self.artifacts
        closed = artifacts.hybrid.outside(query.price_min, query.price_max)
        never = artifacts.hybrid.knobs.merchandising.exclude
        closed[known_codes("exclude_items", (*query.exclude_items, *never), artifacts.hybrid)] = 1
        if query.prefiltered:
            closed |= artifacts.outside_catalogue
        if query.category is not None:
            is_other = artifacts.categories != query.category
            if is_other.all():
                raise LabError(
                    f"category '{query.category[:60]}' is unknown: items show theirs at"
                    " /api/v1/items"
                )
            closed |= is_other
        if query.in_stock_only:
            if not artifacts.stocks:
                raise LabError(
                    "in_stock_only needs a stock table, and this shop's data have none:"
                    " leave it out"
                )
            closed |= artifacts.stock_of(query.user_id) != IN
        return closed | self.habits_closed

    @property
    def is_filtered(self) -> bool:
        """Whether a filter leaves out more than what was bought."""
        return bool((self.closed & ~self.habits_closed).any())


def look_up(query: Query, artifacts: Artifacts, online: Online) -> Target:
    """The user of a query, at the moment it means.

    Without a time of its own, a query means the last moment that is known of the user: the models'
    cut, or a later purchase.
    """
    hybrid = artifacts.hybrid
    if query.history is None:
        later = online.later_purchases(query.user_id)
    else:
        moment = hybrid.as_of if query.as_of is None else query.as_of
        later = pd.DataFrame({"item_id": list(query.history), "ts": moment})
    if later is not None:
        position = artifacts.items.index.get_indexer(later["item_id"])
        later = later.assign(price=np.append(hybrid.price_, np.nan)[position])
        if query.as_of is None:
            query = replace(query, as_of=max(hybrid.as_of, later["ts"].max()))
    shopper = hybrid.shopper(query.user_id, query.as_of, later)
    user = shopper.code
    if not len(shopper.items) and shopper.moment < hybrid.as_of:
        shopper = replace(shopper, code=-1)  # all that is learnt of them, they did later
    return Target(query, artifacts, user, shopper, later)


def recommend(target: Target) -> RankedList:
    """The list that was asked for.

    A client of the shop's file who bought nothing yet gets the list of a model that learnt from
    attributes, where there is one. Reasons say so where the models have learnt from what happened
    after the moment asked for.
    """
    ranked = _arranged(target)
    query = target.query
    if query.new_items:
        deep = replace(query, n=DEEP, model=target.new_by, exclude_purchased=True)
        others = _computed_or_stored(replace(target, query=deep))
        ranked = with_new(ranked, others, target.is_bought, query.new_items, query.n)
    if target.is_past:
        learnt = f" (learnt until {target.artifacts.hybrid.as_of:%Y-%m-%d})"
        ranked.reason = [reason + learnt for reason in ranked.reason]
    return ranked


def _arranged(target: Target) -> RankedList:
    """The list as model and wishes make it."""
    query = target.query
    artifacts = target.artifacts
    model = query.model
    known = (*MODELS, *artifacts.lists)
    if model not in known:
        raise LabError(f"model '{model[:60]}' is unknown: choose {', '.join(known)}")
    if query.new_items > query.n:
        raise LabError(
            f"new_items is {query.new_items}, and the list has {query.n} items: promise at most"
            f" {query.n} new ones"
        )
    wishes = target.wishes
    if query.min_relevance and model not in MODELS:
        raise LabError(
            f"min_relevance needs scores with a scale, and those of {model} have none: choose"
            f" {', '.join(MODELS)} or leave it out"
        )
    depth = query.n if wishes.is_plain else max(query.n, DEEP)
    deep = replace(target, query=replace(query, n=depth))
    if target.newcomer and model not in target.newcomer:
        told = next(iter(target.newcomer))
        listed = stored_list(replace(deep, query=replace(deep.query, model=told)))
        ranked = replace(listed, fallback_used=True)
    else:
        ranked = _computed_or_stored(deep)
    if not wishes.is_plain:
        has_scale = not np.isnan(ranked.relevance).any() and model in MODELS
        closed = target.closed
        ranked = arrange(ranked, wishes, closed, query.n, artifacts.hybrid, has_scale)
    return ranked


def _computed_or_stored(target: Target) -> RankedList:
    return computed_list(target) if target.query.model in MODELS else stored_list(target)


def computed_list(target: Target) -> RankedList:
    """By the hybrid or one of its parts, computed now."""
    query = target.query
    artifacts = target.artifacts
    # A range that the shopper names takes the place of the rules' highest price.
    capped = query.price_min is None and query.price_max is None
    hybrid = artifacts.hybrid
    bonus = target.wishes.bonus(len(artifacts.items))
    answer = hybrid.list_for(target.shopper, query.n, query.model, target.closed, capped, bonus)
    rows = answer.rows
    relevance = np.clip(rows["relevance"].to_numpy(float), 0, 1)
    item = artifacts.items.index.get_indexer(rows["item_id"])
    place = np.arange(1.0, len(item) + 1)
    if target.is_filtered or not capped or bonus is not None:
        whole = hybrid.list_for(target.shopper, DEEP, query.model, target.habits_closed).rows
        place = _places(item, artifacts.items.index.get_indexer(whole["item_id"]))
    return RankedList(
        item,
        relevance,
        relevance,
        place,
        rows["reason"].tolist(),
        rows["source"].tolist(),
        answer.primary_model,
        answer.fallback_used,
    )


def _places(items: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """(n,) places of items in a whole list, from 1; what lies deeper is just behind it."""
    place = np.full(max(items.max(initial=-1), whole.max(initial=-1)) + 1, len(whole) + 1.0)
    place[whole] = np.arange(1, len(whole) + 1)
    return place[items]


def stored_list(target: Target) -> RankedList:
    """By a table made in training; what is missing to n comes from the items that sell most.

    The tables' scores have no attainable maximum, so that only the rank says how relevant an item
    is. What sells is as relevant as its part of the units of the item that sells most.
    """
    query = target.query
    artifacts = target.artifacts
    item = np.zeros(0, np.int32)
    score = np.zeros(0, np.float32)
    if target.shopper.code >= 0:
        item, score = artifacts.lists[query.model].of_user(target.shopper.code)
    elif query.model in target.newcomer:
        item, score = target.newcomer[query.model]
    is_open = ~target.closed[item]
    place = np.cumsum(~target.habits_closed[item])[is_open][: query.n]
    item = item[is_open][: query.n]
    score = score[is_open][: query.n]

    sellers = artifacts.by_units
    is_left = ~target.closed[sellers] & ~np.isin(sellers, item)
    extra = sellers[is_left][: query.n - len(item)]
    sold = np.cumsum(~target.habits_closed[sellers])[is_left][: query.n - len(item)]
    units = artifacts.items["units"].to_numpy(float)
    share = units[extra] / max(units.max(), 1e-12)
    return RankedList(
        np.append(item, extra).astype(int),
        np.append(np.full(len(item), np.nan), share),
        np.append(score, artifacts.hybrid.popularity[extra]),
        np.append(place, sold).astype(float),
        _reasons(target, item) + [_popular_with(artifacts, i) for i in extra],
        [query.model] * len(item) + ["popularity"] * len(extra),
        query.model if len(item) else "popularity",
        not len(item),
    )


def confidences(target: Target, ranked: RankedList) -> Sequence[float | None]:
    """(n,) how often suggestions at such a place were bought in the last weeks; None: not known.

    Of lists without what was bought before far less is bought than of others. A place is one of the
    model's own list, so that a filter does not make what lies deep look sure.
    """
    artifacts = target.artifacts
    cells = artifacts.cells_of("new" if target.is_new_only else "any")
    if cells is None:
        return [None] * len(ranked.item)
    is_computed = target.query.model in MODELS
    by_source = {}
    for source in set(ranked.source):
        is_list = (is_computed and source not in artifacts.lists) or source == SHOP
        model = ranked.primary_model if is_list else source
        by_source[source] = of_places(cells, model, ranked.place, target.baskets)
    shares = [by_source[source][n] for n, source in enumerate(ranked.source)]
    return [None if np.isnan(share) else float(share) for share in shares]


def _reasons(target: Target, items: np.ndarray) -> list[str]:
    model = target.query.model
    if model == NEW_FOR_YOU:
        return _reasons_of_new(target, items)
    reasons = []
    for item in items:
        if target.is_bought[item]:
            reasons.append("You bought it before")
        elif target.newcomer:
            reasons.append("Liked by shoppers with a similar profile")
        elif model == "own_decayed":
            reasons.append(_popular_with(target.artifacts, item))
        else:
            reasons.append(f"Chosen by: {TITLES[model]}")
    return reasons


def _reasons_of_new(target: Target, items: np.ndarray) -> list[str]:
    """The item of the history that most of an item's shoppers bought too, if there is one."""
    artifacts = target.artifacts
    bought = np.unique(target.shopper.items)
    together = artifacts.hybrid.similarity[bought][:, items].toarray()
    reasons = []
    for alike, item in zip(together.T, items):
        if alike.max(initial=0) > 0:
            name = artifacts.names[bought[alike.argmax()]]
            reasons.append(f"New for you: goes with {name}")
        else:
            reasons.append(f"New for you: {_popular_with(artifacts, item).lower()}")
    return reasons


def _popular_with(artifacts: Artifacts, item: int) -> str:
    return popular_with(int(artifacts.hybrid.shoppers_[item]))
