"""Do candidates of new items beat the best single generator? `python benchmarks/discovery.py NAME`.

For each data set, whose folds must be written (`./run_all.sh --dataset NAME --only 02`): of what
shoppers bought for the first time in each of three windows before the test and in the test window,
which share is among n candidates per shopper. Each generator of new items alone, all of them
together, and those together that propose on any purchase. All of one n offer as many candidates.
"""

import sys
from pathlib import Path

import recsys_utils  # noqa: F401 - sets the BLAS threads before numpy loads

# isort: split
import pandas as pd
from tqdm import tqdm

from recsys_utils.data.folds import Stage, load_fold
from recsys_utils.data.interactions import Interactions, fixed_sample
from recsys_utils.ensembles.candidates import TOGETHER, recall_curve
from recsys_utils.ensembles.two_stage import TwoStage
from recsys_utils.evaluation.slices import warm

HERE = Path(__file__).parent
WINDOWS = 3  # before the test
DEPTHS = (20, 50, 100, 200)
JUDGED = 1_000  # shoppers of each window
ANY = "together, as for any purchase"


def main(datasets: list[str]) -> None:
    """Print each data set's mean over windows, and write every window to discovery.csv."""
    parts = []
    for dataset in datasets:
        fold = load_fold(dataset)
        for n in tqdm(range(WINDOWS + 1), desc=dataset):
            table = recalls(window(fold.testing, n, fold.list_days))
            parts.append(table.assign(dataset=dataset, window="test" if n == 0 else f"{n} before"))
        table = pd.concat(parts, ignore_index=True)
        table.round(4).to_csv(HERE / "discovery.csv", index=False)
        earlier = table[(table["dataset"] == dataset) & (table["window"] != "test")]
        mean = earlier.pivot_table("recall", "generator", "n")
        print(dataset, mean.sort_values(100).round(4).to_string(), sep="\n", flush=True)


def window(stage: Stage, n: int, days: float) -> Stage:
    """The n-th window before the test; 0 is the test itself."""
    if n == 0:
        return stage
    data = stage.history
    start = data.as_of - pd.Timedelta(days=days * n)
    end = start + pd.Timedelta(days=days)
    rows = data.purchases
    history = Interactions.of(
        rows[rows["ts"] < start].reset_index(drop=True), data.items.reset_index(), as_of=start
    )
    return Stage(history, rows[(rows["ts"] >= start) & (rows["ts"] < end)])


def recalls(stage: Stage) -> pd.DataFrame:
    """Share of first purchases among n candidates: generator, n, recall."""
    truth = warm(stage.truth, stage.history)
    users = pd.Index(truth["user_id"].astype(str).unique()).sort_values()
    users = users[fixed_sample(len(users), JUDGED)]
    truth = truth[truth["user_id"].astype(str).isin(users)]
    tables = {}
    for target in ("new", "any"):
        model = TwoStage(target=target)
        generators = model.fitted_generators(stage.history)
        tables[target] = recall_curve(
            generators, model.weights, truth, stage.history, DEPTHS, new=True
        )
    both = tables["any"][tables["any"]["generator"] == TOGETHER].assign(generator=ANY)
    return pd.concat([tables["new"], both], ignore_index=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["synthetic"]))
