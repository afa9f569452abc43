"""How a notebook records a model: fit it on all before the test window, save its lists."""

import time

import pandas as pd

from recsys_utils.data.folds import Fold
from recsys_utils.data.runs import DEPTH, load_metas, save_run
from recsys_utils.models import Recommender


def record(model: Recommender, fold: Fold, name: str, note: str = "") -> pd.DataFrame:
    """Refit on everything before the test window, list for every test user, save lists and times.

    Returns the lists: user_id, item_id, score, rank.
    """
    start = time.perf_counter()
    model.fit(fold.testing.history)
    fit_seconds = time.perf_counter() - start
    return _save(model, fold, name, note, fit_seconds, fold.testing.exclude)


def record_new(model: Recommender, fold: Fold, name: str, of: str, note: str = "") -> pd.DataFrame:
    """Lists without what was bought before, of a model that was just recorded as `of`."""
    fit_seconds = load_metas(fold).loc[of, "fit_seconds"]
    return _save(model, fold, name, note, fit_seconds, "bought")


def _save(
    model: Recommender, fold: Fold, name: str, note: str, fit_seconds: float, exclude: str | None
) -> pd.DataFrame:
    stage = fold.testing
    start = time.perf_counter()
    recs = model.recommend(stage.users, DEPTH, exclude, profiles=stage.profiles)
    seconds = time.perf_counter() - start
    save_run(recs, fold, name, model.family, model.params, fit_seconds, seconds, note)
    return recs
