"""`python -m recsys_utils.scalable`: the models whose lists an engine makes, and their leaderboard.

Receipts, lists and truth stay tables of the engine. Home comes a row per shopper and model.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import ibis
import numpy as np
import pandas as pd
from ibis.expr.types import Table

from recsys_utils import LabError
from recsys_utils.data import engine, folds, registry, tables
from recsys_utils.evaluation.on_engine import per_user
from recsys_utils.evaluation.significance import bootstrap
from recsys_utils.models import on_engine
from recsys_utils.store import atomic, data_dir, read_json, write_parquet

K = 5  # places that are judged
MODELS: dict[str, Callable[..., Table]] = {
    "popular_28d": on_engine.popular,
    "own_purchases": on_engine.own_purchases,
    "item_bm25": on_engine.item_neighbours,
    "als": on_engine.als,
}
DEFAULT = ("popular_28d", "own_purchases")


@dataclass
class OnEngine:
    """A fold's test as tables of an engine: receipts before the cut, and what was then bought."""

    receipts: on_engine.Receipts
    truth: Table
    users: Table


def main(arguments: list[str] | None = None) -> int:
    """Print the leaderboard. Returns 0, or 2 for bad input."""
    options = _parser().parse_args(arguments)
    os.environ["RECSYS_ENGINE"] = options.engine
    try:
        board = run(options.dataset, options.models.split(","), options.k)
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(board.to_string(index=False))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m recsys_utils.scalable",
        description="Lists and leaderboard of the models that run where the receipts lie.",
    )
    option = parser.add_argument
    option("--dataset", default="synthetic", metavar="NAME|FILE.toml", help="as of ./run_all.sh")
    option(
        "--engine",
        default=engine.chosen(),
        help=", ".join(engine.ENGINES),
    )
    option(
        "--models",
        default=",".join(DEFAULT),
        metavar="NAME[,NAME]",
        help=f"of {', '.join(MODELS)} (default %(default)s)",
    )
    option("-k", type=int, default=10, help="items on a list (default %(default)s)")
    return parser


@engine.explained()
def run(dataset: str, models: list[str], k: int) -> pd.DataFrame:
    """Write each model's lists and values by shopper of the newest fold; the leaderboard.

    They lie in `data/<dataset>/scalable/<fold>/`. The board has a row per model: means over the
    warm shoppers of the test window of precision, recall, mrr and hit rate at 5, precision with a
    bootstrap 95 % interval, from how many shoppers it learnt, and seconds.
    Raises LabError for an unknown model, and for a shop in which nothing is bought twice.
    """
    if unknown := [name for name in models if name not in MODELS]:
        raise LabError(f"--models '{unknown[0]}' is unknown: choose {', '.join(MODELS)}")
    if k < K:
        raise LabError(f"-k is {k}: {K} places are judged, so ask for {K} or more")
    made = tables.ready(dataset)
    if not made.repeats:
        raise LabError(
            f"in '{made.name}' nothing is bought twice: these models list what was bought, use"
            " ./run_all.sh"
        )
    if not folds.has_folds(made.name):
        folds.write_folds(dataset)
    name = folds.fold_names(made.name)[0]
    stage = on_fold(made, name)
    folder = data_dir(made.name, "scalable", name)
    known = engine.count(stage.receipts.rows.select("user_id").distinct())
    rows = []
    for model in models:
        start = time.perf_counter()
        lists = engine.keep(MODELS[model](stage.receipts, stage.users, k))
        engine.write(lists, folder / f"{model}.parquet", ("user_id", "rank"))
        warm = stage.truth.semi_join(stage.receipts.rows, "user_id")
        values = per_user(lists, warm, K).to_pandas().sort_values("user_id", ignore_index=True)
        write_parquet(values, folder / f"{model}_values.parquet")
        learners = min(known, on_engine.LEARNERS) if model == "als" else known
        seconds = round(time.perf_counter() - start, 1)
        rows.append(_row(model, values) | {"learnt from": learners, "seconds": seconds})
    board = pd.DataFrame(rows).sort_values([f"precision@{K}", "model"], ascending=[False, True])
    with atomic(folder / "leaderboard.csv") as temporary:
        board.to_csv(temporary, index=False)
    return board


def on_fold(made: registry.Spec, name: str) -> OnEngine:
    """A written fold's test as tables of the engine that `connect` opens."""
    con = engine.connect()
    folder = data_dir(made.name, "folds", name)
    train, valid, test = (_read(con, folder / f"{part}.parquet") for part in folds.PARTS)
    rows = engine.keep(train.union(valid))
    borders = read_json(folder / "fold.json")["borders"]
    as_of = borders["test"] if borders else rows.ts.max().to_pandas()
    catalogue = None
    if folds.has_own_file(made, "items"):
        catalogue = _read(con, data_dir(made.name, "tables", "items.parquet"))
    receipts = on_engine.Receipts.of(rows, pd.Timestamp(as_of), catalogue)
    return OnEngine(receipts, test, engine.keep(test.select("user_id").distinct()))


def _read(con: ibis.BaseBackend, path: Path) -> Table:
    return con.read_parquet(str(path))


def _row(model: str, values: pd.DataFrame) -> dict:
    _, low, high = bootstrap(values["precision"].to_numpy(float), np.random.default_rng(0))
    means = values.drop(columns="user_id").mean().round(4)
    return {
        "model": model,
        f"precision@{K}": means["precision"],
        "low": round(float(low), 4),
        "high": round(float(high), 4),
        **{f"{name}@{K}": means[name] for name in ("recall", "mrr", "hit_rate")},
        "shoppers": len(values),
    }


if __name__ == "__main__":
    sys.exit(main())
