"""The page's first screen: which model to ship, worth what, how sure, and what to do next."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from recsys_utils import LabError
from recsys_utils.data.registry import Spec, Worth
from recsys_utils.data.runs import load_validation
from recsys_utils.evaluation.experiment import shoppers_needed, smallest_lead, spending_tests
from recsys_utils.evaluation.leaderboard import best_first
from recsys_utils.evaluation.metrics import per_user
from recsys_utils.evaluation.significance import bootstrap, paired_tests
from recsys_utils.evaluation.slices import bought_before, restrict, warm
from recsys_utils.evaluation.worth import (
    DAYS_OF_YEAR,
    Interval,
    K,
    Lead,
    lead,
    money_per_shopper,
    per_year,
)
from recsys_utils.report.choice import Choice, choose
from recsys_utils.report.judged import Judged
from recsys_utils.report.verdict import (
    best_of_family,
    lacking,
    shipped,
    total_seconds,
)
from recsys_utils.report.wording import display_name, money, num, percent, seconds

TOP = 20  # products whose share of all places is watched
CHEAPER = 2  # a model that ties is worth naming where it costs so many times less


@dataclass(frozen=True)
class Check:
    """One guardrail: what is looked at, what was found, what is allowed, and whether it holds."""

    name: str
    found: str
    limit: str
    passed: bool


@dataclass
class Decision:
    """What the first screen shows, in words.

    headline: ship it, ship either, or not yet. worth: sentences about money. sure: five numbers
    with their names. checks: the guardrails. changes: what would change the choice. rows: the few
    models that matter. model, incumbent: the runs that are compared; incumbent is None where there
    is nothing to compare with.
    """

    headline: str
    model: str
    incumbent: str | None
    worth: list[str] = field(default_factory=list)
    sure: list[tuple[str, str]] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    rows: list[dict] = field(default_factory=list)
    next_step: list[str] = field(default_factory=list)
    priced: bool = True
    unit: str = ""


def decide(judged: Judged, spec: Spec) -> Decision:
    """The first screen of a judged fold.

    Raises LabError where `[worth] incumbent` of the TOML names no model that was run.
    """
    return _Maker(judged, spec).decision()


def todays_list(board: pd.DataFrame, named: str = "") -> str | None:
    """The run that stands for what the shop shows today: the one that is named, or the bestsellers
    of the last weeks; None where neither was run.
    """
    models = list(best_first(board)["model"])
    if named and named not in models:
        raise LabError(
            f"[worth] incumbent = '{named}' is no model of this run: it takes one of"
            f" {', '.join(sorted(models))}"
        )
    return named or best_of_family(board, "popularity", r"_\d+d")


class _Maker:
    """Makes a decision: what several of its parts need is computed once."""

    def __init__(self, judged: Judged, spec: Spec) -> None:
        self.judged = judged
        self.spec = spec
        self.board = judged.board
        self.model = shipped(judged.board, judged.choice)
        self.incumbent = todays_list(judged.board, spec.worth.incumbent)
        self.stage = judged.fold.testing
        self.priced = "price" in judged.fold.test

    def decision(self) -> Decision:
        """All parts."""
        return Decision(
            headline=self.headline(),
            model=self.model,
            incumbent=self.incumbent,
            worth=self.worth(),
            sure=self.sure(),
            checks=self.checks(),
            changes=self.changes(),
            rows=self.rows(),
            next_step=self.next_step(),
            priced=self.priced,
            unit=self.unit,
        )

    def headline(self) -> str:
        """Ship it, ship either, or not yet and why."""
        choice = self.judged.choice
        if gaps := lacking(self.board, self.model, choice):
            return gaps
        name = display_name(self.model)
        if self.incumbent == self.model:
            return f"Keep {name}: it is what you show today, and no model was better."
        if cheap := self.cheapest_tie:
            rows = best_first(self.board).set_index("model", drop=False)
            return (
                f"Ship either {name} or {display_name(cheap)}: the weeks before the test cannot"
                f" tell them apart, and the second costs {total_seconds(rows.loc[cheap])} against"
                f" {total_seconds(rows.loc[self.model])}."
            )
        return f"Ship {name}."

    @cached_property
    def cheapest_tie(self) -> str | None:
        """Of the models that tie with the choice the cheapest, if it is clearly cheaper."""
        choice = self.judged.choice
        rows = best_first(self.board).set_index("model")
        cost = rows["fit_seconds"] + rows["recommend_seconds"]
        tied = [model for model in (choice.ties if choice else []) if model in cost.index]
        if not tied:
            return None
        cheapest = cost[tied].idxmin()
        return cheapest if CHEAPER * cost[cheapest] < cost[self.model] else None

    def worth(self) -> list[str]:
        """What the choice is worth over today's list, predicted and caused."""
        if not self.priced:
            return ["Without prices its worth in money cannot be computed."]
        if self.incumbent in (None, self.model):
            gain = self.lead_of(self.model, None)
            return [self._caused(gain, "over showing nothing")]
        gain = self.lead_of(self.model, self.incumbent)
        return [self._predicted(gain), self._caused(gain, "over today's list"), self._whose(gain)]

    def _predicted(self, gain: Lead) -> str:
        amount = self.amount(gain.predicted)
        today = f"today's list, “{display_name(self.incumbent)}”"
        text = f"Over {today}, its five suggestions predict {amount} more {self.unit}."
        if gain.predicted.holds_zero:
            text = (
                f"In money it cannot be told from {today}: the difference is {amount} {self.unit}."
            )
        if gain.predicted.high < 0:
            text = f"In money it is behind {today}: the difference is {amount} {self.unit}."
        return f"{text} Shoppers made these purchases without seeing a list."

    def _whose(self, gain: Lead) -> str:
        """Who is meant, and how a window becomes a year."""
        who = f"Shoppers: the {gain.shoppers:,} who bought before and in the test window."
        if self.days:
            who += f" A year is {num(DAYS_OF_YEAR / self.days)} such windows."
        if gain.capped:
            who += f" The spending of {gain.capped} of them was cut to the level of the next."
        return who

    def _caused(self, gain: Lead, over: str) -> str:
        assumed = self.spec.worth
        amount = self.amount(gain.caused)
        lead_in = f"What the list may cause {over}: {amount} {self.unit}"
        if gain.caused.high < 0:
            lead_in = f"The list may cause less than today's: {amount} {self.unit}"
        if gain.caused.holds_zero:
            lead_in += " (the interval holds zero, so nothing is claimed)"
        return f"{lead_in}. {assumptions(assumed)}"

    def sure(self) -> list[tuple[str, str]]:
        """The lead in precision over today's list: value, both ends, p, shoppers."""
        precision = self.judged.precision()
        if self.incumbent in (None, self.model):
            row = best_first(self.board).set_index("model").loc[self.model]
            return [
                ("precision@5", percent(row["value"])),
                ("lowest, 95 %", percent(row["lo"])),
                ("highest, 95 %", percent(row["hi"])),
                ("shoppers", f"{len(precision):,}"),
            ]
        pair = precision[[self.model, self.incumbent]]
        difference = (pair[self.model] - pair[self.incumbent]).to_numpy()
        value, low, high = bootstrap(difference, np.random.default_rng(0))
        p = paired_tests(pair)["p"].item()
        return [
            ("lead in precision@5, points", signed(100 * float(value))),
            ("lowest, 95 %", signed(100 * float(low))),
            ("highest, 95 %", signed(100 * float(high))),
            ("p, paired test", num(p)),
            ("shoppers", f"{len(pair):,}"),
        ]

    def checks(self) -> list[Check]:
        """The guardrails of the TOML, each with what was found."""
        limits = self.spec.guardrails
        found = self.list_numbers(self.model)
        row = best_first(self.board).set_index("model").loc[self.model]
        per_shoppers = 1000 * row["recommend_seconds"] / max(1, len(self.stage.users))
        checks = [
            _at_least("share of the catalogue shown", found["coverage"], limits.least_coverage),
            _at_most(
                f"share of the {TOP} most shown products", found["top"], limits.most_top20_share
            ),
            _at_most("share of repeats", found["repeat_share"], limits.most_repeats),
            Check(
                "seconds to recommend to 1,000 shoppers",
                seconds(per_shoppers),
                f"at most {num(limits.most_seconds)}",
                bool(per_shoppers <= limits.most_seconds),
            ),
            Check(
                "seconds to fit",
                seconds(row["fit_seconds"]),
                f"at most {num(limits.most_fit_seconds)}",
                bool(row["fit_seconds"] <= limits.most_fit_seconds),
            ),
        ]
        if self.incumbent in (None, self.model):
            return checks
        if "mean_price" in found:
            today = self.list_numbers(self.incumbent)["mean_price"]
            change = found["mean_price"] / today - 1 if today else 0.0
            limit = limits.most_price_change
            checks.insert(
                2,
                Check(
                    "mean price against today's list",
                    signed(100 * change) + "\u00a0%",
                    f"within ±{percent(limit)}",
                    bool(abs(change) <= limit),
                ),
            )
        return [*self.cold_check(), *checks]

    def cold_check(self) -> list[Check]:
        """Whether cold shoppers are served no worse than today; nothing without such shoppers."""
        if self.judged.groups["cold"].empty:
            return []
        cold = self.judged.precision(users="cold")
        difference = (cold[self.model] - cold[self.incumbent]).to_numpy()
        value, low, high = bootstrap(difference, np.random.default_rng(0))
        return [
            Check(
                f"precision@5 of {len(cold):,} cold shoppers against today's list, points",
                f"{signed(100 * float(value))} ({signed(100 * float(low))} to"
                f" {signed(100 * float(high))})",
                "not below by more than chance",
                bool(high >= 0),
            )
        ]

    def list_numbers(self, model: str) -> pd.Series:
        """Coverage, share of repeats, mean price and share of the most shown products, at 5."""
        board = self.board
        rows = board[
            (board["model"] == model)
            & (board["fold"] == self.judged.fold.name)
            & (board["scope"] == "any")
            & (board["users_scope"] == "warm")
            & (board["k"] == K)
        ]
        numbers = rows.set_index("metric")["value"].to_dict()
        recs = self.judged.runs[model]
        shown = recs.loc[recs["rank"] <= K, "item_id"].value_counts()
        numbers["top"] = shown.head(TOP).sum() / max(1, shown.sum())
        return pd.Series(numbers)

    def changes(self) -> list[str]:
        """Which other model the validation window would choose for other aims."""
        if self.judged.choice is None:
            return []
        aims = {
            "only items that are new to the shopper are shown": self.new_items,
            "ten places are shown": self.values_by(lambda recs, truth: _precision(recs, truth, 10)),
        }
        if self.priced:
            aims["money counts in place of hits"] = self.money_before
        sentences = []
        for aim, values in aims.items():
            if (other := choose(values)) and other.model != self.model:
                sentences.append(self._other_choice(aim, other))
        return sentences or [
            f"None of these: {'; '.join(aims)}. For each of them the weeks before the test choose"
            " the same model."
        ]

    def _other_choice(self, aim: str, other: Choice) -> str:
        name = f"“{display_name(other.model)}”"
        if self.model in other.ties:
            return f"If {aim}: {name} was ahead on the weeks before the test, within chance."
        return f"If {aim}: {name}, ahead on the weeks before the test by more than chance."

    @cached_property
    def lists_before(self) -> dict[str, pd.DataFrame]:
        """Every model's lists for the validation window."""
        return load_validation(self.judged.fold)

    def values_by(self, value: Callable, scope: str = "any") -> pd.DataFrame:
        """A number of each model's validation lists: warm shoppers × models."""
        stage = self.judged.fold.tuning
        truth = warm(stage.truth, stage.history)
        if scope == "new":
            truth = truth[~bought_before(truth, stage.history)]
        if truth.empty:
            return pd.DataFrame()
        columns = {}
        for model, recs in self.lists_before.items():
            columns[model] = value(restrict(recs, scope, stage.history), truth)
        return pd.DataFrame(columns)

    @cached_property
    def new_items(self) -> pd.DataFrame:
        """Precision@5 on new items in the validation window: shoppers × models."""
        return self.values_by(lambda recs, truth: _precision(recs, truth, K), "new")

    @cached_property
    def money_before(self) -> pd.DataFrame:
        """Money of the validation window on the first five items: shoppers × models."""
        stage = self.judged.fold.tuning
        columns = {}
        for model, recs in self.lists_before.items():
            table = money_per_shopper(recs, stage, K, self.spec.worth.cap)
            columns[model] = table["repeats"] + table["first"]
        return pd.DataFrame(columns)

    def rows(self) -> list[dict]:
        """The choice, the runner-up, today's list, the cheapest tie and the best for new items."""
        ranking = best_first(self.board).set_index("model", drop=False)
        runner_up = next((m for m in ranking.index if m != self.model), None)
        best_new = choose(self.new_items)
        roles: dict[str, list[str]] = {}
        for role, model in (
            ("the choice", self.model),
            ("today's list", self.incumbent),
            ("cheapest that ties", self.cheapest_tie),
            ("best other in the test weeks", runner_up),
            ("choice for new items", best_new.model if best_new else None),
        ):
            if model in ranking.index:
                roles.setdefault(model, []).append(role)
        new = best_first(self.board, scope="new").set_index("model")["value"]
        result = []
        for model, named in roles.items():
            row = ranking.loc[model]
            over = None
            if self.priced and self.incumbent not in (None, model):
                over = self.amount(self.lead_of(model, self.incumbent).predicted, "")
            result.append(
                {
                    "name": display_name(model),
                    "family": row["family"],
                    "roles": ", ".join(named),
                    "precision": row["value"],
                    "low": row["lo"],
                    "high": row["hi"],
                    "new": new.get(model),
                    "money": over,
                    "seconds": total_seconds(row),
                }
            )
        return result

    def next_step(self) -> list[str]:
        """The test to run next, or what can be tested where spending varies too much."""
        if self.incumbent in (None, self.model) or lacking(
            self.board, self.model, self.judged.choice
        ):
            return []
        sentences = [self.spending_test()] if self.priced and self.days else []
        return [*sentences, self.hit_test()]

    def spending_test(self) -> str:
        """Whether a test of spending can see what the list may cause."""
        fold = self.judged.fold
        parts = [fold.train, fold.valid, fold.test]
        receipts = pd.concat([part[["user_id", "ts", "quantity", "price"]] for part in parts])
        tests = spending_tests(receipts, cap=self.spec.worth.cap)
        if tests.empty:
            return "The receipts are too short to plan a test of spending."
        gain = self.lead_of(self.model, self.incumbent)
        # Of those who take part, only who buys in the window can be moved by it.
        daily = gain.caused.value * gain.shoppers / self.days
        tests["effect"] = daily * 7 * tests["weeks"] / tests["shoppers"]
        tests["needed"] = [shoppers_needed(test.cuped, test.effect) for test in tests.itertuples()]
        enough = tests[(tests["needed"] <= tests["shoppers"]) & (tests["effect"] > 0)]
        if len(enough):
            test = enough.iloc[0]
            return (
                f"Test it: show half of your {test['shoppers']:,.0f} active shoppers this list and"
                f" half today's, for {num(test['weeks'])} weeks. That is enough to see the lead in"
                f" spending that the list may cause, {percent(test['effect'] / test['mean'])}"
                f" (80 % power; {test['needed']:,.0f} shoppers are needed)."
            )
        test = tests.iloc[-1]
        smallest = smallest_lead(test["cuped"], test["shoppers"]) / test["capped_mean"]
        return (
            f"Your shop cannot confirm this by a test of spending: with all {test['shoppers']:,.0f}"
            f" active shoppers the smallest lead that {num(test['weeks'])} weeks can show is"
            f" {percent(smallest)}, and the list may cause"
            f" {percent(max(0.0, test['effect'] / test['mean']))}."
        )

    def hit_test(self) -> str:
        """The test of what the list itself moves: who buys one of its items, and first purchases.

        Both arms are judged on the items of the new list, whether they saw it or not.
        """
        values = self.judged.values["any", K][self.model]
        hits = K * values.loc[values.index.isin(self.judged.groups["warm"]), "precision"]
        added = self.spec.worth.uplift_repeats[0] * self.spec.worth.seen
        needed = shoppers_needed(hits.std(), added * hits.mean())
        weeks = f"{num(self.days / 7)} weeks" if self.days else "one basket each"
        if not np.isfinite(needed):
            return "No shopper bought any of the five items, so there is nothing to test yet."
        return (
            "Test this too: how many of the five items that the new list holds for a shopper they"
            f" buy, whether they saw it or not. It is {num(hits.mean())} without the list, and"
            f" {needed:,.0f} buying shoppers in {weeks} show a lead of {percent(added)}."
        )

    def lead_of(self, model: str, other: str | None) -> Lead:
        """What a run's lists are worth over another one's."""
        return lead(self.money(model), self.money(other) if other else None, self.spec.worth)

    def money(self, model: str) -> pd.DataFrame:
        """Money of the test window on a run's lists, by shopper."""
        return money_per_shopper(self.judged.runs[model], self.stage, K, self.spec.worth.cap)

    @property
    def days(self) -> float | None:
        """Length of the test window; None where it is each shopper's last basket."""
        borders = self.judged.fold.borders
        if self.judged.fold.protocol == "next_basket":
            return None
        return (pd.Timestamp(borders["end"]) - pd.Timestamp(borders["test"])).days

    @property
    def unit(self) -> str:
        """What amounts are told for."""
        return "per 1,000 shoppers and year" if self.days else "per 1,000 baskets"

    def amount(self, interval: Interval, label: str = "95 % interval ") -> str:
        """An amount of money with the ends of its interval."""
        told = per_year(interval, self.days)
        currency = self.spec.currency
        ends = f"{money(told.low, currency)} to {money(told.high, currency)}"
        return f"{money(told.value, currency)} ({label}{ends})"


