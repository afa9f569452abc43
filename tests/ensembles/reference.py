"""What the hybrid's tests compare with.

Its pool of candidates, and facts computed from receipts.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from recsys_utils.data.interactions import Interactions
from recsys_utils.data.segments import SPENDING
from recsys_utils.ensembles.business_rules import (
    observed_cycles,
    segment_bounds,
    segments,
    user_prices,
)
from recsys_utils.ensembles.hybrid import PARTS, Hybrid, _blended, _source
from recsys_utils.ensembles.rule_settings import DEFAULTS, Tuning

# Settings that switch every rule off; drop an entry to have that rule alone.
NO_RULES = {
    "upsell": {"enabled": False},
    "user_segments": {"enabled": False},
    "repurchase_cycle": {"enabled": False},
    "price_sensitivity": {"mode": "off"},
}


def candidates(
    model: Hybrid,
    users: Iterable[str],
    exclude: object = None,
    only: Iterable[str] | None = None,
    price_min: float | None = None,
    price_max: float | None = None,
    part: str = "hybrid",
) -> pd.DataFrame:
    """Each user's best allowed items of the blend, before any rule.

    Columns: user_id, item_id, score, rank, source.
    """
    users = pd.Index(pd.unique(pd.Series(users, dtype=str)), name="user_id")
    if not len(users):
        return model.recommend(users).assign(source=[])
    closed = model.outside(price_min, price_max)
    if only is not None:
        closed = closed | ~model.item_ids_.isin([str(item) for item in only])
    known = model.user_ids_.get_indexer(users)
    banned = model._banned(users, exclude)
    parts, share = _blended(model._raw(known), model._weights(part))
    size = model.knobs.candidate_pool_size
    columns, scores = model._block(parts.sum(axis=0), banned, closed, size)
    source = np.take_along_axis(_source(parts, share), columns, axis=1)
    table = model._table(users, columns, scores)
    return table.assign(source=pd.Categorical.from_codes(source[scores > -np.inf], list(PARTS)))


def profiles(data: Interactions, tuning: Tuning = DEFAULTS) -> pd.DataFrame:
    """Each user's lines, distinct items, mean unit price, last purchase and spending segment, by
    user_id.

    A mean of 0 and receipts without prices are no mean: NaN, and the default segment.
    """
    mean = user_prices(data)
    segment = segments(mean, segment_bounds(mean, tuning.user_segments), tuning.user_segments)
    last = data.purchases["ts"].groupby(data.user).max().set_axis(data.user_ids)
    return pd.DataFrame(
        {
            "purchases": np.bincount(data.user, minlength=data.shape[0]),
            "unique_items": np.diff(data.seen.indptr),
            "mean_price": mean,
            "last_purchase": last,
            "segment": np.array(SPENDING)[segment],
        },
        index=data.user_ids,
    )


def item_features(data: Interactions) -> pd.DataFrame:
    """Each item's median price (NaN without prices), lines, distinct shoppers and units, by
    item_id.
    """
    units = np.bincount(data.item, data.purchases["quantity"].to_numpy(float), data.shape[1])
    return pd.DataFrame(
        {
            "price": data.price,
            "lines": np.bincount(data.item, minlength=data.shape[1]),
            "shoppers": np.bincount(data.seen.indices, minlength=data.shape[1]),
            "units": units,
        },
        index=data.item_ids,
    )


def cycles(data: Interactions, tuning: Tuning = DEFAULTS) -> pd.DataFrame:
    """Each item's usual days between two purchases by the same user, by item_id.

    Cycle_days, observed.

    The median over users of the median gap between a user's distinct purchase days. An item that
    nobody bought on two days takes the default and is not observed.
    """
    cycle = observed_cycles(data)
    return pd.DataFrame(
        {
            "cycle_days": np.where(
                np.isnan(cycle), tuning.repurchase_cycle.default_cycle_days, cycle
            ),
            "observed": ~np.isnan(cycle),
        },
        index=data.item_ids,
    )
