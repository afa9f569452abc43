"""What to show next from a pool, and what to fill a short pool with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from tqdm import tqdm

from recsys_utils.topk import top_k

if TYPE_CHECKING:
    from recsys_utils.models.purchase_net import PurchaseNet

CELLS = 4_000_000  # users × products scored at once: 16 MB
# The order of turns; True: the smallest value first.
ASCENDING = {
    "user_id": True,
    "counter": True,
    "score": False,
    "interest": False,
    "item_id": True,
}


def next_products(pool: pd.DataFrame, n: int, net: PurchaseNet | None) -> pd.DataFrame:
    """The n products of each user whose turn it is.

    First the lowest counter, then the highest score, the highest interest, the first item_id.

    pool: user_id, item_id, counter, score, and other columns. net: gives the interest.
    Returns rows of the pool with `rank` from 1, users in the order of their ids.
    """
    interest = 0.0
    if net and len(pool):
        interest = net.pairs(pool["user_id"], pool["item_id"])
    ordered = pool.assign(interest=interest).sort_values(
        list(ASCENDING), ascending=list(ASCENDING.values())
    )
    rank = ordered.groupby("user_id", sort=False).cumcount() + 1
    return ordered.assign(rank=rank)[rank <= n].drop(columns="interest")


def fill_products(
    missing: pd.Series,
    taken: pd.DataFrame,
    items: pd.DataFrame,
    favourite: pd.Series,
    net: PurchaseNet | None,
) -> pd.DataFrame:
    """Products that bring short pools to their size.

    First the network's best, then the favourite category's, then anything popular.

    missing: how many, by user_id. taken: user_id, item_id that are pooled or purchased. items:
    item_id, category ("" unknown), the most popular first. favourite: category by user_id.
    Returns user_id, item_id, source, best first; fewer where no more exist.
    """
    category = pd.Series(items["category"].to_numpy(object), items["item_id"])
    if net:
        # What it learnt and nobody has posted here is a product too, the least popular.
        every_item = category.index.append(net.item_ids).unique()
        category = category.reindex(every_item, fill_value="")
    if not len(category):
        return pd.DataFrame(columns=["user_id", "item_id", "source"], dtype=object)
    size = max(1, CELLS // len(category))
    blocks = []
    for start in tqdm(range(0, len(missing), size), "fallback", disable=None, leave=False):
        block = missing.iloc[start : start + size]
        blocks.append(_fill_block(block, taken, category, favourite, net))
    return pd.concat(blocks, ignore_index=True)


def _fill_block(
    missing: pd.Series,
    taken: pd.DataFrame,
    category: pd.Series,
    favourite: pd.Series,
    net: PurchaseNet | None,
) -> pd.DataFrame:
    """One block of users.

    One value orders the whole chain: from 0 up the network's interest, between −1 and 0 a product
    of the favourite category, from −1 down a popular one.
    """
    users = missing.index
    item_ids = category.index
    rank = np.arange(len(item_ids), dtype=np.float32)
    # -1 is an unknown category, which is nobody's favourite; -2 a user without one.
    category_codes, names = pd.factorize(category.replace("", None))
    favourite_codes = names.get_indexer(favourite.reindex(users))
    wanted = np.where(users.isin(favourite.index), favourite_codes, -2)
    is_favourite = category_codes == wanted[:, None]
    value = np.where(is_favourite, -(rank + 1) / (len(rank) + 1), -1 - rank / len(rank))
    if net:
        value[:, item_ids.get_indexer(net.item_ids)] = net.scores(users)
    row = users.get_indexer(taken["user_id"])
    column = item_ids.get_indexer(taken["item_id"])
    in_block = (row >= 0) & (column >= 0)
    value[row[in_block], column[in_block]] = -np.inf
    best = top_k(value, int(missing.max()))
    best_value = np.take_along_axis(value, best, axis=1)
    is_needed = np.arange(best.shape[1]) < missing.to_numpy()[:, None]
    row, place = np.nonzero(is_needed & (best_value > -np.inf))
    found = best_value[row, place]
    source = np.select([found >= 0, found > -1], ["cf", "category"], "popular")
    return pd.DataFrame(
        {
            "user_id": users[row],
            "item_id": item_ids[best[row, place]],
            "source": source.astype(object),
        }
    )
