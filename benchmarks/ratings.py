"""The two towers on MovieLens 100K beside published numbers.

`python benchmarks/ratings.py` (needs the three ml-100k files).

1. Rating error in a random 5-fold cross-validation, as the Surprise project publishes it, and on a
split by date. 2. Top 10 on a random 75/25 split per user, as Microsoft's recommenders publish it:
rated films are left out, every held-out one counts.
"""

import sys
import time
from pathlib import Path

import recsys_utils  # noqa: F401 - sets the BLAS threads before numpy loads

# isort: split
import numpy as np
import pandas as pd
from lab import rating_towers

from recsys_utils.data import tables
from recsys_utils.data.interactions import Interactions, codes
from recsys_utils.evaluation.metrics import per_user
from recsys_utils.models import ALS, BPR, EASE, ItemCF, Popular, TwoTower
from recsys_utils.models.towers.training import prepare, transactions

HERE = Path(__file__).parent
FOLDS = 5
HELD = 0.05
K = 10
SEED = 42
PUBLISHED = {
    "rating": {
        "bias only (Surprise)": (0.748, 0.944),
        "SVD (Surprise)": (0.737, 0.934),
        "SVD++ (Surprise)": (0.722, 0.920),
    },
    "top": {
        "SAR (Microsoft)": (0.382, None),
        "BPR (Microsoft)": (0.442, None),
        "LightGCN (Microsoft)": (0.420, None),
        "BiVAE (Microsoft)": (0.475, 0.412),
    },
}
MODELS = {
    "Popular": Popular(None),
    "ItemCF": ItemCF(),
    "EASE": EASE(tau=None),
    "ALS": ALS(64, 30, 10, tau=None),
    "BPR": BPR(64, 0.01, 0.01, 60, days=None),
    "TwoTower": TwoTower(past="around", tau=100_000, epochs=5, tokens=0.1, dropout=0.3),
}


def main() -> None:
    """Print both tables and write them to results."""
    result = pd.concat({"random 5-fold": cross_validated(), "by date": by_date()}), top()
    for name, table in zip(("ratings", "top10"), result):
        print(table.round(4).to_string(), flush=True)
        (HERE / "results").mkdir(exist_ok=True)
        table.round(4).to_csv(HERE / "results" / f"ml-100k_{name}.csv")


def rated() -> pd.DataFrame:
    """MovieLens as the two towers' transactions; age in decades too, as a category."""
    data = tables.load("ml-100k")
    rows = transactions(data.purchases, data.users, data.items)
    return rows.assign(
        Income=(pd.to_numeric(rows["Age"]) // 10).astype(int).astype(str)
    )  # a free categorical column


def cross_validated() -> pd.DataFrame:
    """Mean MAE and RMSE over random folds.

    A twentieth of each training part is held out to stop early.
    """
    rows = rated()
    rng = np.random.default_rng(SEED)
    errors = []
    start = time.perf_counter()
    fold = rng.integers(0, FOLDS, len(rows))
    held = rng.random(len(rows)) < HELD
    for n in range(FOLDS):
        parts = prepare(
            rows,
            *rating_towers.columns(rows),
            mode="rating",
            negatives=0,
            parts=[rows[(fold != n) & ~held], rows[(fold != n) & held], rows[fold == n]],
        )
        errors.append(
            rating_towers.rating_errors(
                {"two towers": rating_towers.fit_ratings(parts, seed=SEED)}, parts
            )[["MAE", "RMSE"]]
        )
    mean = pd.concat(errors).groupby(level=0).mean()
    return pd.concat(
        [
            mean.assign(seconds=time.perf_counter() - start),
            pd.DataFrame(PUBLISHED["rating"], index=["MAE", "RMSE"]).T,
        ]
    ).sort_values("MAE")


def by_date() -> pd.DataFrame:
    """The honest question: later ratings from earlier ones, mostly of users nobody has seen."""
    rows = rated()
    parts = prepare(rows, *rating_towers.columns(rows), mode="rating", negatives=0)
    return rating_towers.rating_errors(
        {"two towers": rating_towers.fit_ratings(parts, seed=SEED)}, parts
    )[["MAE", "RMSE"]]


def top() -> pd.DataFrame:
    """nDCG and precision at 10 of every model on one random 75/25 split per user."""
    data = tables.load("ml-100k")
    rows = data.purchases.assign(draw=np.random.default_rng(SEED).random(len(data.purchases)))
    late = rows.groupby("user_id", observed=True)["draw"].rank(pct=True) > 0.75
    history = Interactions.of(
        rows[~late].drop(columns="draw"), data.items, data.users, rows["ts"].max()
    )
    truth = rows[late]
    truth = truth[codes(truth["item_id"], history.item_ids) >= 0]
    result = {}
    for name, model in MODELS.items():
        start = time.perf_counter()
        recs = model.fit(history).recommend(truth["user_id"].unique(), K, "bought")
        mean = per_user(recs, truth, K).mean()
        result[name] = {
            "nDCG": mean["ndcg"],
            "precision": mean["precision"],
            "recall": mean["recall"],
            "seconds": time.perf_counter() - start,
        }
    return pd.concat(
        [pd.DataFrame(result).T, pd.DataFrame(PUBLISHED["top"], index=["nDCG", "precision"]).T]
    ).sort_values("nDCG", ascending=False)


if __name__ == "__main__":
    sys.exit(main())
