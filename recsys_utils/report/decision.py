"""The page's first screen: which model to ship, worth what, how sure, and what to do next."""

from dataclasses import dataclass, field

import pandas as pd

from recsys_utils.data.registry import Spec, Worth
from recsys_utils.evaluation.leaderboard import best_first
from recsys_utils.evaluation.significance import paired_tests
from recsys_utils.evaluation.worth import DAYS_OF_YEAR, K, Lead, money_per_shopper
from recsys_utils.report.choice import Choice, choose, validation_values
from recsys_utils.report.compared import Compared
from recsys_utils.report.guardrails import Check, checks
from recsys_utils.report.judged import Judged
from recsys_utils.report.next_test import before_a_test, next_tests
from recsys_utils.report.verdict import total_seconds
from recsys_utils.report.wording import display_name, num, percent, signed

NEW_ITEMS = "only items that are new to the shopper are shown"  # an aim
# A model that ties is worth naming where it costs so many times less, and spares so many seconds.
CHEAPER = 2
SPARED = 5


@dataclass
class Decision:
    """What the first screen shows, in words.

    headline: ship it, ship either, keep today's, or not yet. model, incumbent: the runs that are
    compared; incumbent is None where there is nothing to compare with. rows: the few models that
    matter. The rest is empty where nothing can be recommended yet: worth: sentences about money.
    sure: numbers with their names. checks: the guardrails. changes: what would change the choice.
    next_step: the tests to run.
    """

    headline: str
    model: str
    incumbent: str | None
    unit: str
    has_prices: bool
    rows: list[dict]
    worth: list[str] = field(default_factory=list)
    sure: list[tuple[str, str]] = field(default_factory=list)
    caution: str = ""
    checks: list[Check] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    next_step: list[str] = field(default_factory=list)


def decide(judged: Judged, spec: Spec) -> Decision:
    """The first screen of a judged fold.

    Raises LabError where `[worth] incumbent` of the TOML names no model that was run.
    """
    compared = Compared(judged, spec)
    values = _values_by_aim(compared)
    result = Decision(
        headline=_headline(compared),
        model=compared.model,
        incumbent=compared.incumbent,
        unit=compared.unit,
        has_prices=compared.has_prices,
        rows=_rows(compared, choose(values[NEW_ITEMS])),
    )
    if compared.gaps:
        result.next_step = before_a_test(compared)
        return result
    result.worth = _worth(compared)
    result.sure = _sure(compared)
    result.checks = checks(compared)
    result.caution = _caution(result.checks)
    result.changes = _changes(compared, values)
    if compared.has_rival:
        result.next_step = next_tests(compared)
    return result


def _caution(found: list[Check]) -> str:
    """The guardrails that fail, in a sentence; "" where all hold."""
    failed = [f"{check.name}, {check.found} ({check.limit})" for check in found if not check.passed]
    if not failed:
        return ""
    if len(failed) == 1:
        return f"A guardrail fails: {failed[0]}. Look at it first ([guardrails] has the limits)."
    return (
        f"{len(failed)} guardrails fail: {'; '.join(failed)}. Look at them first ([guardrails] has"
        " the limits)."
    )


def _headline(compared: Compared) -> str:
    if compared.gaps:
        return compared.gaps
    name = display_name(compared.model)
    if compared.incumbent == compared.model:
        return (
            f"Keep {name}: it is what you show today, and no model was better on the weeks before"
            " the test."
        )
    if cheap := _cheapest_tie(compared):
        rows = compared.ranking
        return (
            f"Ship either {name} or {display_name(cheap)}: the weeks before the test cannot tell"
            f" them apart. The second takes {total_seconds(rows.loc[cheap])} to fit and recommend,"
            f" the first {total_seconds(rows.loc[compared.model])}."
        )
    return f"Ship {name}."


