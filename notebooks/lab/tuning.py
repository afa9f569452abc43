"""Choosing parameters on a stage's window (use `fold.tuning`: validation)."""

import time
from collections.abc import Iterable

import numpy as np
import pandas as pd
from tqdm import tqdm

from lab.scores import by_scope
from recsys_utils.data.folds import Fold, Stage
from recsys_utils.data.runs import DEPTH, save_left_out
from recsys_utils.evaluation.metrics import per_user
from recsys_utils.evaluation.significance import bootstrap
from recsys_utils.evaluation.slices import warm
from recsys_utils.models import Recommender
from recsys_utils.models.costs import TooLarge


def tune(models: Iterable[Recommender], stage: Stage, k: int = 5) -> pd.DataFrame:
    """Fit each model on a stage's history and judge its lists, over warm users.

    A model that needs more memory than there is has no row; attrs["left_out"] says why. Each
    model's `tries` is how many it was chosen from, which `record` writes down.
    Returns model (fitted), its parameters, precision@k, recall@k and seconds; best first.
    """
    truth = warm(stage.truth, stage.history)
    users = truth["user_id"].unique()
    rows = []
    reason = ""
    for model in tqdm(list(models), desc="tuning", leave=False, disable=None):
        start = time.perf_counter()
        try:
            model.fit(stage.history)
        except TooLarge as error:
            reason = str(error)
            continue
        recs = model.recommend(users, k, stage.exclude)
        precision = recall = np.nan
        if len(truth):
            mean = per_user(recs, truth, k).mean()
            precision = mean["precision"]
            recall = mean["recall"]
        result = {"model": model, **model.params}
        result |= {f"precision@{k}": precision, f"recall@{k}": recall}
        rows.append(result | {"seconds": time.perf_counter() - start})
    for row in rows:
        # A model that won a larger grid before keeps that number.
        row["model"].tries = max(getattr(row["model"], "tries", 1), len(rows))
    table = pd.DataFrame(rows or {f"precision@{k}": []})
    table.attrs["left_out"] = reason
    best_first = {"ascending": False, "kind": "stable", "ignore_index": True}
    return table.sort_values(f"precision@{k}", **best_first)


def over_seeds(
    models: dict[str, Recommender], stage: Stage, seeds: int = 3, k: int = 5
) -> pd.DataFrame:
    """Precision of models that draw random numbers, over several seeds, against the first of them.

    Returns for each model its mean precision@k, the spread (standard deviation over seeds), and
    the change against the first model with its 95 % interval: a bootstrap over warm users, paired,
    of means over seeds. Seeds are counted from each model's own.
    """
    truth = warm(stage.truth, stage.history)
    users = truth["user_id"].unique()
    rows, means = [], []
    for model in tqdm(models.values(), desc="seeds", leave=False, disable=None):
        values = []
        for each in model.fit_seeds(stage.history, range(model.seed, model.seed + seeds)):
            recs = each.recommend(users, k, stage.exclude)
            values.append(per_user(recs, truth, k)["precision"].to_numpy())
        of_seed = np.array([value.mean() for value in values])
        means.append(np.mean(values, axis=0))
        spread = of_seed.std(ddof=1) if seeds > 1 else np.nan
        rows.append({f"precision@{k}": of_seed.mean(), "spread": spread})
    changes = np.stack(means, axis=1) - means[0][:, None]
    change, low, high = bootstrap(changes, np.random.default_rng(0))
    table = pd.DataFrame(rows, index=pd.Index(models, name="model"))
    return table.assign(change=change, low=low, high=high)


def without_left_out(tuned: dict[str, pd.DataFrame], fold: Fold) -> dict[str, pd.DataFrame]:
    """The tables of models that fit this machine; why others do not is printed and reported."""
    for name, table in tuned.items():
        if table.empty:
            print(table.attrs["left_out"])
            save_left_out(fold, name, table.attrs["left_out"])
    return {name: table for name, table in tuned.items() if not table.empty}


def sweep(
    model: Recommender, parameter: str, values: Iterable[float], stage: Stage, k: int = 5
) -> pd.DataFrame:
    """Precision by scope for values of a parameter that acts on a fitted model's scores alone.

    The model keeps the value that is best on any purchase.
    """
    before = getattr(model, parameter)
    lists = {}
    for value in values:
        setattr(model, parameter, value)
        lists[value] = model.recommend(stage.users, DEPTH, stage.exclude)
    table = by_scope(lists, stage, k).rename_axis(parameter)
    if "any" not in table:
        table["any"] = np.nan
    table.insert(0, "any", table.pop("any"))
    has_truth = table["any"].notna().any()  # without it there is nothing to choose by
    setattr(model, parameter, float(table["any"].idxmax()) if has_truth else before)
    model.tries = getattr(model, "tries", 1) + len(lists)
    return table.fillna("")
