"""What it costs to promise new items in a list, and what it finds."""

import numpy as np
import pandas as pd

from recsys_utils.data.folds import Stage
from recsys_utils.ensembles.new_for_you import with_new
from recsys_utils.evaluation import significance, slices
from recsys_utils.evaluation.metrics import per_user


def promise_costs(
    best: pd.DataFrame, new: pd.DataFrame, stage: Stage, k: int = 5, seed: int = 0
) -> pd.DataFrame:
    """Lists of k items with at least 0…k new ones, over all warm shoppers.

    Returns n; precision@k of any purchase with its 95 % interval lo, hi; change against the list
    without a promise on the same shoppers, low, high; first_purchases: items per 100 shoppers that
    were suggested and then bought for the first time, and, where there are prices,
    first_money: what the shoppers spent on those, per shopper.
    """
    history = stage.history
    truth = slices.warm(stage.truth, history)
    first = truth[~slices.bought_before(truth, history)]
    shoppers = truth["user_id"].astype(str).unique()
    rows = []
    values = []
    for n in range(k + 1):
        recs = with_new(best, new, history, n, k)
        values.append(per_user(recs, truth, k)["precision"].to_numpy())
        found = per_user(recs, first, k)
        row = {"n": n, "first_purchases": 100 * k * found["precision"].sum() / len(shoppers)}
        if "revenue" in found:
            row["first_money"] = found["revenue"].sum() / len(shoppers)
        rows.append(row)
    precisions = np.stack(values, axis=1)
    mean, lo, hi = significance.bootstrap(precisions, np.random.default_rng(seed))
    change, low, high = significance.bootstrap(
        precisions - precisions[:, :1], np.random.default_rng(seed)
    )
    table = pd.DataFrame(rows)
    table.insert(1, f"precision@{k}", mean)
    return table.assign(lo=lo, hi=hi, change=change, low=low, high=high)
