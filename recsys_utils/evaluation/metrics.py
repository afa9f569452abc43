"""Metrics of recommendation lists: a row for every user, and numbers of all lists together."""

from itertools import pairwise
from typing import Literal, get_args

import numpy as np
import pandas as pd
from scipy import sparse

from recsys_utils import LabError
from recsys_utils.data.interactions import Interactions, codes, distinct, pair_ids

Ideal = Literal["reachable", "all"]
LOOKED_UP = 1 << 22  # buyers that are looked up at once: bounds the memory


def per_user(
    recs: pd.DataFrame, truth: pd.DataFrame, k: int, ideal: Ideal = "reachable"
) -> pd.DataFrame:
    """One row for every user of `truth`; zeros where the user has no list.

    Args:
        recs: user_id, item_id, rank (from 1).
        truth: user_id, item_id, distinct or not; with quantity and price also the two revenues.
        k: length of the lists that counts.
        ideal: what nDCG is measured against. "reachable": the best k items, so that a list without
            a miss is 1. "all": every item bought, though k places may not hold them; some papers
            on next baskets count so, and a shopper with a large basket then never reaches 1.

    Returns users × metrics:
        precision: hits / k, for short lists too · recall: hits / items bought
        ndcg: hits weighted by 1 / log2(rank + 1), over the same sum of the `ideal` list
        map: precision at the rank of each hit, summed, over all items bought
        mrr: 1 / rank of the first hit · hit_rate: whether there is any hit
        revenue: money that the user spent on the hits · revenue_share: that over all they spent.

    Accuracy is as in ranx (Bassani 2022) for lists without equal scores.
    Raises LabError for ids that are floating numbers, for an item twice in one list, and for
    another `ideal`.

    >>> recs = pd.DataFrame({"user_id": "ann", "item_id": ["tea", "milk"], "rank": [1, 2]})
    >>> truth = pd.DataFrame({"user_id": ["ann", "bob"], "item_id": ["milk", "tea"]})
    >>> per_user(recs, truth, 2)["precision"].to_dict()
    {'ann': 0.5, 'bob': 0.0}
    """
    _check_ids(recs, truth)
    if ideal not in get_args(Ideal):
        raise LabError(f"ideal is '{ideal}': choose {', '.join(get_args(Ideal))}")
    users = distinct(truth["user_id"])
    items = distinct(truth["item_id"])
    pairs, pair_of_row = np.unique(pair_keys(truth, users, items), return_inverse=True)
    buyer = pairs // max(1, len(items))
    bought = np.bincount(buyer, minlength=len(users))

    hit, user, rank = _hits(recs[recs["rank"] <= k], users, items, pairs)
    hits = np.bincount(user, minlength=len(users))
    nth_hit = np.arange(len(user)) - np.searchsorted(user, user) + 1
    first_rank = np.full(len(users), np.inf)
    first_rank[user[nth_hit == 1]] = rank[nth_hit == 1]
    longest = max(k, bought.max(initial=0))
    gain = 1 / np.log2(np.arange(2, longest + 2))
    best_hits = bought if ideal == "all" else np.minimum(bought, k)
    best_gain = np.cumsum(gain)[best_hits - 1]

    metrics = {
        "precision": hits / k,
        "recall": hits / bought,
        "ndcg": np.bincount(user, gain[rank - 1], len(users)) / best_gain,
        "map": np.bincount(user, nth_hit / rank, len(users)) / bought,
        "mrr": 1 / first_rank,
        "hit_rate": (hits > 0).astype(float),
    }
    if {"quantity", "price"} <= set(truth.columns):
        money = np.bincount(pair_of_row, truth["quantity"] * truth["price"])
        spent = np.bincount(buyer, money, len(users))
        revenue = np.bincount(user, money[hit], len(users))
        metrics["revenue"] = revenue
        metrics["revenue_share"] = np.divide(
            revenue, spent, out=np.zeros(len(users)), where=spent > 0
        )
    return pd.DataFrame(metrics, index=users)


