"""Blends: several models' recommendation tables in, one table out.

For each item the table names the model that gave the largest part of its score.
"""

import time
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd
from tqdm import tqdm

from recsys_utils import LabError
from recsys_utils.data.folds import Fold, Stage
from recsys_utils.data.interactions import codes, pair_ids
from recsys_utils.data.runs import COLUMNS, DEPTH, save_run, save_validation
from recsys_utils.models import Recommender

FEWEST = 30  # users of a segment below which its best model is luck


def weighted(
    runs: Mapping[str, pd.DataFrame], weights: Mapping[str, float], n: int = DEPTH
) -> pd.DataFrame:
    """Weighted mean of scores that are min-max scaled per user and model.

    User_id, item_id, score in 0…1, rank, source.

    A list of equal scores counts 1, an item that a model does not list 0. A user's weights are
    shared among the models that list the user. Models of weight 0 are not asked. Ties go to the
    more popular item: the lower category of the first table.

    >>> places = {"score": [2.0, 1.0], "rank": [1, 2]}
    >>> own = pd.DataFrame({"user_id": "u", "item_id": ["tea", "rum"], **places})
    >>> popular = pd.DataFrame({"user_id": "u", "item_id": ["milk", "tea"], **places})
    >>> blend = weighted({"own": own, "popular": popular}, {"own": 0.6, "popular": 0.4}, 2)
    >>> blend["item_id"].tolist(), blend["score"].astype(float).round(2).tolist()
    (['tea', 'milk'], [0.6, 0.4])
    """
    weights, runs = (
        _asked(runs, weights),
        {name: recs for name, recs in runs.items() if weights.get(name)},
    )
    stack = _Stack(runs, n)
    scale = np.array([weights[name] for name in runs])
    group = stack.user * len(runs) + stack.run
    listed = np.zeros((len(stack.users), len(runs)))
    listed.ravel()[group] = 1
    share = listed * scale / np.maximum(listed @ scale, 1e-300)[:, None]
    return stack.ranked(_min_max(stack.score, group, listed.size) * share.ravel()[group])


def rrf(
    runs: Mapping[str, pd.DataFrame],
    k: float = 60,
    weights: Mapping[str, float] | None = None,
    n: int = DEPTH,
) -> pd.DataFrame:
    """Reciprocal rank fusion, Σ weight / (k + rank) (Cormack, Clarke, Büttcher 2009).

    It needs no scores, only places.

    >>> lists = {
    ...     name: pd.DataFrame({"user_id": "u", "item_id": items, "score": 1.0, "rank": [1, 2]})
    ...     for name, items in {"a": ["tea", "rum"], "b": ["milk", "tea"]}.items()
    ... }
    >>> rrf(lists, n=2)["item_id"].tolist()
    ['tea', 'milk']
    """
    if not k >= 0:
        raise LabError(f"rrf(k={k}): k takes 0 or more")
    weights = _asked(runs, weights if weights is not None else dict.fromkeys(runs, 1.0))
    stack = _Stack({name: recs for name, recs in runs.items() if weights.get(name)}, n)
    scale = np.array([w for w in (weights.get(name, 0) for name in runs) if w])
    return stack.ranked(scale[stack.run] / (k + stack.rank))


def cascade(
    runs: Mapping[str, pd.DataFrame], sizes: Mapping[str, int] | None = None, n: int = DEPTH
) -> pd.DataFrame:
    """The first model's list, then what the next adds to it, and so on; score 1 / rank.

    sizes: at most so many items of a model; one without a size may give its whole list.
    """
    sizes = _known(runs, sizes or {}, "size")
    stack = _Stack(runs, n)
    if bad := [f"{name}={size}" for name, size in sizes.items() if size < 0]:
        raise LabError(f"cascade(sizes: {bad[0]}): a size takes 0 or more items")
    order = np.lexsort((stack.rank, stack.user))
    taken = np.zeros(0, np.int64)
    for m, name in enumerate(runs):
        rows = order[stack.run[order] == m]
        rows = rows[~np.isin(stack.pair[rows], stack.pair[taken])]
        taken = np.append(taken, rows[_nth(stack.user[rows]) < sizes.get(name, np.inf)])
    taken = taken[np.argsort(stack.user[taken], kind="stable")]
    return stack.table(taken, 1 / (1.0 + _nth(stack.user[taken])), stack.run[taken])