def _cheapest_tie(compared: Compared) -> str | None:
    """Of the models that tie with the choice the cheapest, if it is clearly cheaper."""
    choice = compared.judged.choice
    cost = compared.ranking["fit_seconds"] + compared.ranking["recommend_seconds"]
    tied = [model for model in (choice.ties if choice else []) if model in cost.index]
    if not tied:
        return None
    cheapest = cost[tied].idxmin()
    ours = cost[compared.model]
    is_clear = CHEAPER * cost[cheapest] < ours and ours - cost[cheapest] > SPARED
    return cheapest if is_clear else None


def _worth(compared: Compared) -> list[str]:
    """What the choice is worth over today's list, predicted and caused."""
    if not compared.has_prices:
        return ["Without prices its worth in money cannot be computed."]
    if not compared.has_rival:
        gain = compared.lead_of(compared.model, None)
        return [_caused(compared, gain, "over showing nothing"), _shoppers(compared, gain)]
    gain = compared.lead_of(compared.model, compared.incumbent)
    sentences = [_predicted(compared, gain), _caused(compared, gain, "over today's list")]
    runner_up = _runner_up(compared)
    if runner_up not in (None, compared.incumbent):
        rival = compared.lead_of(compared.model, runner_up).predicted
        sentences.append(
            f"Against the best other model of the test weeks, “{display_name(runner_up)}”, the"
            f" difference is {compared.amount(rival)} {compared.unit}"
            f"{', which may be chance' if rival.holds_zero else ''}."
        )
    return [*sentences, _shoppers(compared, gain)]


def _predicted(compared: Compared, gain: Lead) -> str:
    amount = compared.amount(gain.predicted)
    unit = compared.unit
    today = f"today's list, “{display_name(compared.incumbent)}”"
    if gain.predicted.holds_zero:
        text = f"In money it cannot be told from {today}: the difference is {amount} {unit}."
    elif gain.predicted.value < 0:
        text = f"In money it is behind {today}: the difference is {amount} {unit}."
    else:
        text = f"Over {today}, its five suggestions predict {amount} more {unit}."
    return f"{text} Shoppers made these purchases without seeing a list."


def _caused(compared: Compared, gain: Lead, over: str) -> str:
    amount = f"{compared.amount(gain.caused)} {compared.unit}"
    if gain.caused.holds_zero:
        text = f"What showing the list may add {over} cannot be told from nothing: {amount}."
    elif gain.caused.value < 0:
        text = f"Showing the list may add less than today's: {amount}."
    else:
        text = f"What showing the list may add {over}: {amount}."
    return f"{text} {assumptions(compared.spec.worth)}"


def _shoppers(compared: Compared, gain: Lead) -> str:
    """Who is meant, and how a window becomes a year."""
    text = f"Shoppers: the {gain.shoppers:,} who bought before and in the test window."
    if compared.days:
        text += (
            f" A year counts as {num(compared.windows)} such windows, not as"
            f" {num(DAYS_OF_YEAR / compared.days)}: in so many of them these shoppers bought in the"
            " year before. The season of the test window is not corrected."
        )
    if gain.capped:
        quantile = percent(compared.spec.worth.cap)
        text += (
            f" The {gain.capped} who spent most are counted with the {quantile} quantile of"
            " spending."
        )
    return text


def _sure(compared: Compared) -> list[tuple[str, str]]:
    """The lead in precision over today's list: value, both ends, p, shoppers."""
    precision = compared.judged.precision()
    shoppers = ("shoppers", f"{len(precision):,}")
    if not compared.has_rival:
        row = compared.ranking.loc[compared.model]
        return [
            ("precision@5", percent(row["value"])),
            ("lowest, 95 %", percent(row["lo"])),
            ("highest, 95 %", percent(row["hi"])),
            shoppers,
        ]
    lead = compared.precision_lead()
    p = paired_tests(precision[[compared.model, compared.incumbent]])["p"].item()
    return [
        ("lead in precision@5, points", signed(100 * lead.value)),
        ("lowest, 95 %", signed(100 * lead.low)),
        ("highest, 95 %", signed(100 * lead.high)),
        ("p, paired test", num(p)),
        shoppers,
    ]


