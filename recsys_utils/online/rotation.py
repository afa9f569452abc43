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
TURN = {
    "user_id": True,
    "counter": True,
    "score": False,
    "probability": False,
    "item_id": True,
}  # ascending?


def chosen(pool: pd.DataFrame, n: int, net: PurchaseNet | None) -> pd.DataFrame:
    """The n products of each user whose turn it is: the lowest (counter, −score, −probability, item_id).

    pool: user_id, item_id, counter, score and what else. Returns its rows with `rank` from 1, users in the order of their ids.
    """
    probability = net.pairs(pool["user_id"], pool["item_id"]) if net and len(pool) else 0.0
    order = pool.assign(probability=probability).sort_values(
        list(TURN), ascending=list(TURN.values())
    )
    rank = order.groupby("user_id", sort=False).cumcount() + 1
    return order.assign(rank=rank)[rank <= n].drop(columns="probability")


def fills(
    missing: pd.Series,
    taken: pd.DataFrame,
    items: pd.DataFrame,
    favourite: pd.Series,
    net: PurchaseNet | None,
) -> pd.DataFrame:
    """Products that bring short pools to their size: the network's best, then the favourite category's, then anything popular.

    missing: how many, by user_id. taken: user_id, item_id that are pooled or purchased. items: item_id, category ("" unknown),
    the most popular first. favourite: category by user_id. Returns user_id, item_id, source, best first; fewer where no more exist.
    """
    category = pd.Series(items["category"].to_numpy(object), items["item_id"])
    if net:  # what it learnt and nobody has posted here is a product too, the least popular
        category = category.reindex(category.index.append(net.item_ids).unique(), fill_value="")
    if not len(category):
        return pd.DataFrame(columns=["user_id", "item_id", "source"], dtype=object)
    size = max(1, CELLS // len(category))
    blocks = tqdm(range(0, len(missing), size), "fallback", disable=None, leave=False)
    return pd.concat(
        [
            _filled(missing.iloc[start : start + size], taken, category, favourite, net)
            for start in blocks
        ],
        ignore_index=True,
    )


def _filled(
    missing: pd.Series,
    taken: pd.DataFrame,
    category: pd.Series,
    favourite: pd.Series,
    net: PurchaseNet | None,
) -> pd.DataFrame:
    """One block of users. A value orders the whole chain: ≥ 0 probability, in (−1, 0) favourite category, ≤ −1 popular."""
    users, item_ids = missing.index, category.index
    rank = np.arange(len(item_ids), dtype=np.float32)
    codes, names = pd.factorize(
        category.replace("", None)
    )  # -1: unknown, which is nobody's favourite
    wanted = np.where(users.isin(favourite.index), names.get_indexer(favourite.reindex(users)), -2)
    value = np.where(codes == wanted[:, None], -(rank + 1) / (len(rank) + 1), -1 - rank / len(rank))
    if net:
        value[:, item_ids.get_indexer(net.item_ids)] = net.scores(users)
    row, column = users.get_indexer(taken["user_id"]), item_ids.get_indexer(taken["item_id"])
    here = (row >= 0) & (column >= 0)
    value[row[here], column[here]] = -np.inf
    best = top_k(value, int(missing.max()))
    got = np.take_along_axis(value, best, axis=1)
    row, place = np.nonzero(
        (np.arange(best.shape[1]) < missing.to_numpy()[:, None]) & (got > -np.inf)
    )
    got = got[row, place]
    return pd.DataFrame(
        {
            "user_id": users[row],
            "item_id": item_ids[best[row, place]],
            "source": np.where(got >= 0, "cf", np.where(got > -1, "category", "popular")).astype(
                object
            ),
        }
    )
