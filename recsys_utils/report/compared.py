"""The choice beside the list that the shop shows today: what the first screen's parts share."""

from functools import cache, cached_property

import pandas as pd

from recsys_utils import LabError
from recsys_utils.data.registry import Spec
from recsys_utils.evaluation.leaderboard import best_first
from recsys_utils.evaluation.significance import Interval, intervals
from recsys_utils.evaluation.worth import (
    K,
    Lead,
    lead,
    money_per_shopper,
    per_year,
    windows_a_year,
)
from recsys_utils.report.judged import Judged
from recsys_utils.report.verdict import best_of_family, lacking, shipped
from recsys_utils.report.wording import money


def todays_list(board: pd.DataFrame, named: str = "") -> str | None:
    """The run that stands for what the shop shows today; None where it was not run.

    It is the one that is named, or the bestsellers of the last weeks.
    """
    models = list(best_first(board)["model"])
    if named and named not in models:
        raise LabError(
            f"[worth] incumbent = '{named}' is no model of this run: it takes one of"
            f" {', '.join(sorted(models))}"
        )
    return named or best_of_family(board, "popularity", r"_\d+d")


class Compared:
    """A judged fold, the model to ship, and the list of today; each number is computed once.

    model: the choice, or the best so far where none could be made. incumbent: today's list.
    gaps: why nothing can be recommended yet, "" if something can.
    """

    def __init__(self, judged: Judged, spec: Spec) -> None:
        self.judged = judged
        self.spec = spec
        self.model = shipped(judged.board, judged.choice)
        self.incumbent = todays_list(judged.board, spec.worth.incumbent)
        self.gaps = lacking(judged.board, self.model, judged.choice)
        self.has_prices = "price" in judged.fold.test
        self.money = cache(self._money)  # of a run, by shopper
        self.lead_of = cache(self._lead_of)  # of a run over another one, or over none

    @property
    def has_rival(self) -> bool:
        """Whether today's list is another one than the choice."""
        return self.incumbent not in (None, self.model)

    @cached_property
    def ranking(self) -> pd.DataFrame:
        """Precision@5 of warm shoppers by model, best first, with seconds."""
        return best_first(self.judged.board).set_index("model", drop=False)

    def precision_lead(self, users: str = "warm") -> Interval:
        """Precision@5 of the choice minus that of today's list, paired over a group of shoppers."""
        values = self.judged.precision(users=users)
        difference = values[self.model] - values[self.incumbent]
        return intervals(difference.to_numpy()[:, None])[0]

    @property
    def days(self) -> int | None:
        """Length of the test window; None where it is each shopper's last basket."""
        borders = self.judged.fold.borders
        if not borders:
            return None
        return (pd.Timestamp(borders["end"]) - pd.Timestamp(borders["test"])).days

    @cached_property
    def windows(self) -> float | None:
        """In how many windows of a year a shopper buys; None as `days`."""
        return windows_a_year(self.judged.fold.testing, self.days) if self.days else None

    @property
    def unit(self) -> str:
        """What amounts are told for."""
        return "per 1,000 shoppers and year" if self.days else "per 1,000 baskets"

    def amount(self, interval: Interval, label: str = "95 % interval ") -> str:
        """An amount of money for the unit, with the ends of its interval."""
        told = per_year(interval, self.windows)
        currency = self.spec.currency
        ends = f"{money(told.low, currency)} to {money(told.high, currency)}"
        return f"{money(told.value, currency)} ({label}{ends})"

    def _money(self, model: str) -> pd.DataFrame:
        judged = self.judged
        return money_per_shopper(judged.runs[model], judged.fold.testing, K, self.spec.worth.cap)

    def _lead_of(self, model: str, other: str | None) -> Lead:
        rival = self.money(other) if other else None
        return lead(self.money(model), rival, self.spec.worth)