def _values_by_aim(compared: Compared) -> dict[str, pd.DataFrame]:
    """What other aims would choose by: warm shoppers of the validation window × models."""
    judged = compared.judged
    stage = judged.fold.tuning
    lists = judged.lists_before
    values = {
        NEW_ITEMS: validation_values(lists, stage, scope="new"),
        "ten places are shown": validation_values(lists, stage, k=10),
    }
    if compared.has_prices:
        spending = {}
        for model, recs in lists.items():
            table = money_per_shopper(recs, stage, K, compared.spec.worth.cap)
            spending[model] = table["repeats"] + table["first"]
        values["money counts in place of hits"] = pd.DataFrame(spending)
    return values


def _changes(compared: Compared, values: dict[str, pd.DataFrame]) -> list[str]:
    """Which other model the validation window would choose for other aims."""
    sentences = []
    for aim, of_aim in values.items():
        other = choose(of_aim)
        if other and other.model != compared.model:
            sentences.append(_other_choice(aim, other, compared.model))
    return sentences or [
        f"None of these: {'; '.join(values)}. For each of them the weeks before the test choose the"
        " same model."
    ]


def _other_choice(aim: str, other: Choice, model: str) -> str:
    name = f"“{display_name(other.model)}”"
    if model in other.ties:
        return f"If {aim}: {name} was ahead on the weeks before the test, within chance."
    return f"If {aim}: {name}, ahead on the weeks before the test by more than chance."


def _runner_up(compared: Compared) -> str | None:
    """The best model of the test weeks that is not the choice."""
    return next((model for model in compared.ranking.index if model != compared.model), None)


def _first_role(compared: Compared) -> str:
    if not compared.gaps:
        return "the choice"
    return "ahead before the test" if compared.judged.choice else "best in the test weeks"


def _rows(compared: Compared, best_new: Choice | None) -> list[dict]:
    """The choice, the runner-up, today's list, the cheapest tie and the best for new items."""
    ranking = compared.ranking
    tie = new_items = None  # claims, which are made only where something can be recommended
    if not compared.gaps:
        tie = _cheapest_tie(compared)
        new_items = best_new.model if best_new else None
    roles: dict[str, list[str]] = {}
    for role, model in (
        (_first_role(compared), compared.model),
        ("today's list", compared.incumbent),
        ("cheapest that ties", tie),
        ("best other in the test weeks", _runner_up(compared)),
        ("choice for new items", new_items),
    ):
        if model in ranking.index:
            roles.setdefault(model, []).append(role)
    new = best_first(compared.judged.board, scope="new").set_index("model")["value"]
    result = []
    for model, roles_of in roles.items():
        row = ranking.loc[model]
        money = None
        if compared.has_prices and compared.incumbent not in (None, model):
            gain = compared.lead_of(model, compared.incumbent)
            money = compared.amount(gain.predicted, label="")
        result.append(
            {
                "name": display_name(model),
                "family": row["family"],
                "roles": ", ".join(roles_of),
                "precision": row["value"],
                "low": row["lo"],
                "high": row["hi"],
                "new": new.get(model),
                "money": money,
                "seconds": total_seconds(row),
            }
        )
    return result


def assumptions(assumed: Worth) -> str:
    """The shop's assumptions about what a list causes, in sentences."""
    repeats = _range(assumed.uplift_repeats)
    first = _range(assumed.uplift_first)
    reach = "every shopper sees it" if assumed.seen == 1 else f"{percent(assumed.seen)} see it"
    kept = "amounts are turnover, not margin"
    if assumed.margin != 1:
        kept = f"amounts are margin, {percent(assumed.margin)} of turnover"
    return (
        f"Assumed: an item that is shown is bought {repeats} more often where the shopper knows it"
        f" and {first} where it is new to them (from {assumed.uplift_source}); {reach}; {kept}."
    )


def _range(ends: tuple[float, float]) -> str:
    """Two shares in percent, whole ones without decimals: 100 · 0.58 is 57.99… in binary."""
    low = num(round(100 * ends[0], 6))
    high = num(round(100 * ends[1], 6))
    return f"{low} to {high}\u00a0%"
