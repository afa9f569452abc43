"""What a notebook shows of one shopper, and how it records a model: frames that read well without further styling."""

import time
from collections.abc import Iterable

import pandas as pd

from recsys_utils.data.folds import Fold, Stage
from recsys_utils.data.runs import DEPTH, load_metas, save_run
from recsys_utils.evaluation.leaderboard import restrict, scopes, warm
from recsys_utils.evaluation.metrics import per_user
from recsys_utils.models import Recommender


def record(model: Recommender, fold: Fold, name: str, note: str = "") -> pd.DataFrame:
    """Refit on everything before the test window, recommend for every test user, time both, save the table."""
    start = time.perf_counter()
    model.fit(fold.testing.history)
    return _recorded(model, fold, name, note, time.perf_counter() - start, fold.testing.exclude)


def record_new(model: Recommender, fold: Fold, name: str, of: str, note: str = "") -> pd.DataFrame:
    """The lists of a model that was just recorded as `of`, without what was bought before, as a table of their own."""
    return _recorded(model, fold, name, note, load_metas(fold).loc[of, "fit_seconds"], "bought")


def _recorded(
    model: Recommender, fold: Fold, name: str, note: str, fit_seconds: float, exclude: str | None
) -> pd.DataFrame:
    start = time.perf_counter()
    recs = model.recommend(fold.testing.users, DEPTH, exclude, profiles=fold.testing.profiles)
    save_run(
        recs, fold, name, model.family, model.params, fit_seconds, time.perf_counter() - start, note
    )
    return recs


def summary(recs: dict[str, pd.DataFrame], stage: Stage, k: int = 5) -> pd.DataFrame:
    """Mean metrics at k of each model over the stage's warm users, best precision first."""
    truth = warm(stage.truth, stage.history)
    table = pd.DataFrame({name: per_user(r, truth, k).mean() for name, r in recs.items()}).T.round(
        4
    )
    return table.sort_values("precision", ascending=False, kind="stable")


def by_scope(recs: dict[str, pd.DataFrame], stage: Stage, k: int = 5) -> pd.DataFrame:
    """Precision at k of each model on any purchase, on repeats and on what is new to the shopper."""
    truths = scopes(warm(stage.truth, stage.history), stage.history)
    rows = {
        name: {
            scope: per_user(restrict(r, scope, stage.history), truth, k)["precision"].mean()
            for scope, truth in truths.items()
        }
        for name, r in recs.items()
    }
    return pd.DataFrame(rows).T.round(4)


def sweep(
    model: Recommender, parameter: str, values: Iterable[float], stage: Stage, k: int = 5
) -> pd.DataFrame:
    """Precision by scope of a fitted model for values of a parameter that acts on its scores alone; the model keeps the best."""
    lists, before = {}, getattr(model, parameter)
    for value in values:
        setattr(model, parameter, value)
        lists[value] = model.recommend(stage.users, DEPTH, stage.exclude)
    table = by_scope(lists, stage, k).rename_axis(parameter)
    table.insert(
        0, "any", table.pop("any") if "any" in table else float("nan")
    )  # nobody to judge: nothing to choose by
    setattr(
        model, parameter, float(table["any"].idxmax()) if table["any"].notna().any() else before
    )
    return table.fillna("")


def shopper(stage: Stage) -> str:
    """A shopper worth showing: a middling history (median baskets of test users), at least five items bought in the window."""
    history, truth = stage.history, stage.truth
    size = truth.groupby("user_id", observed=True)["item_id"].nunique()
    known = [
        user for user in size.index[size >= min(5, size.max())] if user in history.user_ids
    ] or list(size.index)
    baskets = (
        history.purchases.groupby("user_id", observed=True)["basket_id"]
        .nunique()
        .reindex(known)
        .fillna(0)
    )
    return str((baskets - baskets.median()).abs().sort_values(kind="stable").index[0])


def past(user: str, stage: Stage, n: int = 10) -> pd.DataFrame:
    """What a shopper bought most often: item, times, last date, price."""
    rows = stage.history.purchases
    mine = rows[rows["user_id"] == user]
    table = mine.groupby(mine["item_id"].astype(str)).agg(
        times=("basket_id", "nunique"), last=("ts", "max")
    )
    table = (
        table.sort_values(["times", "last"], ascending=False)
        .head(n)
        .assign(last=lambda t: t["last"].dt.date)
        .reset_index()
    )
    return _described(table, stage)


def listed(user: str, recs: pd.DataFrame, stage: Stage, k: int = 5) -> pd.DataFrame:
    """A shopper's list with names and prices, and whether they then bought the item or had bought it before."""
    mine = (
        recs[(recs["user_id"] == user) & (recs["rank"] <= k)]
        .sort_values("rank")
        .astype({"item_id": str})
    )
    mark = {True: "✓", False: ""}
    before, then = (
        set(rows.loc[rows["user_id"] == user, "item_id"].astype(str))
        for rows in (stage.history.purchases, stage.truth)
    )
    table = mine[["rank", "item_id"]].assign(
        before=mine["item_id"].isin(before).map(mark),
        then_bought=mine["item_id"].isin(then).map(mark),
    )
    return _described(table, stage).set_index("rank")


def _described(table: pd.DataFrame, stage: Stage) -> pd.DataFrame:
    """Names and prices in the place of ids, where the data set has them."""
    items, prices = stage.history.items, pd.Series(stage.history.price, stage.history.item_ids)
    if "name" in items:
        table.insert(
            list(table.columns).index("item_id") + 1,
            "name",
            items["name"].reindex(table["item_id"]).to_numpy(),
        )
    if prices.notna().any():
        table["price"] = prices.reindex(table["item_id"]).round(2).to_numpy()
    return table
