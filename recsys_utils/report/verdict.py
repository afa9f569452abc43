"""The page's first words: which model to ship, what it is worth, where it is weak."""

import pandas as pd

from recsys_utils.evaluation.leaderboard import best_first
from recsys_utils.evaluation.significance import paired_tests
from recsys_utils.report.wording import display_name, num, percent, seconds


def ship(board: pd.DataFrame, precision: pd.DataFrame | None = None, currency: str = "") -> str:
    """Which model to ship, what it is worth and where it is weak, in one paragraph.

    board: a leaderboard. precision: warm users × models at k = 5, for the test of the lead.
    """
    return " ".join(verdict(board, precision, currency))


def verdict(
    board: pd.DataFrame, precision: pd.DataFrame | None = None, currency: str = ""
) -> list[str]:
    """The three statements of `ship`, one by one."""
    return [_which(board, precision), _worth(board, currency), _weakness(board)]


def best_of_family(board: pd.DataFrame, family: str, name: str = "") -> str | None:
    """The best model of a family, if possible one whose name matches a pattern."""
    rows = best_first(board)
    models = rows.loc[rows["family"] == family, "model"]
    matching = models[models.str.contains(name)]
    return next(iter([*matching, *models]), None)


def total_seconds(row: pd.Series) -> str:
    """Seconds to fit and recommend, with their unit."""
    return f"{seconds(row['fit_seconds'] + row['recommend_seconds'])}\u00a0s"


def _which(board: pd.DataFrame, precision: pd.DataFrame | None) -> str:
    rows = best_first(board)
    best = rows.iloc[0]
    text = (
        f"Ship {display_name(best['model'])}. Of its five suggestions per shopper, "
        f"{percent(best['value'])} were bought in the test window "
        f"(95 % interval {num(100 * best['lo'])} to {percent(best['hi'])})."
    )
    if len(rows) == 1:
        return f"{text} There is no other model to compare it with."
    if precision is None:
        return text
    p = _p_against(precision, best["model"])
    second = rows.iloc[1]
    rival = f"the runner-up, “{display_name(second['model'])}” ({percent(second['value'])})"
    if p[second["model"]] < 0.001:
        return f"{text} Its lead over {rival}, is far more than chance explains."
    if p[second["model"]] < 0.05:
        return f"{text} Its lead over {rival}, is more than chance explains."
    not_beaten = [p.get(model, 1) >= 0.05 for model in rows["model"]]
    return f"{text} Its lead over {rival}, may be chance. {_cheapest(rows[not_beaten])}"


def _p_against(precision: pd.DataFrame, best: str) -> dict[str, float]:
    """Holm-corrected p of the best model against every other."""
    p = {}
    for test in paired_tests(precision).itertuples():
        if test.model_a == best:
            p[test.model_b] = test.p_holm
        elif test.model_b == best:
            p[test.model_a] = test.p_holm
    return p


def _cheapest(ties: pd.DataFrame) -> str:
    """Which of the models that tie costs least; the first row is the best."""
    cost = ties["fit_seconds"] + ties["recommend_seconds"]
    if cost.iloc[0] - cost.min() < 0.1:
        return "No model that ties with it is noticeably cheaper."
    cheapest = ties.loc[cost.idxmin()]
    which = "two" if len(ties) == 2 else f"{len(ties)} models that tie"
    costs = f"{total_seconds(cheapest)} against {total_seconds(ties.iloc[0])}"
    return f"Of the {which}, “{display_name(cheapest['model'])}” is the cheapest ({costs})."


def _worth(board: pd.DataFrame, currency: str) -> str:
    best = best_first(board)["model"].iloc[0]
    share = _by_model(board, metric="revenue_share")
    if share.empty:
        hit_rate = percent(_by_model(board, metric="hit_rate")[best])
        return (
            "Without prices its worth in money cannot be computed. "
            f"{hit_rate} of shoppers bought at least one of its five suggestions."
        )
    rivals = [best_of_family(board, "popularity", r"_\d+d"), best_of_family(board, "repeat")]
    against = " and ".join(
        f"{percent(share[model])} by “{display_name(model)}”"
        for model in rivals
        if model not in (None, best)
    )
    money = 1000 * _by_model(board, metric="revenue")[best]
    return (
        f"Its five suggestions predict {percent(share[best])} of what a shopper spends "
        f"in the window on average{f' (against {against})' if against else ''}. "
        f"That is {currency}{num(money)} per 1,000 shoppers; "
        "some of it they would spend anyway."
    )


def _weakness(board: pd.DataFrame) -> str:
    winner = best_first(board).iloc[0]
    new = _by_model(board, scope="new")
    text = "Nobody bought anything new in the window."
    if len(new):
        on_new, leader = new[winner["model"]], new.index[0]
        how = "weaker" if on_new < winner["value"] else "as good"
        text = (
            f"It is {how} on items new to the shopper: "
            f"there {percent(on_new)} of its five suggestions were bought"
        )
        if leader != winner["model"]:
            text += f" (best: “{display_name(leader)}”, {percent(new[leader])})"
        text += "."
    cold = best_first(board, users="cold").set_index("model")
    if cold.empty:
        return f"{text} The window had no cold shoppers (without an earlier purchase)."
    row = cold.loc[winner["model"]]
    return (
        f"{text} For the {row['users']:,} cold shoppers (without an earlier purchase) "
        f"it is {percent(row['value'])}."
    )


def _by_model(board: pd.DataFrame, **number: str) -> pd.Series:
    """One number of the leaderboard by model, best first."""
    return best_first(board, **number).set_index("model")["value"]