def route(
    runs: Mapping[str, pd.DataFrame], choice: pd.Series, default: str, n: int = DEPTH
) -> pd.DataFrame:
    """Each user's list from one model, scores as they are.

    The model is `choice[user_id]`, or `default` where there is no choice or the model has no list
    for the user.
    """
    if strange := set(choice.dropna()) - set(runs) | {default} - set(runs):
        raise LabError(f"route() was given no table of '{min(strange)}': it has {', '.join(runs)}")
    stack = _Stack(runs, n)
    number = {name: m for m, name in enumerate(runs)}
    listed = np.zeros((len(stack.users), len(runs)), bool)
    listed[stack.user, stack.run] = True
    chosen = choice.reindex(stack.users).map(number).fillna(number[default]).to_numpy(int)
    chosen = np.where(listed[np.arange(len(chosen)), chosen], chosen, number[default])
    mine = np.flatnonzero(stack.run == chosen[stack.user])
    mine = mine[np.lexsort((stack.rank[mine], stack.user[mine]))]
    return stack.table(mine, stack.score[mine], stack.run[mine])


def choose_route(
    values: Mapping[str, pd.DataFrame],
    segment: pd.Series,
    metric: str = "precision",
    fewest: int = FEWEST,
) -> tuple[pd.Series, str]:
    """The model best on validation by segment, and overall.

    A segment of fewer users than `fewest` takes the overall best.

    values: by model, one row of metrics per validation user. segment: by user id.
    """
    table = pd.DataFrame({name: frame[metric] for name, frame in values.items()})
    if table.empty:
        raise LabError(
            "choose_route() was given no validation users: nothing says which model is best"
        )
    overall = table.mean().idxmax()
    groups = table.groupby(segment.reindex(table.index).to_numpy())
    return groups.mean().idxmax(axis=1).where(groups.size() >= fewest, overall), overall


def choose_weights(
    runs: Mapping[str, pd.DataFrame],
    truth: pd.DataFrame,
    k: int = 5,
    rank_k: float | None = None,
    rounds: int = 20,
    depth: int = 50,
) -> tuple[dict[str, float], float]:
    """Weights by ensemble selection on validation, and the mean precision at k they reach there.

    Caruana et al. (2004): each round gives one more vote to the model with which the blend is best,
    whether it has votes or not; of all rounds the best counts. The weights sum to 1. rank_k: None
    for `weighted`, its k for `rrf`. depth: an item that no model lists within the first `depth`
    cannot be in the blend.
    """
    parts, user, hit, users = _judged(_Stack(runs, k), truth, rank_k, depth)
    listed = parts >= 0
    votes = np.zeros(len(runs))
    found = (np.zeros(len(runs)), -1.0)
    for _ in tqdm(range(rounds), desc="ensemble selection", leave=False, disable=None):
        tried = [votes + one for one in np.eye(len(runs))]
        hits = [
            _hits(user, np.where(vote @ listed > 0, vote @ np.maximum(parts, 0), -np.inf), hit, k)
            for vote in tried
        ]
        votes = tried[np.argmax(hits)]
        found = max(found, (votes, max(hits) / (k * users)), key=lambda pair: pair[1])
    return {
        name: float(share) for name, share in zip(runs, found[0] / found[0].sum()) if share
    }, float(found[1])


