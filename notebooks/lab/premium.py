"""Whether a price-adjusted preference finds the better brand, where the better brand is known."""

import numpy as np
import pandas as pd

from recsys_utils.data.synthetic import TIERS
from recsys_utils.data.synthetic_words import BRANDS


def planted_tiers(items: pd.DataFrame) -> pd.Series:
    """How good each item's brand is in the synthetic shop: −1, 0 or 1; by item_id."""
    tier_of = dict(zip(BRANDS, np.array(TIERS)[np.arange(len(BRANDS)) // 6]))
    return items["brand"].map(tier_of)


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
