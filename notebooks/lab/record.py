"""How a notebook records a model: fit it on all before the test window, save its lists."""

import time

import numpy as np
import pandas as pd

from recsys_utils.data.folds import Fold, Stage
from recsys_utils.data.runs import DEPTH, load_metas, save_run
from recsys_utils.evaluation.metrics import per_user
from recsys_utils.evaluation.slices import warm
from recsys_utils.models import Recommender


def record(
    model: Recommender, fold: Fold, name: str, note: str = "", seeds: int = 0
) -> pd.DataFrame:
    """Refit on everything before the test window, list for every test user, save lists and times.

    seeds: for a model that draws random numbers, the spread of its precision over so many seeds
        on the validation window is saved too; 0 measures nothing.
    Returns the lists: user_id, item_id, score, rank.
    """
    spread = seed_spread(model, fold.tuning, seeds=seeds)
    start = time.perf_counter()
    model.fit(fold.testing.history)
    fit_seconds = time.perf_counter() - start
    return _save(model, fold, name, note, fit_seconds, fold.testing.exclude, spread)


def record_new(model: Recommender, fold: Fold, name: str, of: str, note: str = "") -> pd.DataFrame:
    """Lists without what was bought before, of a model that was just recorded as `of`."""
    fit_seconds = load_metas(fold).loc[of, "fit_seconds"]
    return _save(model, fold, name, note, fit_seconds, "bought")


def seed_spread(model: Recommender, stage: Stage, k: int = 5, seeds: int = 3) -> dict[str, float]:
    """How much precision at k depends on the seed: its standard deviation over seeds on a stage.

    seeds: how many, counted from the model's own; below 2 nothing is fitted. Empty for a model
        that draws no random numbers, and where the stage has no truth.
    """
    truth = warm(stage.truth, stage.history)
    first = model.params.get("seed")
    if seeds < 2 or first is None or not len(truth):
        return {}
    values = []
    for fitted in model.fit_seeds(stage.history, range(first, first + seeds)):
        recs = fitted.recommend(truth["user_id"].unique(), k, stage.exclude)
        values.append(per_user(recs, truth, k)["precision"].mean())
    return {f"precision@{k}": float(np.std(values, ddof=1)), "seeds": seeds}


def _save(
    model: Recommender,
    fold: Fold,
    name: str,
    note: str,
    fit_seconds: float,
    exclude: str | None,
    spread: dict[str, float] | None = None,
) -> pd.DataFrame:
    stage = fold.testing
    start = time.perf_counter()
    recs = model.recommend(stage.users, DEPTH, exclude, profiles=stage.profiles)
    seconds = time.perf_counter() - start
    save_run(
        recs,
        fold,
        name,
        model.family,
        model.params,
        fit_seconds,
        seconds,
        note,
        spread,
        f"{type(model).__module__}:{type(model).__name__}",
    )
    return recs
