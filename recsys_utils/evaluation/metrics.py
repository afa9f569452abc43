"""Per-user metric values. The mean is somebody else's business: see `compare`."""

import numpy as np
import pandas as pd
from scipy import sparse

from recsys_utils.data.interactions import Interactions, codes, distinct


def per_user(recs: pd.DataFrame, truth: pd.DataFrame, k: int) -> pd.DataFrame:
    """One row for every user of `truth`, zeros where the user was not served.

    recs: user_id, item_id, rank. truth: user_id, item_id, distinct or not; with `quantity` and `price` also revenue.

    precision: hits / k, short lists too · recall: hits / bought · ndcg: IDCG over min(k, bought) · map: mean over all
    bought items of the precision at their ranks · mrr: 1 / rank of the first hit · hit_rate: any hit ·
    revenue: money the shopper then spent on the hits · revenue_share: that over all they spent.
    Accuracy is as in ranx (Bassani 2022) for lists without equal scores.
    """
    users, user, item, money = _truth(truth)
    bought = np.bincount(user, minlength=len(users))
    row, rank, at = _hits(recs[recs["rank"] <= k], users, user, item)
    gain = 1 / np.log2(np.arange(2, k + 2))
    count = np.bincount(row, minlength=len(users))
    order = np.lexsort((rank, row))
    row, rank, at = row[order], rank[order], at[order]
    nth = np.arange(len(row)) - np.searchsorted(row, row) + 1  # the hit's number within its list
    first = np.full(len(users), np.inf)
    first[row[nth == 1]] = rank[nth == 1]
    made = {
        "precision": count / k,
        "recall": count / bought,
        "ndcg": np.bincount(row, gain[rank - 1], len(users))
        / np.cumsum(gain)[np.minimum(bought, k) - 1],
        "map": np.bincount(row, nth / rank, len(users)) / bought,
        "mrr": 1 / first,
        "hit_rate": (count > 0).astype(float),
    }
    if money is not None:
        caught, spent = (
            np.bincount(row, money[at], len(users)),
            np.bincount(user, money, len(users)),
        )
        made |= {
            "revenue": caught,
            "revenue_share": np.divide(caught, spent, out=np.zeros(len(users)), where=spent > 0),
        }
    return pd.DataFrame(made, index=users)


def whole(recs: pd.DataFrame, history: Interactions, k: int) -> dict[str, float]:
    """What a set of lists is like as a whole, against the history it was made from.

    coverage: share of the catalogue shown · gini: inequality of showings over the catalogue · novelty: mean −log2 of
    an item's share of users (never sold: as sold once) · diversity: mean 1 − cosine between the items of a list, by shoppers in common ·
    repeat_share: shown items that the shopper had bought · mean_price: of what is shown. Items without a history count
    in none of them; where nothing is left, all are zero.
    """
    top = recs[(recs["rank"] <= k) & (codes(recs["item_id"], history.item_ids) >= 0)]
    if top.empty:
        return dict.fromkeys(("coverage", "gini", "novelty", "diversity", "repeat_share"), 0.0)
    item, user = codes(top["item_id"], history.item_ids), codes(top["user_id"], history.user_ids)
    shown = np.bincount(item, minlength=history.shape[1])
    seen = history.seen
    buyers = np.bincount(seen.indices, minlength=history.shape[1])
    known = user >= 0
    repeat = np.asarray(seen[user[known], item[known]]).ravel() > 0 if known.any() else np.zeros(1)
    made = {
        "coverage": (shown > 0).mean(),
        "gini": gini(shown),
        "novelty": -np.log2(np.maximum(buyers[item], 1) / history.shape[0]).mean(),
        "diversity": _diversity(item, codes(top["user_id"]), seen),
        "repeat_share": repeat.mean(),
    }
    if not np.isnan(history.price).all():
        made["mean_price"] = np.nanmean(history.price[item])
    return {name: float(value) for name, value in made.items()}


def gini(counts: np.ndarray) -> float:
    """Gini coefficient of non-negative counts: 0 all equal, towards 1 one has all."""
    x = np.sort(np.asarray(counts, float))
    total = x.sum()
    return (
        float((2 * np.arange(1, len(x) + 1) - len(x) - 1) @ x / (len(x) * total)) if total else 0.0
    )


def _truth(truth: pd.DataFrame) -> tuple[pd.Index, np.ndarray, pd.Series, np.ndarray | None]:
    """Distinct pairs of the truth: user ids, each pair's user number, its item id, its money (None without prices)."""
    frame = truth[["user_id", "item_id"]].copy()
    if {"quantity", "price"} <= set(truth.columns):
        frame["money"] = truth["quantity"] * truth["price"]
    users, items = distinct(frame["user_id"]), distinct(frame["item_id"])
    pair = codes(frame["user_id"], users).astype(np.int64) * len(items) + codes(
        frame["item_id"], items
    )
    pairs, inverse = np.unique(pair, return_inverse=True)
    money = np.bincount(inverse, frame["money"]) if "money" in frame else None
    return (
        users,
        pairs // len(items),
        pd.Series(items[pairs % len(items)]).astype("category"),
        money,
    )


def _hits(
    recs: pd.DataFrame, users: pd.Index, user: np.ndarray, item: pd.Series
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Recommended pairs that are true: user number, rank, position of the pair in the truth."""
    items = item.cat.categories
    key = np.sort(user * np.int64(len(items)) + item.cat.codes.to_numpy())
    u, i = codes(recs["user_id"], users), codes(recs["item_id"], items)
    wanted = u.astype(np.int64) * len(items) + i
    position = np.searchsorted(key, wanted)
    hit = (u >= 0) & (i >= 0) & (key[np.minimum(position, len(key) - 1)] == wanted)
    back = np.argsort(user * np.int64(len(items)) + item.cat.codes.to_numpy(), kind="stable")
    return u[hit], recs["rank"].to_numpy()[hit].astype(np.int64), back[position[hit]]


def _diversity(item: np.ndarray, user: np.ndarray, seen: sparse.csr_matrix) -> float:
    """Mean over lists of 1 − mean cosine of item pairs, from ‖Σ unit vectors‖² without ever forming the pairs."""
    binary = (seen > 0).astype(np.float64)
    norms = np.sqrt(np.maximum(np.asarray(binary.sum(axis=0)).ravel(), 1))
    unit = (binary @ sparse.diags_array(1 / norms)).T.tocsr()  # items × users, unit rows
    lists = sparse.csr_matrix(
        (np.ones(len(item)), (user, item)), shape=(user.max() + 1, unit.shape[0])
    )
    sums, size = lists @ unit, np.asarray(lists.sum(axis=1)).ravel()
    square = np.asarray(sums.multiply(sums).sum(axis=1)).ravel()
    several = size > 1
    if not several.any():
        return 0.0
    mean = (square - size)[several] / (size * (size - 1))[several]
    return float(1 - mean.mean())