def _judged(
    stack: "_Stack", truth: pd.DataFrame, rank_k: float | None, depth: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """(models, pairs) parts of a blend, −1 where a model does not list the pair.

    Then the user of each pair, whether it was bought, and the number of users of the truth.
    """
    group = stack.user * len(stack.names) + stack.run
    value = (
        _min_max(stack.score, group, len(stack.users) * len(stack.names))
        if rank_k is None
        else 1 / (rank_k + stack.rank)
    )
    pairs, parts, at = stack.spread(value)
    user = codes(truth["user_id"], stack.users)
    item = codes(truth["item_id"], stack.items)
    row = pairs // max(1, len(stack.items))
    near = np.zeros(len(pairs), bool)
    near[at[stack.rank <= depth]] = True
    near &= np.isin(row, user)
    known = (user >= 0) & (item >= 0)
    bought = pair_ids(user[known], item[known], len(stack.items))
    hit = np.isin(pairs, bought)
    return parts[:, near], row[near], hit[near], truth["user_id"].nunique()


def _hits(user: np.ndarray, score: np.ndarray, hit: np.ndarray, k: int) -> int:
    """Hits among each user's k largest scores; users in order, ties to the earlier row."""
    order = np.lexsort((-np.round(score, 12), user))
    first = order[_nth(user[order]) < k]
    return int((hit[first] & (score[first] > -np.inf)).sum())


def lists(
    models: Mapping[str, Recommender], stage: Stage, n: int = DEPTH
) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """Fit models on a stage's history, and make their tables for its users.

    Then the seconds that fitting and recommending took, by model.
    """
    tables = {}
    seconds = {}
    for name, model in models.items():
        start = time.perf_counter()
        model.fit(stage.history)
        fitted = time.perf_counter()
        tables[name] = model.recommend(stage.users, n, stage.exclude, profiles=stage.profiles)
        seconds[name] = (fitted - start, time.perf_counter() - fitted)
    return tables, pd.DataFrame(seconds, ["fit", "recommend"]).T


def record(
    fuse: Callable[..., pd.DataFrame],
    runs: Mapping[str, pd.DataFrame],
    fold: Fold,
    name: str,
    seconds: pd.DataFrame,
    note: str = "",
    validation: pd.DataFrame | None = None,
    tries: int = 1,
    **options: object,
) -> pd.DataFrame:
    """Blend tables of a fold's test users and save the result as a run.

    seconds: as of `lists`; a blend costs what its parts cost together. validation: the same blend
    of the parts' tables for the validation window. tries: weightings that were judged on it.
    """
    if validation is not None:
        save_validation(validation, fold, name)
    start = time.perf_counter()
    recs = fuse(runs, **options)
    cost = seconds.loc[list(runs)].sum()
    params = {"models": list(runs)} | {
        key: value for key, value in options.items() if not isinstance(value, pd.Series)
    }
    save_run(
        recs,
        fold,
        name,
        "hybrid",
        params,
        cost["fit"],
        cost["recommend"] + time.perf_counter() - start,
        note,
        tries=tries,
    )
    return recs


class _Stack:
    """The rows of several tables one below the other, as codes.

    Columns: run, user, item (by popularity), score, rank, and pair = (user, item).
    """

    def __init__(self, runs: Mapping[str, pd.DataFrame], n: int) -> None:
        _check(runs, n)
        self.names = list(runs)
        self.n = n
        self.run = np.repeat(np.arange(len(runs)), [len(recs) for recs in runs.values()])
        self.users, self.user = _numbered([recs["user_id"] for recs in runs.values()])
        self.items, self.item = _numbered([recs["item_id"] for recs in runs.values()])
        self.score = np.concatenate([recs["score"].to_numpy(float) for recs in runs.values()])
        self.rank = np.concatenate([recs["rank"].to_numpy(np.int64) for recs in runs.values()])
        self.pair = self.user * max(1, len(self.items)) + self.item
        if np.isnan(self.score).any():
            raise LabError(
                f"the table of '{self.names[self.run[np.isnan(self.score).argmax()]]}' has an empty"
                " score: recommend() gives none"
            )

    def ranked(self, part: np.ndarray) -> pd.DataFrame:
        """The table of pairs by the sum of their parts, which are ≥ 0, one per row.

        The largest part names the source.
        """
        pairs, parts, at = self.spread(part)
        if len(self.run) != len(np.unique(at * len(self.names) + self.run)):
            raise LabError("a table lists an item twice for a user: recommend() never does")
        score = np.maximum(parts, 0).sum(axis=0)
        user, item = np.divmod(pairs, max(1, len(self.items)))
        # Sums of equal parts in another order are equal.
        order = np.lexsort((item, -np.round(score, 12), user))
        return self._made(user[order], item[order], score[order], parts.argmax(axis=0)[order])

    def spread(self, part: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The distinct pairs, and each model's part of them, −1 where it does not list the pair.

        The third value is the place of every row among the pairs.
        """
        pairs, at = np.unique(self.pair, return_inverse=True)
        parts = np.full((len(self.names), len(pairs)), -1.0)
        parts[self.run, at] = part
        return pairs, parts, at

    def table(self, rows: np.ndarray, score: np.ndarray, source: np.ndarray) -> pd.DataFrame:
        """The table of some rows, in their order within each user."""
        return self._made(self.user[rows], self.item[rows], score, source)

    def _made(
        self, user: np.ndarray, item: np.ndarray, score: np.ndarray, source: np.ndarray
    ) -> pd.DataFrame:
        rank = _nth(user) + 1
        kept = rank <= self.n
        result = {
            "user_id": (user, self.users),
            "item_id": (item, self.items),
            "source": (source, self.names),
        }
        result = {
            name: pd.Categorical.from_codes(code[kept], kinds)
            for name, (code, kinds) in result.items()
        }
        result |= {"score": score[kept].astype(np.float32), "rank": rank[kept].astype(np.int16)}
        return pd.DataFrame({name: result[name] for name in (*COLUMNS, "source")})


def _numbered(columns: Iterable[pd.Series]) -> tuple[pd.Index, np.ndarray]:
    """One numbering for columns of ids: the first's categories, then what each other adds.

    The second value is all their codes, one column after the other.
    """
    columns = [
        c if isinstance(c.dtype, pd.CategoricalDtype) else c.astype(str).astype("category")
        for c in columns
    ]
    first, *others = (c.cat.categories for c in columns)
    if all(first.equals(other) for other in others):
        return first, np.concatenate([c.cat.codes for c in columns]).astype(np.int64)
    result = first.astype(str)
    for other in others:
        result = result.append(other.astype(str).difference(result, sort=False))
    return result, np.concatenate([codes(c, result) for c in columns]).astype(np.int64)


def _min_max(score: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    """Scores scaled to 0…1 within groups; 1 in a group of equal scores."""
    low = np.full(groups, np.inf)
    high = np.full(groups, -np.inf)
    np.minimum.at(low, group, score)
    np.maximum.at(high, group, score)
    span = (high - low)[group]
    return np.divide(score - low[group], span, out=np.ones_like(score), where=span > 0)


def _nth(group: np.ndarray) -> np.ndarray:
    """0, 1, 2… within each run of equal values."""
    new = np.flatnonzero(np.append(True, group[1:] != group[:-1]))
    return (
        np.arange(len(group)) - np.repeat(new, np.diff(np.append(new, len(group))))
        if len(group)
        else np.zeros(0, np.int64)
    )


def _asked(runs: Mapping[str, pd.DataFrame], weights: Mapping[str, float]) -> dict[str, float]:
    """The weights, checked."""
    weights = _known(runs, weights, "weight")
    if bad := [f"{name}={weight}" for name, weight in weights.items() if not 0 <= weight < np.inf]:
        raise LabError(f"the weight {bad[0]} is no weight: weights take 0 or more")
    if not any(weights.values()):
        raise LabError(f"every weight is 0: give one of {', '.join(runs)} a weight above 0")
    return weights


def _known(
    runs: Mapping[str, pd.DataFrame], options: Mapping[str, float], what: str
) -> dict[str, float]:
    if strange := [name for name in options if name not in runs]:
        raise LabError(
            f"a {what} is given for '{strange[0]}', of which there is no table: there is"
            f" {', '.join(runs) or 'none at all'}"
        )
    return dict(options)


def _check(runs: Mapping[str, pd.DataFrame], n: int) -> None:
    if not runs:
        raise LabError("there is nothing to blend: give at least one model's table")
    if n < 1:
        raise LabError(f"n is {n}: ask for 1 or more items")
    for name, recs in runs.items():
        if missing := [c for c in COLUMNS if c not in recs]:
            raise LabError(
                f"the table of '{name}' lacks the column {missing[0]}: it needs"
                f" {', '.join(COLUMNS)}"
            )
