"""A fold with its runs and what the evaluation says of them: all numbers of the page."""

from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from recsys_utils import LabError
from recsys_utils.data import folds
from recsys_utils.data.folds import Fold
from recsys_utils.data.runs import load_outside, load_runs, load_validation
from recsys_utils.evaluation.leaderboard import (
    Values,
    best_first,
    leaderboard,
    per_user_values,
)
from recsys_utils.evaluation.slices import user_groups
from recsys_utils.report.choice import Choice, choose, validation_values
from recsys_utils.store import read_json


@dataclass
class Judged:
    """A fold, its runs, and what follows from them; each is computed once, when it is needed."""

    fold: Fold
    runs: dict[str, pd.DataFrame]  # lists by model
    metas: pd.DataFrame  # by model: family, params, seconds, …
    catalogue: pd.Index | None  # ids that the prefilter keeps

    @cached_property
    def board(self) -> pd.DataFrame:
        """The tidy leaderboard."""
        return leaderboard(self.runs, self.metas, self.fold, self.catalogue, self.values)

    @cached_property
    def values(self) -> Values:
        """Metrics of every user of the test window, by (scope, k) and model."""
        return per_user_values(self.runs, self.fold.testing, self.catalogue)

    @cached_property
    def groups(self) -> dict[str, pd.Index]:
        """Users by name of group; warm and cold are always there, if need be empty."""
        nobody = pd.Index([], dtype=object)
        groups = {"warm": nobody, "cold": nobody}
        return groups | user_groups(self.fold.testing, self.catalogue)

    @cached_property
    def families(self) -> dict[str, str]:
        """Family by model, best model first."""
        return best_first(self.board).set_index("model")["family"].to_dict()

    @cached_property
    def lists_before(self) -> dict[str, pd.DataFrame]:
        """Each model's lists for the validation window."""
        return load_validation(self.fold)

    @cached_property
    def choice(self) -> Choice | None:
        """The model that the validation window chooses; None where no list was recorded."""
        return choose(validation_values(self.lists_before, self.fold.tuning))

    def precision(self, scope: str = "any", k: int = 5, users: str = "warm") -> pd.DataFrame:
        """Precision at k of a group's users: users × models."""
        columns = {}
        for model, values in self.values[scope, k].items():
            columns[model] = values.loc[values.index.isin(self.groups[users]), "precision"]
        return pd.DataFrame(columns)


def judge_folds(dataset: str) -> list[Judged]:
    """Every fold of a data set that has runs, newest first; the newest must have some."""
    newest, *earlier = folds.load_folds(dataset)
    return [judge_fold(fold) for fold in [newest, *filter(_has_runs, earlier)]]


def judge_fold(fold: Fold) -> Judged:
    """A fold with its runs, others' lists, and the prefiltered catalogue if notebook 02 wrote one.

    Raises LabError if nobody bought both before and in the test window.
    """
    runs, metas = load_runs(fold)
    others, about = load_outside(fold)
    if others:
        runs = runs | others
        about = about.dropna(axis="columns", how="all")  # they have no seconds
        metas = pd.concat([metas, about]).rename_axis("model")
    path = fold.folder() / "catalogue.parquet"
    catalogue = None
    if path.exists():
        catalogue = pd.Index(pd.read_parquet(path)["item_id"].astype(str))
    judged = Judged(fold, runs, metas, catalogue)
    if judged.groups["warm"].empty:
        raise LabError(
            f"fold {fold.name} has no user with purchases both before and in the test window: "
            "nobody to judge models on"
        )
    return judged


def _has_runs(fold: Fold) -> bool:
    folder = fold.folder("runs")
    return any(read_json(path)["fold_hash"] == fold.hash for path in folder.glob("*.json"))