def _check_ids(recs: pd.DataFrame, truth: pd.DataFrame) -> None:
    """Ids are text: 1.0 and 1 would be two people."""
    for name, frame in (("recs", recs), ("truth", truth)):
        for column in ("user_id", "item_id"):
            if pd.api.types.is_float_dtype(frame[column].dtype):
                raise LabError(
                    f"{column} of {name} is {frame[column].dtype}, so 1 reads 1.0 and meets nobody:"
                    f" make it text, {name}['{column}'].astype('Int64').astype(str)"
                )


def pair_keys(rows: pd.DataFrame, users: pd.Index, items: pd.Index) -> np.ndarray:
    """(rows,) int64: one number for each (user_id, item_id); −1 if either is unknown."""
    user = codes(rows["user_id"], users)
    item = codes(rows["item_id"], items)
    known = (user >= 0) & (item >= 0)
    return np.where(known, pair_ids(user, item, len(items)), -1)


def beyond_accuracy(recs: pd.DataFrame, history: Interactions, k: int) -> dict[str, float]:
    """What the first k of all lists are like as a whole, against the history they come from.

    coverage: share of the catalogue that is listed · gini: inequality of the items' showings
    novelty: mean −log2 of an item's share of users (never sold counts as sold once)
    diversity: mean over lists of 1 − cosine of two items, by buyers in common
    repeat_share: listed items that the user had bought
    mean_price: of the listed items; only where there are prices.

    Items without a history count in none of them. Where nothing is left, all are zero.
    """
    known_item = codes(recs["item_id"], history.item_ids) >= 0
    top = recs[(recs["rank"] <= k) & known_item]
    if top.empty:
        return dict.fromkeys(("coverage", "gini", "novelty", "diversity", "repeat_share"), 0.0)
    n_users, n_items = history.shape
    item = codes(top["item_id"], history.item_ids)
    user = codes(top["user_id"], history.user_ids)
    showings = np.bincount(item, minlength=n_items)
    buyers = np.bincount(history.seen.indices, minlength=n_items)
    item_share = np.maximum(buyers[item], 1) / n_users
    known_user = user >= 0
    repeat_share = 0.0
    if known_user.any():
        baskets = history.seen[user[known_user], item[known_user]]
        repeat_share = (np.asarray(baskets).ravel() > 0).mean()
    metrics = {
        "coverage": (showings > 0).mean(),
        "gini": gini(showings),
        "novelty": -np.log2(item_share).mean(),
        "diversity": _diversity(item, codes(top["user_id"]), history.seen),
        "repeat_share": repeat_share,
    }
    if not np.isnan(history.price).all():
        metrics["mean_price"] = np.nanmean(history.price[item])
    return {name: float(value) for name, value in metrics.items()}


def gini(counts: np.ndarray) -> float:
    """Gini coefficient of counts ≥ 0: 0 if all are equal, near 1 if one has everything.

    >>> gini([1, 1, 1, 1]), gini([0, 0, 0, 4])
    (0.0, 0.75)
    """
    x = np.sort(np.asarray(counts, float))
    n, total = len(x), x.sum()
    if not total:
        return 0.0
    weights = 2 * np.arange(1, n + 1) - n - 1
    return float(weights @ x / (n * total))


