"""Next-basket models on Ta-Feng's five published folds: `python benchmarks/next_basket.py`.

The folds, the baskets and one model's lists are those of "A Next Basket Recommendation Reality
Check" (Li et al. 2023). They are read from $RECSYS_DATA/tafeng_reality_check: baskets.parquet
(user_id, order_number, item_id, is_future), folds.parquet (fold, part, user_id) and
published_lists.parquet (fold, user_id, rank, item_id).

Models see every shopper's baskets but the last, and are judged on the last one of the fold's test
shoppers. Tuned models take the parameters that are best for the fold's own validation shoppers.
"""

import os
import sys
import tempfile
import time
from dataclasses import replace
from itertools import product
from pathlib import Path

import recsys_utils  # noqa: F401 - sets the BLAS threads before numpy loads

# isort: split
import pandas as pd

from recsys_utils import LabError
from recsys_utils.data.folds import Stage, load_fold, write_folds
from recsys_utils.ensembles.two_stage import TwoStage
from recsys_utils.evaluation.metrics import per_user
from recsys_utils.evaluation.significance import Interval, intervals
from recsys_utils.evaluation.slices import scopes
from recsys_utils.models import TIFUKNN, UPCF, OwnPurchases, Popular, Recommender

HERE = Path(__file__).parent
NAME = "tafeng_reality_check"
K = 10
METRICS = {"recall": "recall@10", "ndcg": "nDCG@10", "hit_rate": "PHR@10"}
SHOP = """
protocol = "next_basket"
[purchases]
files = ["baskets.parquet"]
[purchases.columns]
user_id = "user_id"
item_id = "item_id"
basket_id = "concat_ws('-', user_id, order_number)"
order = "order_number"
"""
# There are no dates: a shopper's baskets stand a day apart, and nothing is weighted by days.
PAPER = {"tau": None, "tau_neighbours": None, "pooling": "mean", "similarity": "euclidean"}
OURS = "Two stages"
AS_THEY_ARE = {
    "Popular": Popular(None),
    "GP-TopFreq": OwnPurchases(None, ties="all_time"),
    # Their 7 is a number of groups in the authors' code, and a group's size in the paper.
    "TIFU-KNN, published values": TIFUKNN(300, 7, 0.9, 0.7, 0.7, **PAPER),
    "TIFU-KNN, ours without dates": TIFUKNN(tau=None, tau_neighbours=None),
    "UP-CF, ours without dates": UPCF(tau=None),
    # Learnt from everybody's last basket before the one that is judged.
    OURS: TwoStage(days=1, windows=1),
}
TUNED = {  # as many tries for each
    "TIFU-KNN, tuned": [
        TIFUKNN(k, m, 0.9, r_g, alpha, None, None, pooling, similarity)
        for k, alpha in product((300, 1_000), (0.03, 0.1, 0.3))
        for m, r_g in ((7, 1.0), (1, 0.7))
        for pooling, similarity in (("mean", "euclidean"), ("sum", "cosine"))
    ],
    "UP-CF, tuned": [
        UPCF(r, alpha, q, 500, None)
        for r, alpha, q in product((1, 5, 10, None), (0.25, 0.75), (1, 5, 10))
    ],
}


def main() -> None:
    """Print the table and what the two stages gain, write the table to results."""
    start = time.perf_counter()
    stage = last_baskets()
    folds = pd.read_parquet(raw("folds.parquet"))
    values = {"Dream with attention (published)": published(stage, folds)}
    of_shoppers = {}
    for name, model in AS_THEY_ARE.items():
        of_shoppers[name] = judged(model, stage)
        values[name] = by_fold(of_shoppers[name], folds, "test")
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    leads = {}
    for name, models in TUNED.items():
        of_fold = tuned(models, stage, folds)
        values[name] = pd.concat(
            [by_fold(each, folds, "test").loc[[fold]] for fold, each in of_fold.items()]
        )
        leads[name] = lead(of_shoppers[OURS], of_fold, folds)
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    table = summary(values)
    print(table.to_string())
    for name, each in leads.items():
        ends = f"{each.low:+.4f} to {each.high:+.4f}"
        print(f"{OURS} over {name}: recall@{K} {each.value:+.4f} (95 % interval {ends})")
    (HERE / "results").mkdir(exist_ok=True)
    table.to_csv(HERE / "results" / "next_basket.csv")


