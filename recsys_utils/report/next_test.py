"""The test to run next: whether the shop has the shoppers to see what a list causes."""

import pandas as pd

from recsys_utils.data.folds import Fold
from recsys_utils.evaluation.experiment import shoppers_needed, smallest_lead, spending_tests
from recsys_utils.evaluation.metrics import per_user
from recsys_utils.evaluation.slices import warm
from recsys_utils.evaluation.worth import K
from recsys_utils.report.compared import Compared
from recsys_utils.report.verdict import LEAST_SHOPPERS
from recsys_utils.report.wording import num, percent

WEEK = 7  # days


def before_a_test(compared: Compared) -> list[str]:
    """What to change where too few shoppers were judged for a choice."""
    fold = compared.judged.fold
    if len(compared.judged.groups["warm"]) >= LEAST_SHOPPERS or not compared.days:
        return []
    weeks = longer_window(fold, compared.days / WEEK, LEAST_SHOPPERS)
    if weeks is None:
        return [
            f"No window of up to half of the receipts has {LEAST_SHOPPERS} shoppers who bought"
            " before it: gather receipts for longer, of more shoppers, and run again."
        ]
    return [
        f"Set test_weeks = {weeks} in the shop's TOML and run again: as many weeks have at least"
        f" {LEAST_SHOPPERS} shoppers who bought before them."
    ]


def longer_window(fold: Fold, weeks: float, least: int) -> int | None:
    """The fewest whole weeks above `weeks`, at the end of the receipts, that have `least` shoppers.

    Only shoppers who bought before them count. None where not even half of the receipts have so
    many.
    """
    receipts = _receipts(fold, ["user_id", "ts"])
    end = pd.Timestamp(fold.borders["end"])
    span = (end - receipts["ts"].min()).days / WEEK
    of_shopper = receipts.groupby("user_id", observed=True)["ts"]
    first, last = of_shopper.min(), of_shopper.max()
    for longer in range(int(weeks) + 1, int(span / 2) + 1):
        cut = end - pd.Timedelta(weeks=longer)
        if ((first < cut) & (last >= cut)).sum() >= least:
            return longer
    return None


def next_tests(compared: Compared) -> list[str]:
    """A test of spending where there are dates and prices, and one of the list's own items."""
    sentences = []
    if compared.has_prices and compared.days:
        sentences.append(_of_spending(compared))
    return [*sentences, _of_hits(compared)]


def _of_spending(compared: Compared) -> str:
    """Whether a test of spending can see what the list may cause; spending is cut, as in worth."""
    receipts = _receipts(compared.judged.fold, ["user_id", "ts", "quantity", "price"])
    tests = spending_tests(receipts, cap=compared.spec.worth.cap)
    if tests.empty:
        return "The receipts are too short to plan a test of spending."
    gain = compared.lead_of(compared.model, compared.incumbent)
    # Of those who take part, only who buys in the window can be moved by it. The test counts
    # turnover, of which the shop keeps its margin.
    turnover = gain.caused.value / compared.spec.worth.margin
    caused_in_a_week = turnover * gain.shoppers / compared.days * WEEK
    tests["effect"] = caused_in_a_week * tests["weeks"] / tests["shoppers"]
    tests["share"] = tests["effect"] / tests["capped_mean"]
    tests["needed"] = [shoppers_needed(test.cuped, test.effect) for test in tests.itertuples()]
    enough = tests[(tests["needed"] <= tests["shoppers"]) & (tests["effect"] > 0)]
    if len(enough):
        test = enough.iloc[0]
        return (
            f"Test it: show half of your {test['shoppers']:,.0f} active shoppers this list and"
            f" half today's, for {num(test['weeks'])} weeks. That is enough to see the lead in"
            f" spending that the list may cause, {percent(test['share'])} (80 % power;"
            f" {test['needed']:,.0f} shoppers are needed)."
        )
    test = tests.iloc[-1]
    smallest = smallest_lead(test["cuped"], test["shoppers"]) / test["capped_mean"]
    return (
        f"Your shop cannot confirm this by a test of spending: with all {test['shoppers']:,.0f}"
        f" active shoppers the smallest lead that {num(test['weeks'])} weeks can show is"
        f" {percent(smallest)}, but the list may cause only {percent(max(0.0, test['share']))}."
    )


def _of_hits(compared: Compared) -> str:
    """The test of how many of the new list's items are bought, by both arms, shown or not.

    Only what today's list does not show as well can be bought more often in one arm than in the
    other.
    """
    every = K * compared.judged.precision()[compared.model]
    only_new = hits_of_one_list(compared, compared.model, compared.incumbent)
    if not every.sum():
        return "No shopper bought any of the five items, so there is nothing to test yet."
    if not only_new.sum():
        return "Every item that was bought stands in both lists: no test of hits tells them apart."
    lift = compared.spec.worth.uplift_repeats[0] * compared.spec.worth.seen
    if lift <= 0:
        return (
            "The least that a list causes is assumed to be nothing ([worth] uplift_repeats): no"
            " test of hits can be planned from it."
        )
    needed = shoppers_needed(every.std(), lift * only_new.mean())
    weeks = f"{num(compared.days / WEEK)} weeks" if compared.days else "one basket each"
    return (
        "Test hits too: in both groups count how many of the new list's five items a shopper buys,"
        f" seen or not. Without the list it is {num(every.mean())}, of which"
        f" {num(only_new.mean())} are items that today's list does not show. {needed:,.0f} buying"
        f" shoppers in {weeks} are enough to see a lead of {percent(lift)} in these."
    )


def hits_of_one_list(compared: Compared, model: str, other: str) -> pd.Series:
    """(warm shoppers,) hits among the first five items of a model that another one does not show
    the shopper in its own first five.
    """
    runs = compared.judged.runs
    shown = [runs[name][runs[name]["rank"] <= K] for name in (model, other)]
    mine, theirs = (lists.astype({"user_id": str, "item_id": str}) for lists in shown)
    both = mine.merge(theirs[["user_id", "item_id"]], how="left", indicator=True)
    stage = compared.judged.fold.testing
    alone = mine[(both["_merge"] == "left_only").to_numpy()]
    return K * per_user(alone, warm(stage.truth, stage.history), K)["precision"]


def _receipts(fold: Fold, columns: list[str]) -> pd.DataFrame:
    return pd.concat([part[columns] for part in (fold.train, fold.valid, fold.test)])
