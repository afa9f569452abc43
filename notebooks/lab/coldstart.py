"""Cold start: take users or items out of the history, and judge them on what followed."""

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
    """The stage as if a random share of its users or items were new: no row of theirs is left.

    Users are drawn from those who bought in the window; their profiles stay. Items are drawn from
    those ever sold; they stay on sale, with their attributes. The draw depends on the ids and the
    seed, not on the order of rows.

    truth: what the held-out users bought, or who bought the held-out items: in the window; "ever"
    adds the rows taken out, for data with few users in the window.

    Raises LabError for an unknown option, or if nobody is left to judge or to learn from.
    """
    if who not in ("users", "items") or truth not in ("window", "ever"):
        raise LabError(
            f"hold_out({who=}, {truth=}): who is users or items, truth is window or ever"
        )
    history = stage.history
    rows = history.purchases
    judged = stage.truth
    if truth == "ever":
        judged = pd.concat([rows, stage.truth], ignore_index=True)
    if who == "users":
        column = "user_id"
        ids = history.user_ids[history.user_ids.isin(judged["user_id"])]
    else:
        column = "item_id"
        ids = history.item_ids[history.sold]
    shuffled = np.random.default_rng(seed).permutation(np.sort(ids.to_numpy(str)))
    held = shuffled[: round(share * len(ids))]
    is_held = rows[column].isin(held)
    if not len(held) or is_held.all():
        raise LabError(
            f"hold_out({share=}) of {len(ids)} {who} leaves nobody to judge or to learn from: "
            "take another share"
        )
    left = Interactions.of(
        rows[~is_held],
        history.items.reset_index(),
        history.users.reset_index(),
        history.as_of,
        history.item_ids.to_series(),
    )
    profiles = stage.profiles
    if profiles is None:
        profiles = history.users.loc[history.user_ids.isin(held)]
    held_truth = judged[judged[column].isin(held)].reset_index(drop=True)
    return Stage(left, held_truth, stage.exclude, profiles)


def cold_items(stage: Stage) -> pd.Index:
    """Items on sale that nobody in the history bought: held out, or never sold."""
    return stage.history.item_ids[~stage.history.sold]


def judge(
    models: dict[str, Recommender], stage: Stage, only: pd.Index | None = None, k: int = 5
) -> pd.DataFrame:
    """Fit each model and judge its lists.

    only: the items that may be listed, e.g. `cold_items(stage)`. Then users without history are
    left out, and a row "chance" says what items drawn at random would reach.

    Returns models × precision, recall, hit_rate, error (standard error of the precision), users.
    """
    users = stage.users
    if only is not None:
        users = users.intersection(stage.history.user_ids)
    truth = stage.truth[stage.truth["user_id"].isin(users)]
    rows = {}
    for name, model in models.items():
        model.fit(stage.history)
        recs = model.recommend(users, k, stage.exclude, only, stage.profiles)
        values = per_user(recs, truth, k)
        rows[name] = values[["precision", "recall", "hit_rate"]].mean().to_dict()
        rows[name]["error"] = values["precision"].sem()
    if only is not None:
        bought = len(truth[["user_id", "item_id"]].drop_duplicates()) / len(users)
        listed = min(k, len(only)) / len(only)  # share of the items that a list can hold
        rows["chance"] = {"precision": bought * listed / k, "recall": listed}
    return pd.DataFrame(rows).T.assign(users=len(users))


@dataclass
class PopularEver(Popular):
    """All-time popularity, for strangers too: to compare with where the truth is of all times."""

    days: float | None = None

    def _cold_scores(self, profiles: pd.DataFrame) -> np.ndarray:
        return np.repeat(self.counts_[None, :], len(profiles), axis=0)


@dataclass
class UsualCategory(Recommender):
    """A user's purchases in an item's category, per item of it: what new items compare with."""

    def _fit(self, data: Interactions) -> None:
        n_items = data.shape[1]
        self.category_ = np.ones(n_items, int)
        for column in ("category", "subcategory"):  # the finer one, where there are both
            if column in data.items:
                self.category_ = pd.factorize(data.items[column], sort=True)[0] + 1
        cells = (np.arange(n_items), self.category_)
        sold_in = sparse.csr_matrix((data.sold.astype(np.float32), cells))
        size = np.maximum(sold_in.sum(axis=0).A1, 1).astype(np.float32)
        self.rate_ = (data.seen @ sold_in).toarray() / size

    def _scores(self, users: np.ndarray) -> np.ndarray:
        return self.rate_[users][:, self.category_]
