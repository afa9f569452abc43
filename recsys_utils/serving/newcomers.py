"""A new customer's form and list: which questions matter, and why a product is on the list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from recsys_utils.serving.answers_live import RatedItem
from recsys_utils.serving.artifacts import UNKNOWN, Artifacts
from recsys_utils.serving.lists import STOCK, STRANGER

if TYPE_CHECKING:
    from recsys_utils.models.towers.standalone import StandaloneRecommender

TRIED = 12  # values of a field that are tried
MOST = "Liked by most customers"


@lru_cache(maxsize=2)
def weights_of_fields(tower: StandaloneRecommender) -> dict[str, float]:
    """What each field changes in the scores that make the list, as a part of all; they sum to 1.

    A field's change is the standard deviation of a product's score over the field's values, where
    nothing else is known, averaged over the products.
    """
    change = {}
    for name in tower.fields:
        rows = pd.DataFrame({name: _values(tower, name)})
        change[name] = float(scores(tower, rows).std(axis=0).mean())
    total = max(sum(change.values()), 1e-12)
    return {name: round(value / total, 4) for name, value in change.items()}


def scores(tower: StandaloneRecommender, profiles: pd.DataFrame) -> np.ndarray:
    """(profiles, products) what orders a list: the towers for lists where there are some."""
    profiles = profiles.set_axis([f"new customer {n}" for n in range(len(profiles))])
    if tower.lists is None:
        return tower.ratings(profiles)
    known = tower.lists.item_ids.get_indexer(tower.names)
    return tower.lists.of_anybody(profiles)[:, known[known >= 0]]


def reasons_of_profile(
    tower: StandaloneRecommender, profile: Mapping, products: Sequence[str]
) -> list[str]:
    """Why each product is listed: the answer that raises it most above the others.

    Where none does, most customers like it.
    """
    given = {name: value for name, value in profile.items() if value is not None}
    if not given:
        return [MOST] * len(products)
    less = [{k: v for k, v in given.items() if k != name} for name in given]
    rows = pd.DataFrame([given, *less], columns=list(given))
    score = scores(tower, rows)
    names = tower.names
    if tower.lists is not None:
        names = names[tower.lists.item_ids.get_indexer(names) >= 0]
    at = names.get_indexer(list(products))
    score = score - score.mean(axis=1, keepdims=True)  # what raises everything recommends nothing
    gain = np.where(at >= 0, score[0, at] - score[1:, at], 0)
    best = gain.argmax(axis=0)
    answers = list(given.items())
    return [_suits(*answers[field]) if gain[field, n] > 0 else MOST for n, field in enumerate(best)]


def rated_item(art: Artifacts, item: dict[str, str], rating: float, reason: str) -> RatedItem:
    """A product of the towers with what the shop knows of it now."""
    name = item[art.tower.product]
    code = art.code_of_name.get(name, -1)
    attributes = [value for key, value in item.items() if key != art.tower.product]
    price = np.nan if code < 0 else art.hybrid.price_[code]
    return RatedItem(
        item=item,
        rating=rating,
        item_id=None if code < 0 else art.items.index[code],
        item_name=name if code < 0 else art.names[code],
        category=next(iter(attributes), None) if code < 0 else art.categories[code],
        item_price=None if np.isnan(price) else float(price),
        stock=STOCK[UNKNOWN if code < 0 else int(art.stock_of(STRANGER)[code])],
        reason=reason,
    )


def _values(tower: StandaloneRecommender, name: str) -> list:
    """Some values of a field, spread over all that it has."""
    if name in tower.encoder.user_num_cols:
        numbers = tower.profiles[name].dropna()
        return np.unique(np.quantile(numbers, np.linspace(0.05, 0.95, 5))).tolist()
    options = list(tower.encoder.mappings[name])
    return [
        options[at] for at in np.linspace(0, len(options) - 1, min(TRIED, len(options))).astype(int)
    ]


def _suits(field: str, value: object) -> str:
    shown = f"{value:g}" if isinstance(value, int | float) else str(value)
    return f"Suits {field.replace('_', ' ').lower()} {shown}"