def raw(file: str) -> Path:
    """A file of the data; LabError where it is not there."""
    path = Path(os.environ.get("RECSYS_DATA", "data/raw")) / NAME / file
    if not path.is_file():
        raise LabError(f"there is no {path}: set RECSYS_DATA to the folder that holds {NAME}/")
    return path


def last_baskets() -> Stage:
    """Everybody's last basket as truth and the earlier ones as history, as the package cuts."""
    raw("baskets.parquet")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RECSYS_HOME"] = folder
        shop = Path(folder) / f"{NAME}.toml"
        shop.write_text(SHOP)
        write_folds(str(shop))
        return load_fold(str(shop)).testing


def judged(model: Recommender, stage: Stage) -> dict[str, pd.DataFrame]:
    """Every shopper's metrics by scope, over the whole of the last basket."""
    recs = model.fit(stage.history).recommend(stage.users, K)
    return values_of(recs, stage)


def values_of(recs: pd.DataFrame, stage: Stage) -> dict[str, pd.DataFrame]:
    """Metrics of lists, users × metrics, on any purchase, on repeats and on new items."""
    truths = scopes(stage.truth, stage.history)
    return {s: per_user(recs, truths[s], K, ideal="all") for s in ("any", "repeat", "new")}


def by_fold(values: dict[str, pd.DataFrame], folds: pd.DataFrame, part: str) -> pd.DataFrame:
    """Means over the shoppers of a part of each fold: folds × metrics."""
    rows = {}
    for fold, members in folds[folds["part"] == part].groupby("fold"):
        users = members["user_id"].astype(str)
        means = {s: frame[frame.index.isin(users)].mean() for s, frame in values.items()}
        rows[fold] = {head: means["any"][metric] for metric, head in METRICS.items()}
        rows[fold] |= {f"{s} recall": means[s]["recall"] for s in ("repeat", "new")}
    return pd.DataFrame(rows).T


def published(stage: Stage, folds: pd.DataFrame) -> pd.DataFrame:
    """The published lists, judged as ours are."""
    lists = pd.read_parquet(raw("published_lists.parquet"))
    rows = []
    for fold, recs in lists.groupby("fold"):
        mine = folds[folds["fold"] == fold]
        rows.append(by_fold(values_of(recs.drop(columns="fold"), stage), mine, "test"))
    return pd.concat(rows)


def tuned(
    models: list[Recommender], stage: Stage, folds: pd.DataFrame
) -> dict[int, dict[str, pd.DataFrame]]:
    """Metrics of the best model of each fold, by shopper.

    The best has the highest recall for the fold's validation shoppers.
    """
    validation = folds.loc[folds["part"] == "val", "user_id"].astype(str)
    rows = stage.truth["user_id"].astype(str).isin(validation)
    tuning = replace(stage, truth=stage.truth[rows])
    recall = [by_fold(judged(model, tuning), folds, "val")[METRICS["recall"]] for model in models]
    best = pd.DataFrame(recall).reset_index(drop=True).idxmax()
    for fold, n in best.items():
        print(f"fold {fold}: {models[n]}")
    of_model = {n: judged(models[n], stage) for n in best.unique()}
    return {fold: of_model[n] for fold, n in best.items()}


def lead(
    ours: dict[str, pd.DataFrame],
    of_fold: dict[int, dict[str, pd.DataFrame]],
    folds: pd.DataFrame,
) -> Interval:
    """The lead of our recall over a tuned model's, with its 95 % interval over shoppers.

    Paired over shoppers, each with the mean over the folds that test them.
    """
    tested = folds[folds["part"] == "test"].groupby("fold")["user_id"]
    differences = []
    for fold, users in tested:
        difference = ours["any"]["recall"] - of_fold[fold]["any"]["recall"]
        differences.append(difference[difference.index.isin(users.astype(str))])
    of_shopper = pd.concat(differences).groupby(level=0).mean()
    return intervals(of_shopper.to_numpy()[:, None])[0]


def summary(values: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Mean ± standard deviation over the folds, best recall first."""
    rows = {}
    order = sorted(values, key=lambda name: -values[name][METRICS["recall"]].mean())
    for name in order:
        mean, spread = values[name].mean(), values[name].std()
        rows[name] = {column: f"{mean[column]:.4f} ± {spread[column]:.4f}" for column in mean.index}
    return pd.DataFrame(rows).T


if __name__ == "__main__":
    sys.exit(main())
