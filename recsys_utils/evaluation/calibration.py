"""Confidence: how often suggestions like this one were bought in the validation window."""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from recsys_utils import LabError
from recsys_utils.data.interactions import Interactions, codes, distinct
from recsys_utils.evaluation.metrics import pair_keys

BUCKETS = np.array([0, 1, 2, 5, 10, 25])  # lowest number of baskets in each bucket of histories
STRENGTH = 20  # suggestions that a coarser cell counts for in a finer one
DEPTH = 10  # ranks to learn from; with more, the deciles tell the first few apart less well
BINS = 10
ANY_MODEL = ""  # cells for models that were not seen


def fit(
    runs: Mapping[str, pd.DataFrame],
    truth: pd.DataFrame,
    history: Interactions,
    depth: int = DEPTH,
    strength: float = STRENGTH,
) -> pd.DataFrame:
    """Learn cells of confidence: one per model, bucket of history length and decile of score.

    A cell's confidence is the share of its suggestions that were bought, smoothed towards the
    share of its decile over all histories, and this towards the model's share. It is then made
    to rise with the score (isotonic regression).

    Args:
        runs: validation lists by model: user_id, item_id, score, rank.
        truth: what was bought in the validation window.
        history: purchases before it.
        depth: ranks to learn from.
        strength: suggestions that a coarser share counts for.

    Returns model, bucket, low (the decile's lowest score; the first is −∞), n, bought, confidence.
    The model "" stands for all that were not seen.
    Raises LabError if there are no lists or no purchases.
    """
    if not runs or not len(truth):
        raise LabError(
            "confidence has nothing to learn from: "
            "give validation lists and what was bought in the validation window"
        )
    rows = {}
    for name, recs in runs.items():
        rows[name] = labelled(recs[recs["rank"] <= depth], truth, history)
    rows[ANY_MODEL] = pd.concat(rows.values(), ignore_index=True).assign(score=0.0)
    overall = rows[ANY_MODEL]["bought"].mean()
    cells = [_cells(name, part, overall, strength) for name, part in rows.items()]
    return pd.concat(cells, ignore_index=True)


def confidence(
    cells: pd.DataFrame, model: str, score: np.ndarray, bucket: np.ndarray | int
) -> np.ndarray:
    """Confidence in 0…1 of suggestions, as `fit` learnt it.

    A model that was not seen gets the share that all models reached for such a history.

    score: (n,) the model's scores. bucket: (n,) or one number, what `buckets` gives.
    """
    if not (cells["model"] == model).any():
        model = ANY_MODEL
    model_cells = cells[cells["model"] == model]
    table = model_cells["confidence"].to_numpy().reshape(len(BUCKETS), -1)
    low = model_cells["low"].to_numpy()[: table.shape[1]]
    row = np.searchsorted(BUCKETS, bucket, side="right") - 1
    column = np.searchsorted(low, np.asarray(score, float), side="right") - 1
    return table[row, np.maximum(column, 0)]


def reliability(claimed: np.ndarray, bought: np.ndarray, bins: int = BINS) -> pd.DataFrame:
    """Suggestions in bins of equal size by confidence: mean confidence, share bought, n.

    Equal confidences stay in one bin.
    """
    edges = []
    if len(claimed):
        edges = np.unique(np.quantile(claimed, np.linspace(0, 1, bins + 1)[1:-1]))
    frame = pd.DataFrame({"confidence": claimed, "bought": bought}, dtype=float)
    groups = frame.groupby(np.searchsorted(edges, claimed, side="left"))
    return groups.mean().assign(n=groups.size()).reset_index(drop=True)


def calibration_error(table: pd.DataFrame) -> float:
    """Expected calibration error of a reliability table (Naeini et al. 2015); NaN if it is empty.

    It is the mean distance of confidence and share bought, weighted by n.

    >>> claimed = np.array([0.1, 0.1, 0.5, 0.5])
    >>> calibration_error(reliability(claimed, np.array([0, 0, 1, 0]), bins=2))
    0.05
    """
    if table.empty:
        return np.nan
    distance = (table["confidence"] - table["bought"]).abs()
    return float(np.average(distance, weights=table["n"]))


def labelled(recs: pd.DataFrame, truth: pd.DataFrame, history: Interactions) -> pd.DataFrame:
    """Suggestions as score, bucket of the user's history, and bought (0 or 1)."""
    users = distinct(truth["user_id"])
    items = distinct(truth["item_id"])
    bought = np.isin(pair_keys(recs, users, items), pair_keys(truth, users, items))
    return pd.DataFrame(
        {
            "score": recs["score"].to_numpy(float),
            "bucket": buckets(recs["user_id"], history),
            "bought": bought.astype(float),
        }
    )


def buckets(users: Iterable[str], history: Interactions) -> np.ndarray:
    """The lower end of the bucket of each user's number of baskets: 0, 1, 2, 5, 10 or 25."""
    baskets = history.purchases[["user_id", "basket_id"]].drop_duplicates()
    user = codes(baskets["user_id"], history.user_ids)
    counts = np.bincount(user, minlength=history.shape[0])
    counts = np.append(counts, 0)  # strangers have the code −1, and no basket
    counts = counts[codes(pd.Series(users), history.user_ids)]
    return BUCKETS[np.searchsorted(BUCKETS, counts, side="right") - 1]


def _cells(model: str, rows: pd.DataFrame, overall: float, strength: float) -> pd.DataFrame:
    from sklearn.isotonic import isotonic_regression  # a service that only looks up goes without

    low = np.zeros(1)
    if len(rows):
        low = np.unique(np.quantile(rows["score"], np.arange(BINS) / BINS))
    low[0] = -np.inf
    bucket = np.searchsorted(BUCKETS, rows["bucket"])
    decile = np.searchsorted(low, rows["score"], side="right") - 1
    n = np.zeros((len(BUCKETS), len(low)))
    bought = np.zeros_like(n)
    np.add.at(n, (bucket, decile), 1)
    np.add.at(bought, (bucket, decile), rows["bought"])

    def smoothed(bought: np.ndarray, n: np.ndarray, towards: np.ndarray) -> np.ndarray:
        weight = n + strength
        share = (bought + strength * towards) / weight
        return isotonic_regression(share, sample_weight=weight, y_min=0, y_max=1)

    model_share = (bought.sum() + strength * overall) / (n.sum() + strength)
    decile_share = smoothed(bought.sum(axis=0), n.sum(axis=0), model_share)
    shares = [smoothed(bought[row], n[row], decile_share) for row in range(len(BUCKETS))]
    return pd.DataFrame(
        {
            "model": model,
            "bucket": np.repeat(BUCKETS, len(low)),
            "low": np.tile(low, len(BUCKETS)),
            "n": n.ravel().astype(int),
            "bought": bought.ravel().astype(int),
            "confidence": np.ravel(shares),
        }
    )