def _hits(
    recs: pd.DataFrame, users: pd.Index, items: pd.Index, pairs: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Listed pairs that were bought, by user and rank: position in `pairs`, user number, rank."""
    keys = pair_keys(recs, users, items)
    position = np.minimum(np.searchsorted(pairs, keys), len(pairs) - 1)
    is_hit = pairs[position] == keys
    position = position[is_hit]
    user = keys[is_hit] // len(items)
    rank = recs["rank"].to_numpy()[is_hit].astype(np.int64)
    order = np.lexsort((rank, user))
    same_pair = np.sort(keys[is_hit])
    if (same_pair[1:] == same_pair[:-1]).any():
        twice = same_pair[1:][same_pair[1:] == same_pair[:-1]][0]
        raise LabError(
            f"recs list item {items[twice % len(items)]} twice for user"
            f" {users[twice // len(items)]}: an item has one rank, drop the later one"
        )
    return position[order], user[order], rank[order]


def _diversity(item: np.ndarray, user: np.ndarray, seen: sparse.csr_matrix) -> float:
    """Mean over lists of 1 − mean cosine of their pairs of items.

    An item without buyers takes 1 from the sum of the size · (size − 1) cosines of its list.
    """
    size = np.bincount(user)
    n_lists = (size > 1).sum()
    if not n_lists:
        return 0.0
    share = np.divide(1, size * (size - 1.0), out=np.zeros(len(size)), where=size > 1)
    shown, place = np.unique(item, return_inverse=True)
    buyers = (seen[:, shown] > 0).tocsc()
    unsold = np.diff(buyers.indptr) == 0
    pair, weight = _listed_pairs(place, user, 2 * share, len(shown))
    cosine = _cosines(buyers, *np.divmod(pair, len(shown)))
    total = weight @ cosine - share[user] @ unsold[place]
    return float(1 - total / n_lists)


def _listed_pairs(
    item: np.ndarray, user: np.ndarray, share: np.ndarray, n_items: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of items that some list holds, ascending, and the `share` of all lists that hold each.

    share: (users,) what a pair in the user's list counts.
    """
    order = np.lexsort((item, user))
    item = item[order]
    user = user[order]
    keys = []
    weights = []
    for step in range(1, np.bincount(user).max()):
        is_pair = user[step:] == user[:-step]
        keys.append(pair_ids(item[:-step][is_pair], item[step:][is_pair], n_items))
        weights.append(share[user[step:][is_pair]])
    pairs, place = np.unique(np.concatenate(keys), return_inverse=True)
    return pairs, np.bincount(place, np.concatenate(weights))


def _cosines(buyers: sparse.csc_matrix, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cosines of pairs of columns of users × items of 0 and 1; 0 where one of them is empty."""
    count = np.diff(buyers.indptr)
    cosine = np.zeros(len(first))
    sold = (count[first] > 0) & (count[second] > 0)
    first = first[sold]
    second = second[sold]
    common = _common_buyers(buyers, first, second)
    cosine[sold] = common / np.sqrt(count[first] * count[second].astype(float))
    return cosine


def _common_buyers(buyers: sparse.csc_matrix, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(pairs,) how many users have both columns, of which neither is empty.

    The users of the larger column are marked, and those of the smaller one are looked up: a part
    of the pairs at a time, which share the larger column.
    """
    count = np.diff(buyers.indptr)
    is_smaller = count[first] < count[second]
    small = np.where(is_smaller, first, second)
    large = np.where(is_smaller, second, first)
    order = np.argsort(large, kind="stable")
    small = small[order]
    large = large[order]
    block = np.cumsum(count[small]) // LOOKED_UP
    is_start = (np.diff(large, prepend=-1) != 0) | (np.diff(block, prepend=-1) != 0)
    borders = np.append(np.flatnonzero(is_start), len(order))
    is_marked = np.zeros(buyers.shape[0], bool)
    common = np.zeros(len(first), np.int64)
    for low, high in pairwise(borders):
        columns = small[low:high]
        marked = buyers.indices[buyers.indptr[large[low]] : buyers.indptr[large[low] + 1]]
        is_marked[marked] = True
        start = np.cumsum(count[columns]) - count[columns]
        shift = np.repeat(buyers.indptr[columns] - start, count[columns])
        found = is_marked[buyers.indices[np.arange(len(shift)) + shift]]
        common[order[low:high]] = np.add.reduceat(found, start, dtype=np.int64)
        is_marked[marked] = False
    return common
