"""Whether a price-adjusted preference finds the better brand, where the better brand is known."""

import numpy as np
import pandas as pd

from recsys_utils.data.interactions import Interactions
from recsys_utils.data.synthetic import TIERS
from recsys_utils.data.synthetic_words import BRANDS
from recsys_utils.models.preferences import alike


def planted_tiers(items: pd.DataFrame) -> pd.Series:
    """How good each item's brand is in the synthetic shop: −1, 0 or 1; by item_id."""
    tier_of = dict(zip(BRANDS, np.array(TIERS)[np.arange(len(BRANDS)) // 6]))
    return items["brand"].map(tier_of)


def dearer_is_better(
    data: Interactions, tiers: pd.Series, flips: pd.DataFrame, bins: int = 10
) -> pd.DataFrame:
    """How often the more expensive of two alike products is of the better tier.

    A flip always names a more expensive product, and these are mostly of better tiers. So a share
    of right flips says something of preferences only as far as it is above this one.

    One row: pairs and share, of all two alike products that a client bought, each client's once;
    at_flips_ratios, the same share where prices differ as much as those of the flips do.
    """
    group = alike(data)
    tier = tiers.reindex(data.item_ids).to_numpy(float)
    user, item = data.seen.nonzero()
    cells = pd.DataFrame({"user": user, "group": group[item], "item": item})
    both = cells.merge(cells, on=["user", "group"], suffixes=("", "_other"))
    a, b = both["item"].to_numpy(), both["item_other"].to_numpy()
    is_told = (data.price[a] > data.price[b]) & (tier[a] != tier[b])
    a, b = a[is_told], b[is_told]
    ratio = np.log(data.price[a] / np.maximum(data.price[b], 1e-9))
    share = pd.Series(tier[a] > tier[b], dtype=float)
    told = flips[
        tiers.loc[flips["premium_id"]].to_numpy() != tiers.loc[flips["item_id"]].to_numpy()
    ]
    code = [data.item_ids.get_indexer(told[c]) for c in ("premium_id", "item_id")]
    wanted = np.log(data.price[code[0]] / np.maximum(data.price[code[1]], 1e-9))
    row = {"pairs": len(share), "share": share.mean(), "at_flips_ratios": np.nan}
    if len(wanted) and len(share):
        edges = np.unique(np.quantile(wanted, np.linspace(0, 1, bins + 1)))[1:-1]
        by_ratio = share.groupby(np.searchsorted(edges, ratio)).mean()
        row["at_flips_ratios"] = by_ratio.reindex(np.searchsorted(edges, wanted)).mean()
    return pd.DataFrame([row])


def tiers_found(flips: pd.DataFrame, tiers: pd.Series, seed: int = 0) -> pd.DataFrame:
    """Of flips between two tiers the share whose premium product is of the better one.

    A coin would have 0.5. One row: flips, share, lo, hi (bootstrap 95 % interval over clients).
    """
    better = tiers.loc[flips["premium_id"]].to_numpy()
    other = tiers.loc[flips["item_id"]].to_numpy()
    told = flips.assign(right=better > other)[better != other]
    if told.empty:
        return pd.DataFrame([{"flips": 0, "share": np.nan, "lo": np.nan, "hi": np.nan}])
    clients = told.groupby("client")["right"].agg(["sum", "size"])
    rng = np.random.default_rng(seed)
    drawn = clients.to_numpy()[rng.integers(len(clients), size=(2000, len(clients)))].sum(axis=1)
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975])
    row = {"flips": len(told), "share": told["right"].mean(), "lo": low, "hi": high}
    return pd.DataFrame([row])
