"""Cold start, proven: users or items are taken out of the history as if they were new, and judged on what they then did."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy import sparse

from recsys_utils import LabError
from recsys_utils.data.folds import Stage
from recsys_utils.data.interactions import Interactions
from recsys_utils.evaluation.metrics import per_user
from recsys_utils.models import Popular, Recommender


def hold_out(
    stage: Stage,
    share: float = 0.2,
    seed: int = 42,
    who: Literal["users", "items"] = "users",
    truth: Literal["window", "ever"] = "window",
) -> Stage:
    """The stage as if a random `share` of its users (or items) were new: no row of theirs is in the history.

    Users: a share of those who bought in the window; their profiles stay, from the shop's file or else from the history.
    Items: a share of those ever sold; they stay on sale, with their attributes. truth: what the held-out users bought (who
    bought the held-out items) in the window; "ever" adds the rows taken out, for data with few users in the window. The draw
    depends on the ids and the seed, not on the order of rows. Use `cold_items` and `judge` on the result.
    """
    if who not in ("users", "items") or truth not in ("window", "ever"):
        raise LabError(
            f"hold_out({who=}, {truth=}): who is users or items, truth is window or ever"
        )
    history, column, rows = stage.history, who[:-1] + "_id", stage.history.purchases
    asked = pd.concat([rows, stage.truth], ignore_index=True) if truth == "ever" else stage.truth
    ids = (
        history.user_ids[history.user_ids.isin(asked["user_id"])]
        if who == "users"
        else history.item_ids[history.sold]
    )
    held = np.random.default_rng(seed).permutation(np.sort(ids.to_numpy(str)))[
        : round(share * len(ids))
    ]
    if not len(held) or rows[column].isin(held).all():
        raise LabError(
            f"hold_out({share=}) of {len(ids)} {who} leaves nobody to judge or to learn from: take another share"
        )
    left = Interactions.of(
        rows[~rows[column].isin(held)],
        history.items.reset_index(),
        history.users.reset_index(),
        history.as_of,
        history.item_ids.to_series(),
    )
    profiles = (
        stage.profiles
        if stage.profiles is not None
        else history.users.loc[history.user_ids.isin(held)]
    )
    return Stage(
        left, asked[asked[column].isin(held)].reset_index(drop=True), stage.exclude, profiles
    )


def cold_items(stage: Stage) -> pd.Index:
    """Items on sale that nobody in the history bought: the held-out ones and those that never sold."""
    return stage.history.item_ids[~stage.history.sold]


def judge(
    models: dict[str, Recommender], stage: Stage, only: pd.Index | None = None, k: int = 5
) -> pd.DataFrame:
    """Fit each model, judge it: mean precision, recall, hit rate at k, standard error of the precision, number of users.

    only: the items that may be listed, e.g. `cold_items(stage)`; then users without history are left out, and a row says
    what items drawn by chance would reach.
    """
    users, rows = (
        stage.users if only is None else stage.users.intersection(stage.history.user_ids),
        {},
    )
    truth = stage.truth[stage.truth["user_id"].isin(users)]
    for name, model in models.items():
        recs = model.fit(stage.history).recommend(users, k, stage.exclude, only, stage.profiles)
        each = per_user(recs, truth, k)
        rows[name] = {
            **each[["precision", "recall", "hit_rate"]].mean(),
            "error": each["precision"].sem(),
        }
    if only is not None:
        pairs = len(truth[["user_id", "item_id"]].drop_duplicates())
        rows["chance"] = {"precision": pairs / len(users) / len(only), "recall": k / len(only)}
    return pd.DataFrame(rows).T.assign(users=len(users))


@dataclass
class PopularEver(Popular):
    """All-time popularity, for strangers too: the line to beat where the truth is of all times."""

    days: float | None = None

    def _cold_scores(self, profiles: pd.DataFrame) -> np.ndarray:
        return np.repeat(self.counts_[None, :], len(profiles), axis=0)


@dataclass
class UsualCategory(Recommender):
    """What the shopper bought of an item's category, per item of it: the line to beat for items without history."""

    def _fit(self, data: Interactions) -> None:
        column = next((c for c in ("subcategory", "category") if c in data.items), None)
        self.group_ = (
            pd.factorize(data.items[column], sort=True)[0]
            if column
            else np.zeros(data.shape[1], int)
        ) + 1
        member = sparse.csr_matrix(
            (data.sold.astype(np.float32), (np.arange(data.shape[1]), self.group_))
        )
        self.rate_ = (data.seen @ member).toarray() / np.maximum(member.sum(axis=0).A1, 1).astype(
            np.float32
        )

    def _scores(self, users: np.ndarray) -> np.ndarray:
        return self.rate_[users][:, self.group_]
