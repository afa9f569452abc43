"""The leaderboard: one tidy table from all models' recommendation tables, with intervals."""

import numpy as np
import pandas as pd

from recsys_utils import LabError
from recsys_utils.data.folds import Fold, Stage
from recsys_utils.data.interactions import distinct
from recsys_utils.data.registry import spec
from recsys_utils.evaluation.metrics import beyond_accuracy, pair_keys, per_user
from recsys_utils.evaluation.significance import bootstrap
from recsys_utils.evaluation.slices import restrict, scopes, user_groups, warm

KS = (5, 10)
COLUMNS = (
    "dataset",
    "protocol",
    "fold",
    "model",
    "family",
    "scope",
    "users_scope",
    "metric",
    "k",
    "value",
    "lo",
    "hi",
    "users",
    "fit_seconds",
    "recommend_seconds",
    "tries",
)
Values = dict[tuple[str, int], dict[str, pd.DataFrame]]  # by (scope, k) and model: users × metrics


def leaderboard(
    runs: dict[str, pd.DataFrame],
    metas: pd.DataFrame,
    fold: Fold,
    catalogue: pd.Index | None = None,
    values: Values | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """The tidy table of every model × scope × group of users × metric × k.

    Args:
        runs, metas: what `load_runs` gives: lists by model; family, seconds and tries by model.
        fold: its test window is the truth.
        catalogue: item ids that the prefilter keeps; None leaves its scope out.
        values: what `per_user_values` gave for the same runs, where it is at hand.
        seed: of the bootstrap.

    Returns `COLUMNS`; lo and hi are a bootstrap 95 % interval over users.
    Raises LabError if nobody bought both before and in the test window.
    """
    stage = fold.testing
    groups = user_groups(stage, catalogue)
    if "warm" not in groups:
        raise LabError(
            f"nobody in fold {fold.name} bought before its test window: "
            "take a longer history or another protocol"
        )
    values = values or per_user_values(runs, stage, catalogue)
    rng = np.random.default_rng(seed)
    parts = []
    for (scope, k), models in values.items():
        for group in _groups_of_scope(scope, groups):
            means = _means(models, groups[group], rng)
            if len(means):
                parts.append(means.assign(scope=scope, users_scope=group, k=k))
    for model, recs in runs.items():
        parts.append(_list_metrics(model, recs, stage).assign(users=len(groups["warm"])))
    table = pd.concat(parts, ignore_index=True)
    table = table.join(metas[["family", "fit_seconds", "recommend_seconds", "tries"]], on="model")
    table = table.assign(dataset=spec(fold.dataset).name, protocol=fold.protocol, fold=fold.name)
    return table[list(COLUMNS)]


def per_user_values(
    runs: dict[str, pd.DataFrame], stage: Stage, catalogue: pd.Index | None = None
) -> Values:
    """Per-user metrics of every model, by (scope, k) and model."""
    truths = scopes(stage.truth, stage.history, catalogue)
    values = {(scope, k): {} for scope in truths for k in KS}
    for model, recs in runs.items():
        for scope, truth in truths.items():
            lists = restrict(recs, scope, stage.history, catalogue)
            for k in KS:
                values[scope, k][model] = per_user(lists, truth, k)
    return values


def best_first(
    board: pd.DataFrame,
    metric: str = "precision",
    k: int = 5,
    scope: str = "any",
    users: str = "warm",
) -> pd.DataFrame:
    """The leaderboard's rows of one number in its first (newest) fold, best model first."""
    rows = board[
        (board["metric"] == metric)
        & (board["k"] == k)
        & (board["scope"] == scope)
        & (board["users_scope"] == users)
        & (board["fold"] == board["fold"].iloc[0])
    ]
    return rows.sort_values(["value", "model"], ascending=[False, True], ignore_index=True)


def overlap(runs: dict[str, pd.DataFrame], k: int = 10) -> pd.DataFrame:
    """Mean share of the first k items that two models have in common: models × models.

    >>> lists = {
    ...     name: pd.DataFrame({"user_id": "u", "item_id": items, "rank": [1, 2]})
    ...     for name, items in {"a": ["tea", "milk"], "b": ["milk", "rum"]}.items()
    ... }
    >>> float(overlap(lists, 2).loc["a", "b"])
    0.5
    """
    users = distinct(pd.concat([recs["user_id"].astype(str) for recs in runs.values()]))
    items = distinct(pd.concat([recs["item_id"].astype(str) for recs in runs.values()]))
    pairs = {}
    for model, recs in runs.items():
        pairs[model] = np.sort(pair_keys(recs[recs["rank"] <= k], users, items))
    shares = pd.DataFrame(index=list(runs), columns=list(runs), dtype=float)
    for a in runs:
        for b in runs:
            shares.loc[a, b] = np.isin(pairs[a], pairs[b], assume_unique=True).mean()
    return shares


def ensemble_gain(values: dict[str, pd.DataFrame], metric: str = "hit_rate") -> pd.DataFrame:
    """Mean of the better of two models' values of each user: what a blend could reach at most.

    values: per-user metrics by model. Returns models × models.
    """
    best = pd.DataFrame(index=list(values), columns=list(values), dtype=float)
    for a, values_a in values.items():
        for b, values_b in values.items():
            best.loc[a, b] = np.maximum(values_a[metric], values_b[metric]).mean()
    return best


def _groups_of_scope(scope: str, groups: dict[str, pd.Index]) -> list[str]:
    """Groups to judge in a scope: all of them on any purchase, warm users in every scope."""
    if scope == "any":
        return [group for group in groups if group != "heavy"]
    if scope == "prefiltered" and "heavy" in groups:
        return ["warm", "heavy"]
    return ["warm"]


def _means(
    models: dict[str, pd.DataFrame], users: pd.Index, rng: np.random.Generator
) -> pd.DataFrame:
    """Mean and interval of every model and metric over the given users; no row without users."""
    first = next(iter(models.values()))
    member = first.index.isin(users)
    if not member.any():
        return pd.DataFrame()
    names = pd.MultiIndex.from_product([models, first.columns], names=["model", "metric"])
    per_model = [frame[member].to_numpy() for frame in models.values()]
    value, low, high = bootstrap(np.stack(per_model, axis=1), rng)
    numbers = {"value": value.ravel(), "lo": low.ravel(), "hi": high.ravel()}
    return pd.DataFrame(numbers, index=names).assign(users=member.sum()).reset_index()


def _list_metrics(model: str, recs: pd.DataFrame, stage: Stage) -> pd.DataFrame:
    """Coverage, novelty and so on of a model's lists for warm users; they have no interval."""
    lists = warm(recs, stage.history)
    rows = []
    for k in KS:
        for metric, value in beyond_accuracy(lists, stage.history, k).items():
            rows.append({"metric": metric, "k": k, "value": value})
    return pd.DataFrame(rows).assign(
        model=model, scope="any", users_scope="warm", lo=np.nan, hi=np.nan
    )
