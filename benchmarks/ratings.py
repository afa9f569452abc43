"""Ratings and lists on MovieLens 100K beside published numbers.

`python benchmarks/ratings.py [ratings] [top10] [cornac]` (needs the three ml-100k files).

1. Rating error in a random 5-fold cross-validation, as the Surprise project publishes it, and on a
split by date. 2. Top 10 on a random 75/25 split per user, as Microsoft's recommenders publish it:
rated films are left out, every held-out one counts. 3. Both on a random 80/20 split, as Cornac's
README publishes it: a film counts if it got four stars, and only films that the user liked in the
training part are left out. Errors and metrics are means over users.
"""

import sys
import time
from itertools import product
from pathlib import Path

import recsys_utils  # noqa: F401 - sets the BLAS threads before numpy loads

# isort: split
import numpy as np
import pandas as pd
from lab import rating_towers

from recsys_utils import LabError
from recsys_utils.data import tables
from recsys_utils.data.interactions import Interactions, codes, distinct
from recsys_utils.evaluation.metrics import per_user
from recsys_utils.models import ALS, BPR, EASE, ItemCF, Popular, TwoTower
from recsys_utils.models.towers.training import prepare, transactions

HERE = Path(__file__).parent
FOLDS = 5
HELD = 0.05
DRAWS = 5  # of the 80/20 split; the published numbers are of one
LIKED = 4  # stars
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
    # README of github.com/PreferredAI/cornac, "your first Cornac experiment"
    "cornac": {
        "MF (Cornac)": (0.7430, 0.8998, 0.7445, 0.0548, 0.0761, 0.0675, 0.0463),
        "PMF (Cornac)": (0.7534, 0.9138, 0.7744, 0.0671, 0.0969, 0.0813, 0.0639),
        "BPR (Cornac)": (None, None, 0.8695, 0.1042, 0.1500, 0.1110, 0.1195),
    },
}
RANKERS = ("Popular", "EASE", "ALS", "BPR")
CORNAC = ("MAE", "RMSE", "AUC", "MAP", "nDCG@10", "precision@10", "recall@10")
MODELS = {
    "Popular": Popular(None),
    "ItemCF": ItemCF(),
    "EASE": EASE(tau=None),
    "ALS": ALS(64, 30, 10, tau=None),
    "BPR": BPR(64, 0.01, 0.01, 60, days=None),
    "TwoTower": TwoTower(past="around", tau=100_000, epochs=5, tokens=0.1, dropout=0.3),
}


def main(names: list[str]) -> None:
    """Print the tables of these names, or all, and write them to results."""
    tables_by_name = {"ratings": rating_table, "top10": top, "cornac": like_cornac}
    unknown = [name for name in names if name not in tables_by_name]
    if unknown:
        raise LabError(f"there is no table '{unknown[0]}': choose {', '.join(tables_by_name)}")
    for name in names or tables_by_name:
        table = tables_by_name[name]()
        print(table.round(4).to_string(), flush=True)
        (HERE / "results").mkdir(exist_ok=True)
        table.round(4).to_csv(HERE / "results" / f"ml-100k_{name}.csv")


def rating_table() -> pd.DataFrame:
    """Rating errors on random folds and by date."""
    return pd.concat({"random 5-fold": cross_validated(), "by date": by_date()})


def rated() -> pd.DataFrame:
    """MovieLens as the two towers' transactions; age in decades too, as a category."""
    data = tables.load("ml-100k")
    rows = transactions(data.purchases, data.users, data.items)
    # A free categorical column.
    return rows.assign(Income=(pd.to_numeric(rows["Age"]) // 10).astype(int).astype(str))


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


def like_cornac() -> pd.DataFrame:
    """Cornac's metrics on random 80/20 splits: mean and spread of the draws, then published."""
    rng = np.random.default_rng(SEED)
    draws = []
    for _ in range(DRAWS):
        is_test, held = (rng.random(len(rated())) < share for share in (0.2, HELD))
        draws.append(pd.concat([split_errors(is_test, held), split_lists(is_test)]))
    every = pd.concat(draws).groupby(level=0, sort=False)
    spread = every.std().add_suffix(" sd")
    ours = every.mean().join(spread)
    return pd.concat([ours, pd.DataFrame(PUBLISHED["cornac"], index=CORNAC).T])


def split_errors(is_test: np.ndarray, held: np.ndarray) -> pd.DataFrame:
    """MAE and RMSE of test ratings of known users and films, as means over users.

    held: rows that decide when to stop, where they are not of the test.
    """
    rows = rated()
    train, test = rows[~is_test], rows[is_test]
    known = test["Customer_ID"].isin(train["Customer_ID"])
    known &= test["products"].isin(train["products"])
    cut = [rows[~is_test & ~held], rows[~is_test & held], test[known]]
    options = {"mode": "rating", "negatives": 0, "parts": cut}
    parts = prepare(rows, *rating_towers.columns(rows), **options)
    models = {"two towers": rating_towers.fit_ratings(parts, seed=SEED)}
    truth = rating_towers.stars(parts.test.label[:, 0])
    errors = {}
    for name, guess in rating_towers.guesses(models, parts).items():
        error = pd.Series(guess - truth)
        mae = error.abs().groupby(parts.test.user).mean().mean()
        rmse = np.sqrt((error**2).groupby(parts.test.user).mean()).mean()
        errors[name] = {"MAE": mae, "RMSE": rmse}
    return pd.DataFrame(errors).T


def split_lists(is_test: np.ndarray) -> pd.DataFrame:
    """Ranking metrics over users who like a test film: what they liked in training is left out.

    Models learn from the liked films alone, or from all that were rated as if all were liked.
    """
    data = tables.load("ml-100k")
    rows = data.purchases
    liked = rows["rating"] >= LIKED
    films = distinct(rows["item_id"][~is_test])
    seen = rows.loc[~is_test & liked, ["user_id", "item_id"]]
    truth = rows[is_test & liked]
    truth = truth[codes(truth["item_id"], films) >= 0]
    users = distinct(truth["user_id"])
    result = {}
    for (learnt, part), name in product({"liked": liked, "rated": liked | True}.items(), RANKERS):
        history = Interactions.of(
            rows[~is_test & part], data.items, data.users, rows["ts"].max(), pd.Series(films)
        )
        recs = MODELS[name].fit(history).recommend(users, len(films), seen)
        top = per_user(recs, truth, K).mean()
        result[f"{name}, of {learnt} films"] = {
            "AUC": auc(recs, truth),
            "MAP": per_user(recs, truth, len(films))["map"].mean(),
            "nDCG@10": top["ndcg"],
            "precision@10": top["precision"],
            "recall@10": top["recall"],
        }
    return pd.DataFrame(result).T


def auc(recs: pd.DataFrame, truth: pd.DataFrame) -> float:
    """Mean over users: how often a film they like stands above one they do not. Lists hold all."""
    keys = ["user_id", "item_id"]
    recs = recs.astype(dict.fromkeys(keys, str))
    hits = recs.merge(truth[keys].astype(str), on=keys)
    rank = hits.groupby("user_id")["rank"]
    likes = rank.size()
    others = recs.groupby("user_id").size().reindex(likes.index) - likes
    below_best = rank.sum() - likes * (likes + 1) / 2  # films not liked that stand above liked ones
    return float((1 - below_best / (likes * others)).mean())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
