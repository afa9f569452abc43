"""What the models have learnt of the receipts; other purchases came since then, or too late."""

import numpy as np
import pandas as pd

from recsys_utils.data.interactions import pair_ids
from recsys_utils.ensembles.hybrid import DAY, Hybrid

SECOND = 1_000_000  # in microseconds
STEPS = (24 * 60 * 60 * SECOND, 60 * SECOND, SECOND)  # days, minutes, seconds


class Learnt:
    """The purchases that a hybrid was fitted on.

    A purchase is one of them if shopper, item and time agree, the time as exactly as the receipts
    tell it: where all their times are midnights, by its day. Event files tell no more than seconds.
    """

    def __init__(self, hybrid: Hybrid) -> None:
        self.user_ids = hybrid.user_ids_
        self.item_ids = hybrid.item_ids_
        user = np.repeat(np.arange(len(self.user_ids)), np.diff(hybrid.line_start_))
        age = np.rint(hybrid.line_age_ * (DAY / pd.Timedelta(milliseconds=1))).astype(np.int64)
        time = _microseconds(hybrid.as_of) - 1_000 * age
        self.first_day = pd.Timestamp(time.min(), unit="us").floor("D")
        self.step = next((step for step in STEPS if not (time % step).any()), SECOND)
        self.times = _sorted_once(time // self.step)
        self.keys = _sorted_once(self._keys(user, hybrid.line_item_, time))

    def holds(self, purchases: pd.DataFrame) -> np.ndarray:
        """(n,) bool: which purchases (user_id, item_id, ts) the models have learnt."""
        user = self.user_ids.get_indexer(purchases["user_id"])
        item = self.item_ids.get_indexer(purchases["item_id"])
        time = purchases["ts"].to_numpy("datetime64[us]").astype(np.int64)
        is_known = (user >= 0) & (item >= 0) & _among(time // self.step, self.times)
        result = np.zeros(len(purchases), bool)
        keys = self._keys(user[is_known], item[is_known], time[is_known])
        result[is_known] = _among(keys, self.keys)
        return result

    def _keys(self, user: np.ndarray, item: np.ndarray, time: np.ndarray) -> np.ndarray:
        """(n,) one number for shopper, item and time."""
        place = np.searchsorted(self.times, time // self.step)
        return pair_ids(pair_ids(user, item, len(self.item_ids)), place, max(len(self.times), 1))


def _among(values: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """(n,) bool: which values are in an ordered array; costs no more for a longer one."""
    if not len(values) or not len(ordered):
        return np.zeros(len(values), bool)
    place = np.searchsorted(ordered, values)
    return ordered[np.minimum(place, len(ordered) - 1)] == values


def _sorted_once(values: np.ndarray) -> np.ndarray:
    """Each value once, in order; several times as fast as np.unique where most are different."""
    values = np.sort(values)
    return values[np.append(True, values[1:] != values[:-1])] if len(values) else values


def _microseconds(moment: pd.Timestamp) -> int:
    return int(np.datetime64(moment, "us").astype(np.int64))
