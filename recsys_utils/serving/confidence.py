"""How sure a suggestion is: what share was bought at its place in such lists in the last weeks."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from recsys_utils.data.interactions import Interactions
from recsys_utils.evaluation import calibration

DEPTH = 100  # places that are learnt from
FRONT = 10  # places that each have a share of their own; those behind are learnt in ten groups


def fit_places(
    lists: Mapping[str, pd.DataFrame], truth: pd.DataFrame, history: Interactions
) -> pd.DataFrame:
    """Cells of confidence by place: `calibration.fit` of −place, apart for the front and the rest.

    lists: user_id, item_id, rank by model, before the window of truth. Returns the cells with a
    column `behind`: the last place that they do not hold for.
    """
    parts = []
    for behind in (0, FRONT):
        depth = FRONT if behind == 0 else DEPTH
        placed = {
            name: recs[recs["rank"] > behind].assign(score=-recs["rank"].astype(float))
            for name, recs in lists.items()
        }
        cells = calibration.fit(placed, truth, history, depth)
        parts.append(cells.assign(behind=behind))
    return pd.concat(parts, ignore_index=True)


def of_places(cells: pd.DataFrame, model: str, places: np.ndarray, baskets: int) -> np.ndarray:
    """(n,) share bought at places of a model's list by shoppers with so many baskets.

    NaN where the place is not known. Behind the front it is never more than at its end.
    """
    places = np.asarray(places, float)
    known = np.where(np.isnan(places), 1, places)
    front = cells[cells["behind"] == 0]
    rest = cells[cells["behind"] == FRONT]
    share = calibration.confidence(front, model, -np.minimum(known, FRONT), baskets)
    deep = calibration.confidence(rest, model, -np.minimum(known, DEPTH), baskets)
    share = np.where(known > FRONT, np.minimum(share, deep), share)
    return np.where(np.isnan(places), np.nan, share)
