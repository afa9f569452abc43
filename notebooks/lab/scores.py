"""Short tables of metrics: models × metrics, models × scopes."""

from collections.abc import Iterable

import pandas as pd

from recsys_utils.data.folds import Fold, Stage
from recsys_utils.data.runs import has_runs, load_runs
from recsys_utils.evaluation.metrics import per_user
from recsys_utils.evaluation.slices import STRATA, restrict, scopes, warm


def recorded(fold: Fold, models: Iterable[str]) -> dict[str, pd.DataFrame]:
    """Lists for the test window of models that earlier notebooks tuned and recorded, by model.

    A rival is compared as it stands in the leaderboard. One that was not recorded is left out.
    """
    return load_runs(fold, models)[0] if has_runs(fold) else {}


def summary(recs: dict[str, pd.DataFrame], stage: Stage, k: int = 5) -> pd.DataFrame:
    """Mean metrics at k of each model over the stage's warm users, best precision first."""
    truth = warm(stage.truth, stage.history)
    means = {name: per_user(lists, truth, k).mean() for name, lists in recs.items()}
    table = pd.DataFrame(means).T.round(4)
    return table.sort_values("precision", ascending=False, kind="stable")


def by_scope(recs: dict[str, pd.DataFrame], stage: Stage, k: int = 5) -> pd.DataFrame:
    """Precision at k of each model on any purchase, on repeats and on items new to the user."""
    truths = scopes(warm(stage.truth, stage.history), stage.history)
    rows = {}
    for name, lists in recs.items():
        rows[name] = {}
        for scope, truth in truths.items():
            if scope in STRATA:
                continue
            values = per_user(restrict(lists, scope, stage.history), truth, k)
            rows[name][scope] = values["precision"].mean()
    return pd.DataFrame(rows).T.round(4)
