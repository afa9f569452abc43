"""Which model to ship, chosen before the test window is looked at."""

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from recsys_utils.data.folds import Stage
from recsys_utils.evaluation.metrics import per_user
from recsys_utils.evaluation.significance import paired_tests
from recsys_utils.evaluation.slices import bought_before, restrict, warm

K = 5
ALPHA = 0.05


@dataclass
class Choice:
    """The model with the highest precision@5 on the validation window, and what ties with it.

    value: that precision. users: warm shoppers of the validation window. models: how many were
    compared. ties: models that a paired test cannot tell from it there, Holm-corrected, best first.
    """

    model: str
    value: float
    users: int
    models: int
    ties: list[str]


def choose(values: pd.DataFrame) -> Choice | None:
    """The choice from precision@5 on validation: warm shoppers × models; None without any.

    Equal means go to the model that comes first by name.

    >>> values = pd.DataFrame({"own": [0.2, 0.4], "popular": [0.0, 0.2]})
    >>> choose(values).model
    'own'
    """
    if values.empty:
        return None
    means = values.mean().sort_index().sort_values(ascending=False, kind="stable")
    best = means.index[0]
    ties = []
    if len(means) > 1:
        tests = paired_tests(values[means.index])
        against = tests[(tests["model_a"] == best) | (tests["model_b"] == best)]
        tied = against[against["p_holm"] >= ALPHA]
        names = set(tied["model_a"]) | set(tied["model_b"])
        ties = [model for model in means.index if model in names - {best}]
    return Choice(best, float(means.iloc[0]), len(values), len(means), ties)


def validation_values(
    lists: dict[str, pd.DataFrame], stage: Stage, k: int = K, scope: str = "any"
) -> pd.DataFrame:
    """Precision at k of each model's validation lists: warm shoppers × models.

    scope: "any" purchase, or only what is "new" to the shopper, in lists and in what was bought.
    """
    truth = warm(stage.truth, stage.history)
    if scope == "new":
        truth = truth[~bought_before(truth, stage.history)]
    if not len(truth):
        return pd.DataFrame()
    columns = {}
    for model, recs in lists.items():
        columns[model] = per_user(restrict(recs, scope, stage.history), truth, k)["precision"]
    return pd.DataFrame(columns)


def regret(choices: Iterable[tuple[str, pd.Series]]) -> tuple[int, int, float]:
    """How often a choice was the test window's best, of how many, and what it cost on average.

    choices: for each window the chosen model, and every model's precision@5 on the test.

    >>> regret([("a", pd.Series({"a": 0.5, "b": 0.4})), ("a", pd.Series({"a": 0.3, "b": 0.4}))])
    (1, 2, 0.05)
    """
    lost = [float(values.max() - values[model]) for model, values in choices]
    right = sum(loss == 0 for loss in lost)
    return right, len(lost), round(sum(lost) / len(lost), 6)