def assumptions(assumed: Worth) -> str:
    """The shop's assumptions about what a list causes, in sentences."""
    repeats = _range(assumed.uplift_repeats)
    first = _range(assumed.uplift_first)
    reach = "every shopper sees it" if assumed.seen == 1 else f"{percent(assumed.seen)} see it"
    kept = "turnover counts" if assumed.margin == 1 else f"the margin is {percent(assumed.margin)}"
    return (
        f"Assumed: an item that is shown is bought {repeats} more often where the shopper knows it"
        f" and {first} where it is new to them (from {assumed.uplift_source}); {reach}; {kept}."
    )


def signed(value: float) -> str:
    """A difference with its sign.

    >>> signed(3.21), signed(-0.5)
    ('+3.21', '−0.500')
    """
    if value == 0:
        return "0"
    sign = "−" if value < 0 else "+"
    return f"{sign}{num(abs(value))}"


def _range(ends: tuple[float, float]) -> str:
    low, high = (
        round(100 * end, 6) for end in ends
    )  # 0.58 is no whole number of percent in binary
    return f"{num(low)} to {num(high)}\u00a0%"


def _precision(recs: pd.DataFrame, truth: pd.DataFrame, k: int) -> pd.Series:
    return per_user(recs, truth, k)["precision"]


def _at_least(name: str, found: float, limit: float) -> Check:
    return Check(name, percent(found), f"at least {percent(limit)}", bool(found >= limit))


def _at_most(name: str, found: float, limit: float) -> Check:
    return Check(name, percent(found), f"at most {percent(limit)}", bool(found <= limit))
