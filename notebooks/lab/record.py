"""How a notebook records a model: fit it on all before the test window, save its lists."""

import time
from dataclasses import replace
from itertools import chain

import numpy as np
import pandas as pd

from recsys_utils.data.folds import Fold, Stage
from recsys_utils.data.runs import DEPTH, load_metas, save_run, save_validation
from recsys_utils.evaluation.metrics import per_user
from recsys_utils.evaluation.slices import warm
from recsys_utils.models import Recommender


def record(
    model: Recommender, fold: Fold, name: str, note: str = "", seeds: int = 0
) -> pd.DataFrame:
    """Refit on everything before the test window, list for every test user, save lists and times.

    Its lists for the validation window are saved too: from these the report chooses.
    seeds: for a model that draws random numbers, the spread of its precision over so many seeds
        on the validation window is saved too; 0 measures nothing.
    Returns the lists: user_id, item_id, score, rank.
    """
    lists, spread = on_validation(model, fold.tuning, seeds)
    save_validation(lists, fold, name)
    start = time.perf_counter()
    model.fit(fold.testing.history)
    fit_seconds = time.perf_counter() - start
    return _save(model, fold, name, note, fit_seconds, fold.testing.exclude, spread)


def on_validation(
    model: Recommender, stage: Stage, seeds: int = 0, k: int = 5
) -> tuple[pd.DataFrame, dict[str, float]]:
    """A model's lists for a stage's users, and how much precision at k depends on the seed.

    seeds: how many, counted from the model's own; below 2 one is enough. A model that is fitted on
        the stage already is not fitted again.
    Returns the lists of the model's own seed, and the standard deviation over seeds; empty for a
        model that draws no random numbers, and where the stage has no truth.
    """
    truth = warm(stage.truth, stage.history)
    is_fitted = getattr(model, "seen_", None) is stage.history.seen
    own_seed = model.params.get("seed")
    if own_seed is None or not len(truth):
        seeds = 1
    if seeds < 2:
        of_seeds = iter([model if is_fitted else replace(model).fit(stage.history)])
    elif is_fitted:
        others = model.fit_seeds(stage.history, range(own_seed + 1, own_seed + seeds))
        of_seeds = chain([model], others)
    else:
        of_seeds = model.fit_seeds(stage.history, range(own_seed, own_seed + seeds))
    first_lists = None
    values = []
    for each in of_seeds:
        recs = each.recommend(stage.users, DEPTH, stage.exclude, profiles=stage.profiles)
        if first_lists is None:
            first_lists = recs
        values.append(per_user(recs, truth, k)["precision"].mean() if len(truth) else np.nan)
    if len(values) < 2:
        return first_lists, {}
    return first_lists, {f"precision@{k}": float(np.std(values, ddof=1)), "seeds": len(values)}


def record_new(model: Recommender, fold: Fold, name: str, of: str, note: str = "") -> pd.DataFrame:
    """Lists without what was bought before, of a model that was just recorded as `of`."""
    fit_seconds = load_metas(fold).loc[of, "fit_seconds"]
    return _save(model, fold, name, note, fit_seconds, "bought")


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
        " ".join(text for text in (note, model.note) if text),
        spread,
        f"{type(model).__module__}:{type(model).__name__}",
        getattr(model, "tries", 1),
    )
    return recs
