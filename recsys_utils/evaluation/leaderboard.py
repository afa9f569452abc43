"""The judge: one leaderboard from recommendation tables, with intervals and letters; tuning on validation."""

import time
from collections.abc import Iterable
from string import ascii_lowercase

import numpy as np
import pandas as pd
from tqdm import tqdm

from recsys_utils import LabError
from recsys_utils.data.folds import Fold, Stage
from recsys_utils.data.interactions import Interactions, codes
from recsys_utils.data.registry import spec
from recsys_utils.evaluation.metrics import per_user, whole
from recsys_utils.models import Recommender

KS = (5, 10)
BOOTSTRAPS = 1000
FLIPS = 10_000  # of signs, at least; and so many per pair of models that Holm's correction does not swallow the smallest p
FLIPS_PER_PAIR = 60
HEAVY = 5  # system 3 judged only users with at least this many catalogue purchases
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
)
HISTORY = ((1, 1), (2, 4), (5, 9), (10, 24), (25, None))


def tune(models: Iterable[Recommender], stage: Stage, k: int = 5) -> pd.DataFrame:
    """Fit each model on a stage's history and judge its lists: parameters, precision, recall, seconds; best first."""
    rows, truth = [], warm(stage.truth, stage.history)
    for model in tqdm(list(models), desc="tuning", leave=False, disable=None):
        start = time.perf_counter()
        recs = model.fit(stage.history).recommend(truth["user_id"].unique(), k, stage.exclude)
        mean = (
            per_user(recs, truth, k).mean()
            if len(truth)
            else pd.Series({"precision": np.nan, "recall": np.nan})
        )
        rows.append(
            {
                "model": model,
                **model.params,
                f"precision@{k}": mean["precision"],
                f"recall@{k}": mean["recall"],
                "seconds": time.perf_counter() - start,
            }
        )
    return pd.DataFrame(rows).sort_values(
        f"precision@{k}", ascending=False, kind="stable", ignore_index=True
    )


def warm(rows: pd.DataFrame, history: Interactions) -> pd.DataFrame:
    """Rows (of truth or of recommendations) whose user has a history."""
    return rows[codes(rows["user_id"], history.user_ids) >= 0]


def scopes(
    truth: pd.DataFrame, history: Interactions, catalogue: pd.Index | None = None
) -> dict[str, pd.DataFrame]:
    """Truth by what it asks: any purchase, repeats, items new to the user, items that nobody bought before but the shop
    lists, and the prefiltered catalogue's."""
    repeat = bought_before(truth, history)
    made = {
        "any": truth,
        "repeat": truth[repeat],
        "new": truth[~repeat],
        "cold items": truth[inside(truth, history.item_ids[~history.sold])],
    }
    if catalogue is not None:
        made["prefiltered"] = truth[inside(truth, catalogue)]
    return {name: rows for name, rows in made.items() if len(rows)}


def restrict(
    recs: pd.DataFrame, scope: str, history: Interactions, catalogue: pd.Index | None = None
) -> pd.DataFrame:
    """Lists as they would be in a scope: only repeats, only new items, only never-sold or catalogue items; ranked anew from 1."""
    if scope == "any":
        return recs
    if scope in ("prefiltered", "cold items"):
        kept = inside(
            recs, catalogue if scope == "prefiltered" else history.item_ids[~history.sold]
        )
    else:
        kept = bought_before(recs, history) == (scope == "repeat")
    recs = recs[kept].sort_values(["user_id", "rank"])
    return recs.assign(rank=recs.groupby("user_id", observed=True).cumcount() + 1)


def bought_before(pairs: pd.DataFrame, history: Interactions) -> np.ndarray:
    """Whether each (user, item) pair is in the history."""
    user, item = (
        codes(pairs["user_id"], history.user_ids),
        codes(pairs["item_id"], history.item_ids),
    )
    known, made = (user >= 0) & (item >= 0), np.zeros(len(pairs), bool)
    if known.any():
        made[known] = np.asarray(history.seen[user[known], item[known]]).ravel() > 0
    return made


