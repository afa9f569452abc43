"""Confidence: how often a suggestion like this one was bought on validation. Empirical, a share and not a feeling."""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from sklearn.isotonic import isotonic_regression

from recsys_utils import LabError
from recsys_utils.data.interactions import Interactions, codes, distinct

BUCKETS = (0, 1, 2, 5, 10, 25)  # a history's baskets, from … on
STRENGTH = 20  # suggestions that a coarser cell counts for in a finer one
DEPTH = 10  # places that cells are learnt from: with more, the deciles tell the first few apart less well
BINS = 10


def fit(
    runs: Mapping[str, pd.DataFrame],
    truth: pd.DataFrame,
    history: Interactions,
    depth: int = DEPTH,
    strength: float = STRENGTH,
) -> pd.DataFrame:
    """Cells learnt from validation lists: model, bucket, low, n, bought, confidence; one row per model, bucket and decile of its scores.

    runs: tables by model. truth: what was then bought. A cell's confidence is the share bought of its suggestions, smoothed
    towards that of its decile over all histories and this towards the model's, then made monotone in the score (isotonic
    regression). low: the decile's lowest score, the first is −∞. The model "" stands for all that were not seen.
    """
    if not runs or not len(truth):
        raise LabError(
            "confidence has nothing to learn from: give validation lists and what was bought in the validation window"
        )
    rows = {
        name: labelled(recs[recs["rank"] <= depth], truth, history) for name, recs in runs.items()
    }
    every = pd.concat(rows.values(), ignore_index=True).assign(score=0.0)
    share = every["bought"].mean()
    return pd.concat(
        [_cells(name, part, share, strength) for name, part in (*rows.items(), ("", every))],
        ignore_index=True,
    )


def confidence(
    cells: pd.DataFrame, model: str, score: np.ndarray, bucket: np.ndarray | int
) -> np.ndarray:
    """Confidence in 0…1 of suggestions by their model's score and the shopper's bucket of history, as `fit` learnt it.

    A model that was not seen gets what all of them reached for such a history.
    """
    mine = cells[cells["model"] == (model if (cells["model"] == model).any() else "")]
    grid = mine["confidence"].to_numpy().reshape(len(BUCKETS), -1)
    low = mine["low"].to_numpy()[: grid.shape[1]]
    return grid[
        np.searchsorted(BUCKETS, bucket, side="right") - 1,
        np.maximum(np.searchsorted(low, np.asarray(score, float), side="right") - 1, 0),
    ]


def reliability(claimed: np.ndarray, bought: np.ndarray, bins: int = BINS) -> pd.DataFrame:
    """Suggestions in bins of equal size by confidence: mean confidence, share bought, n. Equal confidences stay together."""
    edges = (
        np.unique(np.quantile(claimed, np.linspace(0, 1, bins + 1)[1:-1])) if len(claimed) else []
    )
    frame = pd.DataFrame({"confidence": claimed, "bought": bought}, dtype=float)
    groups = frame.groupby(np.searchsorted(edges, claimed, side="left"))
    return groups.mean().assign(n=groups.size()).reset_index(drop=True)


def calibration_error(table: pd.DataFrame) -> float:
    """Expected calibration error of a reliability table: mean distance of confidence and share bought, weighted by n (Naeini et al. 2015)."""
    return (
        float(np.average((table["confidence"] - table["bought"]).abs(), weights=table["n"]))
        if len(table)
        else np.nan
    )


def labelled(recs: pd.DataFrame, truth: pd.DataFrame, history: Interactions) -> pd.DataFrame:
    """Suggestions as score, bucket (baskets of the shopper's history, the lower end of their bucket) and bought (then, 0 or 1)."""
    users, items = distinct(truth["user_id"]), distinct(truth["item_id"])
    pairs = codes(truth["user_id"], users).astype(np.int64) * len(items) + codes(
        truth["item_id"], items
    )
    user, item = codes(recs["user_id"], users).astype(np.int64), codes(recs["item_id"], items)
    bought = (user >= 0) & (item >= 0) & np.isin(user * len(items) + item, pairs)
    return pd.DataFrame(
        {
            "score": recs["score"].to_numpy(float),
            "bucket": buckets(recs["user_id"], history),
            "bought": bought.astype(float),
        }
    )


def buckets(users: Iterable[str], history: Interactions) -> np.ndarray:
    """The lower end of the bucket that each user's number of baskets falls in: 0, 1, 2, 5, 10 or 25."""
    pairs = history.purchases[["user_id", "basket_id"]].drop_duplicates()
    baskets = np.append(
        np.bincount(codes(pairs["user_id"], history.user_ids), minlength=history.shape[0]), 0
    )  # the last is for strangers
    counts = baskets[codes(pd.Series(users), history.user_ids)]
    return np.array(BUCKETS)[np.searchsorted(BUCKETS, counts, side="right") - 1]


def _cells(model: str, rows: pd.DataFrame, overall: float, strength: float) -> pd.DataFrame:
    low = (
        np.unique(np.quantile(rows["score"], np.arange(BINS) / BINS)) if len(rows) else np.zeros(1)
    )
    low[0] = -np.inf
    at = (
        np.searchsorted(BUCKETS, rows["bucket"]),
        np.searchsorted(low, rows["score"], side="right") - 1,
    )
    n, hits = np.zeros((2, len(BUCKETS), len(low)))
    np.add.at(n, at, 1)
    np.add.at(hits, at, rows["bought"])
    share = (hits.sum() + strength * overall) / (n.sum() + strength)
    decile = _monotone(
        (hits.sum(axis=0) + strength * share) / (n.sum(axis=0) + strength), n.sum(axis=0) + strength
    )
    made = [
        _monotone((h + strength * decile) / (m + strength), m + strength) for h, m in zip(hits, n)
    ]
    return pd.DataFrame(
        {
            "model": model,
            "bucket": np.repeat(BUCKETS, len(low)),
            "low": np.tile(low, len(BUCKETS)),
            "n": n.ravel().astype(int),
            "bought": hits.ravel().astype(int),
            "confidence": np.ravel(made),
        }
    )


def _monotone(share: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return isotonic_regression(share, sample_weight=weight, y_min=0, y_max=1)
