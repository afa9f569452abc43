"""Microsoft recommenders: SAR. `remove_seen` is off."""

import numpy as np
import pandas as pd
from recommenders.models.sar import SAR
from shop import Shop


def sar(shop: Shop, k: int, half_life: float, **setting) -> pd.DataFrame:
    """It decays purchases by itself: by half in `half_life` days."""
    np.NaN = np.nan  # numpy 2 took the old name away, which SAR calls  # noqa: NPY201
    rows = shop.receipts.drop_duplicates(["user_id", "item_id", "ts"])
    rows = rows.assign(rating=1.0, timestamp=rows["ts"].astype("int64") // 10**6)
    model = SAR(
        col_user="user_id",
        col_item="item_id",
        col_rating="rating",
        col_timestamp="timestamp",
        time_decay_coefficient=half_life,
        timedecay_formula=True,
        **setting,
    )
    model.fit(rows[["user_id", "item_id", "rating", "timestamp"]])
    users = pd.DataFrame({"user_id": shop.users})
    found = model.recommend_k_items(users, top_k=k, remove_seen=False)
    found = found.sort_values(["user_id", "prediction"], ascending=[True, False], kind="stable")
    rank = found.groupby("user_id").cumcount() + 1
    return found.assign(rank=rank)[["user_id", "item_id", "rank"]]