def user_groups(stage: Stage, catalogue: pd.Index | None = None) -> dict[str, pd.Index]:
    """Users of a stage by name of group: warm, cold, by length of history, by segment, system 3's heavy subset."""
    users, history = stage.users, stage.history
    known = history.user_ids.get_indexer(users)
    baskets = (
        history.purchases.groupby(history.user)["basket_id"].nunique().reindex(known).to_numpy()
    )
    groups = {"warm": users[known >= 0], "cold": users[known < 0]}
    for low, high in HISTORY:
        name = (
            f"history: {low}"
            if low == high
            else f"history: {low} to {high}"
            if high
            else f"history: {low} or more"
        )
        groups[name] = users[(baskets >= low) & (baskets <= (high or np.inf))]
    for column in [c for c in ("segment", "country") if c in history.users]:
        values = history.users[column].reindex(users).astype("object")
        top = values.value_counts().head(8)
        groups |= {
            f"{column}: {value}": users[(values == value).to_numpy()]
            for value in top.index[top >= 20]
        }
    if catalogue is not None:
        counts = (
            stage.truth[inside(stage.truth, catalogue)]
            .groupby("user_id", observed=True)["item_id"]
            .nunique()
        )
        groups["heavy"] = users[
            (counts.reindex(users).fillna(0) >= HEAVY).to_numpy() & (known >= 0)
        ]
    return {name: members for name, members in groups.items() if len(members)}


def inside(pairs: pd.DataFrame, catalogue: pd.Index) -> np.ndarray:
    """Whether each pair's item is in a catalogue."""
    return codes(pairs["item_id"], catalogue) >= 0


def values(
    runs: dict[str, pd.DataFrame], stage: Stage, catalogue: pd.Index | None = None
) -> dict[tuple[str, int], dict[str, pd.DataFrame]]:
    """Per-user metric values of every model: {(scope, k): {model: users × metrics}}."""
    truths = scopes(stage.truth, stage.history, catalogue)
    made = {(scope, k): {} for scope in truths for k in KS}
    for model, recs in runs.items():
        for scope, truth in truths.items():
            lists = restrict(recs, scope, stage.history, catalogue)
            for k in KS:
                made[scope, k][model] = per_user(lists, truth, k)
    return made


