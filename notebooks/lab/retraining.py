"""What a model loses by its age: fitted some days before the test window, and not since."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from tqdm import tqdm

from recsys_utils import LabError
from recsys_utils.data.folds import Fold
from recsys_utils.data.registry import Worth
from recsys_utils.data.runs import load_metas, load_validation
from recsys_utils.evaluation.metrics import per_user
from recsys_utils.evaluation.significance import intervals
from recsys_utils.evaluation.slices import warm
from recsys_utils.evaluation.worth import SHOPPERS, money_per_shopper
from recsys_utils.models import Recommender
from recsys_utils.models.base import recorded_model
from recsys_utils.report.choice import choose, validation_values
from recsys_utils.report.wording import display_name

DAYS_OF_WEEK = 7
Lists = dict[tuple[str, float], pd.DataFrame]  # by model and age


def choice_and(fold: Fold, rivals: Iterable[str]) -> dict[str, Recommender]:
    """The model that validation chooses among those that can be fitted again, and some rivals.

    Each has the parameters that it was recorded with, except that one draw stands for several.
    Raises LabError where no recorded model can be fitted again.
    """
    metas = load_metas(fold)
    metas = metas[metas["made_by"] != ""]
    lists = {name: recs for name, recs in load_validation(fold).items() if name in metas.index}
    choice = choose(validation_values(lists, fold.tuning))
    names = dict.fromkeys([*([choice.model] if choice else []), *rivals])
    models = {}
    for name in names:
        if name in metas.index:
            params = metas.loc[name, "params"]
            if "draws" in params:
                params = params | {"draws": 1}
            models[name] = recorded_model(metas.loc[name, "made_by"], params, f"the run of {name}")
    if not models:
        raise LabError(f"fold {fold.name} has no recorded model that can be fitted again")
    return models


def lists_by_age(
    models: dict[str, Recommender], fold: Fold, ages: Iterable[float], k: int = 5
) -> Lists:
    """Lists for the test window of models that were fitted so many days before it, and not since.

    models: by name. ages: in days; 0 is added. Those of which less than half of the shop's history
    would be left are left out. Returns lists by model and age.
    """
    stage = fold.testing
    kept = [age for age in sorted({0, *ages}) if _is_known(fold, age)]
    lists = {}
    for name, model in models.items():
        for age in tqdm(kept, desc=name, leave=False, disable=None):
            older = fold.frozen(age)
            model.fit(older.history)
            recs = model.recommend(stage.users, k, older.exclude, profiles=older.profiles)
            lists[name, age] = recs
    return lists


def by_age(lists: Lists, fold: Fold, assumed: Worth | None = None, k: int = 5) -> pd.DataFrame:
    """Precision of each model by its age, over the warm shoppers of the test window.

    lists: what `lists_by_age` gave. assumed: whose cap money is counted with; without prices there
    is no money. Returns model, days, precision, change (of precision against age 0) with its 95 %
    interval low and high, and where there are prices lost: predicted money per 1,000 shoppers and
    week, with lost_low and lost_high. Intervals are of paired differences over shoppers.
    """
    stage = fold.testing
    truth = warm(stage.truth, stage.history)
    cap = (assumed or Worth()).cap
    values = {at: per_user(recs, truth, k)["precision"].to_numpy() for at, recs in lists.items()}
    money = {}
    if "price" in truth:
        for at, recs in lists.items():
            table = money_per_shopper(recs, stage, k, cap)
            money[at] = (table["repeats"] + table["first"]).to_numpy()
    rows = []
    for model, age in lists:
        columns = [values[model, age] - values[model, 0]]
        if money:
            columns.append(SHOPPERS / _weeks(fold) * (money[model, 0] - money[model, age]))
        change, *lost = intervals(np.stack(columns, axis=1))
        row = {"model": model, "days": age, "precision": values[model, age].mean()}
        row |= {"change": change.value, "low": change.low, "high": change.high}
        for each in lost:
            row |= {"lost": each.value, "lost_low": each.low, "lost_high": each.high}
        rows.append(row)
    return pd.DataFrame(rows)


def old_against_fresh(lists: Lists, fold: Fold, old: str, fresh: str, k: int = 5) -> pd.DataFrame:
    """Precision of a model of each age minus that of another one that is fresh, paired.

    Returns days, change, low, high, over the warm shoppers of the test window.
    """
    truth = warm(fold.testing.truth, fold.testing.history)
    rival = per_user(lists[fresh, 0], truth, k)["precision"].to_numpy()
    rows = []
    for model, age in lists:
        if model == old:
            mine = per_user(lists[model, age], truth, k)["precision"].to_numpy()
            lead = intervals((mine - rival)[:, None])[0]
            rows.append({"days": age, "change": lead.value, "low": lead.low, "high": lead.high})
    return pd.DataFrame(rows)


def still_fresh(table: pd.DataFrame, model: str) -> float:
    """The greatest age, in days, before a model's precision falls by more than chance."""
    rows = table[table["model"] == model].sort_values("days")
    is_worse = (rows["high"] < 0).to_numpy()
    first_worse = is_worse.argmax() if is_worse.any() else len(rows)
    return float(rows["days"].iloc[first_worse - 1])


def advice(table: pd.DataFrame, model: str) -> str:
    """How long a model may be old, in a sentence, from what `by_age` gave."""
    rows = table[table["model"] == model].sort_values("days")
    fresh = still_fresh(table, model)
    later = rows[rows["days"] > fresh]
    name = display_name(model)
    if later.empty:
        return f"{name} loses nothing beyond chance in {fresh:g} days."
    first = later.iloc[0]
    lost = f"{-first['change']:.3f} of precision@5 (interval {-first['high']:.3f} to"
    return f"{name} that is {first['days']:g} days old has lost {lost} {-first['low']:.3f})."


def _is_known(fold: Fold, age: float) -> bool:
    """Whether a model of this age has half of the history's days to learn from."""
    cut = pd.Timestamp(fold.borders["test"])
    return age == 0 or age <= (cut - fold.train["ts"].min()).days / 2


def _weeks(fold: Fold) -> float:
    """Length of the test window."""
    borders = fold.borders
    days = (pd.Timestamp(borders["end"]) - pd.Timestamp(borders["test"])).days
    return days / DAYS_OF_WEEK
