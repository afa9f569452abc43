"""Is the two-stage ever the worse choice in a small shop? `python benchmarks/small_shops.py NAME`.

From each data set, whose folds must be written (`./run_all.sh --dataset NAME --only 02`), it draws
20 small shops of 70 to 500 shoppers. In each, the two-stage and every single model that it is made
of are fitted on the receipts before the test window, and judged on the window. Their default
settings were chosen on the whole of these data sets, so only the size of the shop is new. It counts
the shops in which the two-stage is below a single model by more than chance explains (paired over
shoppers, Holm's correction over the models), and tells its mean difference to the best single
model, as the two-stage itself picks it on earlier windows, with a 95 % interval over all shoppers
of all shops.
"""

import sys
from dataclasses import replace
from pathlib import Path

import recsys_utils  # noqa: F401 - sets the BLAS threads before numpy loads

# isort: split
import numpy as np
import pandas as pd
from tqdm import tqdm

from recsys_utils.data.folds import Fold, Stage, load_fold
from recsys_utils.ensembles.two_stage import GENERATORS, TwoStage
from recsys_utils.evaluation.metrics import per_user
from recsys_utils.evaluation.significance import holm, intervals, paired_tests
from recsys_utils.evaluation.slices import warm

HERE = Path(__file__).parent
SHOPS = 20
SIZES = (70, 150, 300, 500)  # shoppers, in turn
LEAST = 10  # shoppers of the test window, fewer of whom judge nothing
PLACES = (1, 5)


def main(datasets: list[str]) -> None:
    """Print a line for each data set, and write all lines to small_shops.csv."""
    table = pd.DataFrame()
    for dataset in datasets:
        fold = load_fold(dataset)
        rows = [shop_row(fold, n) for n in tqdm(range(SHOPS), desc=dataset)]
        shops = pd.DataFrame([row for row in rows if row])
        table[dataset] = pd.Series(summary(shops), dtype=object)
        print(table.T.to_string(), flush=True)
        table.T.rename_axis("data set").to_csv(HERE / "small_shops.csv")


def shop_row(fold: Fold, n: int) -> dict | None:
    """One small shop: per shopper the two-stage's lead, and whether it is below a single model."""
    stage = small_shop(fold, n)
    truth = warm(stage.truth, stage.history)
    users = truth["user_id"].unique()
    if len(users) < LEAST:
        return None
    two_stage = TwoStage(seed=n).fit(stage.history)
    models = {"two_stage": two_stage} | two_stage.fitted_generators(stage.history)
    lists = {name: model.recommend(users, max(PLACES)) for name, model in models.items()}
    single = two_stage.single_[0] if len(two_stage.single_) else best_before(fold, n)
    row = {"judged": len(users)}
    for k in PLACES:
        values = pd.DataFrame(
            {name: per_user(recs, truth, k)["precision"] for name, recs in lists.items()}
        )
        row[f"lead@{k}"] = (values["two_stage"] - values[single]).to_numpy()
        row[f"below@{k}"] = is_below(values)
    return row


def small_shop(fold: Fold, n: int, part: str = "testing") -> Stage:
    """The n-th drawn shop: some shoppers, all that they bought, and nobody else."""
    shoppers = fold.testing.history.user_ids.to_numpy()
    drawn = np.random.default_rng(n).choice(
        shoppers, min(SIZES[n % len(SIZES)], len(shoppers)), replace=False
    )
    parts = {}
    for name in ("train", "valid", "test"):
        rows = getattr(fold, name)
        parts[name] = rows[rows["user_id"].astype(str).isin(drawn)].reset_index(drop=True)
    return getattr(replace(fold, **parts), part)


def best_before(fold: Fold, n: int) -> str:
    """The best single model of the window before the test."""
    stage = small_shop(fold, n, "tuning")
    truth = warm(stage.truth, stage.history)
    users = truth["user_id"].unique()
    precision = {}
    for name, (model, _) in GENERATORS["lab"].items():
        recs = replace(model).fit(stage.history).recommend(users, 5)
        precision[name] = per_user(recs, truth, 5)["precision"].mean()
    return max(precision, key=precision.get)


def is_below(values: pd.DataFrame) -> bool:
    """Whether a single model is ahead of the two-stage by more than chance explains."""
    tests = paired_tests(values)
    tests = tests[tests["model_a"] == "two_stage"]  # it is the first column
    return bool(((holm(tests["p"].to_numpy()) < 0.05) & (tests["difference"] < 0)).any())


def summary(shops: pd.DataFrame) -> dict:
    """Of the small shops of one data set."""
    result = {"shops": len(shops), "shoppers judged": int(shops["judged"].sum())}
    for k in PLACES:
        lead = intervals(np.concatenate(shops[f"lead@{k}"].tolist())[:, None])[0]
        result[f"below a single model, P@{k}"] = int(shops[f"below@{k}"].sum())
        result[f"lead over the best single before, P@{k}"] = round(lead.value, 4)
        result[f"low, P@{k}"] = round(lead.low, 4)
        result[f"high, P@{k}"] = round(lead.high, 4)
    return result


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["synthetic"]))