def leaderboard(
    runs: dict[str, pd.DataFrame],
    metas: pd.DataFrame,
    fold: Fold,
    catalogue: pd.Index | None = None,
    judged: dict[tuple[str, int], dict[str, pd.DataFrame]] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """The tidy table of every model × scope × group of users × metric × k, with bootstrap 95 % intervals over users.

    judged: what `values` made of the same runs, where it is at hand already.
    """
    stage, rng, rows = fold.testing, np.random.default_rng(seed), []
    groups = user_groups(stage, catalogue)
    if "warm" not in groups:
        raise LabError(
            f"nobody in fold {fold.name} bought before its test window: take a longer history or another protocol"
        )
    for (scope, k), models in (judged or values(runs, stage, catalogue)).items():
        for group in _asked(scope, groups):
            rows += [
                (model, scope, group, *rest)
                for model, *rest in _means(models, groups[group], k, rng)
            ]
    for model, recs in runs.items():
        rows += [
            (model, "any", "warm", metric, k, value, np.nan, np.nan, len(groups["warm"]))
            for k in KS
            for metric, value in whole(warm(recs, stage.history), stage.history, k).items()
        ]
    table = pd.DataFrame(
        rows, columns=["model", "scope", "users_scope", "metric", "k", "value", "lo", "hi", "users"]
    )
    table = table.join(metas[["family", "fit_seconds", "recommend_seconds"]], on="model")
    table = table.assign(dataset=spec(fold.dataset).name, protocol=fold.protocol, fold=fold.name)
    return table[list(COLUMNS)]


def _asked(scope: str, groups: dict[str, pd.Index]) -> list[str]:
    """Groups of users that a scope is judged on: all of them on any purchase, warm users in every scope."""
    if scope == "any":
        return [group for group in groups if group != "heavy"]
    return ["warm", "heavy"] if scope == "prefiltered" and "heavy" in groups else ["warm"]


def _means(
    models: dict[str, pd.DataFrame], users: pd.Index, k: int, rng: np.random.Generator
) -> list[tuple]:
    """(model, metric, k, mean, low, high, users) of every model and metric over some users."""
    first = next(iter(models.values()))
    members = first.index.isin(users)
    if not members.any():
        return []
    mean, low, high = bootstrap(
        np.stack([frame[members].to_numpy() for frame in models.values()], axis=1), rng
    )
    return [
        (model, metric, k, mean[i, j], low[i, j], high[i, j], members.sum())
        for i, model in enumerate(models)
        for j, metric in enumerate(first.columns)
    ]


def bootstrap(
    values: np.ndarray, rng: np.random.Generator, times: int = BOOTSTRAPS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over axis 0 and its 95 % percentile interval; all columns share their resamples."""
    n, flat = len(values), values.reshape(len(values), -1)
    step = max(1, 4_000_000 // n)
    means = [
        rng.multinomial(n, np.full(n, 1 / n), size=min(step, times - start)) @ flat / n
        for start in range(0, times, step)
    ]
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975], axis=0)
    shape = values.shape[1:]
    return flat.mean(axis=0).reshape(shape), low.reshape(shape), high.reshape(shape)


def paired(values: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Two-sided paired permutation test of every pair of columns over the same users, Holm-corrected.

    Under the null a user's difference has a random sign (Fisher 1935; Smucker et al. 2007). Returns model_a, model_b,
    difference, p, p_holm.
    """
    names, matrix = list(values.columns), values.to_numpy(float)
    a, b = np.triu_indices(len(names), 1)
    flips, differences = (
        max(FLIPS, FLIPS_PER_PAIR * len(a)),
        matrix.sum(axis=0)[a] - matrix.sum(axis=0)[b],
    )
    observed, extreme, rng = (
        np.abs(differences) - 1e-9,
        np.zeros(len(a)),
        np.random.default_rng(seed),
    )
    step = max(1, 4_000_000 // max(1, len(values)))
    for start in range(0, flips, step):
        signs = (
            rng.integers(0, 2, (min(step, flips - start), len(values)), dtype=np.int8)
            * np.float64(2)
            - 1
        )
        sums = (
            signs @ matrix
        )  # a pair's flipped difference is the difference of its models' flipped sums
        extreme += (np.abs(sums[:, a] - sums[:, b]) >= observed).sum(axis=0)
    p = (extreme + 1) / (flips + 1)
    made = pd.DataFrame(
        {
            "model_a": np.array(names)[a],
            "model_b": np.array(names)[b],
            "difference": differences / max(1, len(values)),
            "p": p,
        }
    )
    return made.assign(p_holm=holm(p))


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down correction (1979)."""
    order = np.argsort(p)
    adjusted = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    made = np.empty(len(p))
    made[order] = np.minimum(adjusted, 1)
    return made


def letters(values: pd.DataFrame, alpha: float = 0.05) -> pd.DataFrame:
    """Models by mean value, best first, each with a letter and the letters of the models it beats at `alpha`."""
    mean = values.mean().sort_values(ascending=False, kind="stable")
    letter = dict(
        zip(mean.index, (f"{ascii_lowercase[i % 26]}{i // 26 or ''}" for i in range(len(mean))))
    )
    tests = paired(values)
    won = tests[tests["p_holm"] < alpha]
    beats = pd.concat(
        [
            won[won["difference"] > 0][["model_a", "model_b"]],
            won[won["difference"] < 0][["model_b", "model_a"]].set_axis(
                ["model_a", "model_b"], axis=1
            ),
        ]
    )
    beaten = beats.groupby("model_a")["model_b"].apply(
        lambda losers: " ".join(sorted(letter[m] for m in losers))
    )
    return pd.DataFrame(
        {"letter": pd.Series(letter), "mean": mean, "beats": beaten.reindex(mean.index).fillna("")}
    ).loc[mean.index]


def overlap(runs: dict[str, pd.DataFrame], k: int = 10) -> pd.DataFrame:
    """Mean share of the first k items that two models have in common: models × models."""
    users, items = (
        pd.Index(pd.unique(pd.concat([r[c].astype(str) for r in runs.values()])))
        for c in ("user_id", "item_id")
    )
    sets = {}
    for model, recs in runs.items():
        top = recs[recs["rank"] <= k]
        sets[model] = np.sort(
            codes(top["user_id"], users).astype(np.int64) * len(items)
            + codes(top["item_id"], items)
        )
    share = [
        [np.isin(a, b, assume_unique=True).mean() for b in sets.values()] for a in sets.values()
    ]
    return pd.DataFrame(share, index=list(sets), columns=list(sets))


def ensemble_gain(values: dict[str, pd.DataFrame], metric: str = "hit_rate") -> pd.DataFrame:
    """Best of two per user (an oracle): what any blend of two models could reach at most; models × models."""
    names = list(values)
    best = [[np.maximum(values[a][metric], values[b][metric]).mean() for b in names] for a in names]
    return pd.DataFrame(best, index=names, columns=names)
