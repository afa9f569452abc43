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
from recsys_utils.evaluation.significance import bootstrap
from recsys_utils.evaluation.slices import warm
from recsys_utils.evaluation.worth import SHOPPERS, money_per_shopper
from recsys_utils.models import Recommender
from recsys_utils.models.base import recorded_model
from recsys_utils.report.choice import choose, validation_values
from recsys_utils.report.wording import display_name

DAYS_OF_WEEK = 7


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


def by_age(
    models: dict[str, Recommender],
    fold: Fold,
    ages: Iterable[float],
    assumed: Worth | None = None,
    k: int = 5,
) -> pd.DataFrame:
    """Precision of models that were fitted so many days before the test window, and not since.

    Args:
        models: by name.
        fold: the warm shoppers of its test window judge every age.
        ages: in days; 0 is added, the others are compared with it. Those of which less than half
            of the shop's history would be left are not judged.
        assumed: whose cap money is counted with; without prices there is no money.

    Returns model, days, precision, change (of precision against age 0) with its 95 % interval low
    and high, and where there are prices lost: predicted money per 1,000 shoppers and week, with
    lost_low and lost_high. Intervals are of paired differences over shoppers.
    """
    stage = fold.testing
    truth = warm(stage.truth, stage.history)
    cap = (assumed or Worth()).cap
    kept = [age for age in sorted({0, *ages}) if _is_known(fold, age)]
    rows = []
    for name, model in models.items():
        values, money = {}, {}
        for age in tqdm(kept, desc=name, leave=False, disable=None):
            older = fold.frozen(age)
            model.fit(older.history)
            recs = model.recommend(stage.users, k, older.exclude, profiles=older.profiles)
            values[age] = per_user(recs, truth, k)["precision"].to_numpy()
            if "price" in truth:
                table = money_per_shopper(recs, stage, k, cap)
                money[age] = (table["repeats"] + table["first"]).to_numpy()
        rows += _changes(name, values, money, _weeks(fold))
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


def _changes(
    model: str, values: dict[float, np.ndarray], money: dict[float, np.ndarray], weeks: float
) -> list[dict]:
    """A row for each age, compared with age 0."""
    rows = []
    for age, precision in values.items():
        columns = [precision - values[0]]
        if money:
            columns.append(SHOPPERS / weeks * (money[0] - money[age]))
        mean, low, high = bootstrap(np.stack(columns, axis=1), np.random.default_rng(0))
        row = {"model": model, "days": age, "precision": precision.mean()}
        row |= {"change": mean[0], "low": low[0], "high": high[0]}
        if money:
            row |= {"lost": mean[1], "lost_low": low[1], "lost_high": high[1]}
        rows.append(row)
    return rows


def _is_known(fold: Fold, age: float) -> bool:
    """Whether a model of this age has half of the history's days to learn from."""
    cut = pd.Timestamp(fold.borders["test"])
    return age == 0 or age <= (cut - fold.train["ts"].min()).days / 2


def _weeks(fold: Fold) -> float:
    """Length of the test window."""
    borders = fold.borders
    days = (pd.Timestamp(borders["end"]) - pd.Timestamp(borders["test"])).days
    return days / DAYS_OF_WEEK
