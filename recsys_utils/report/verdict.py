"""The page's first words: which model to ship, what it is worth, where it is weak."""

import pandas as pd

from recsys_utils.evaluation.leaderboard import best_first
from recsys_utils.evaluation.significance import paired_tests
from recsys_utils.report.wording import display_name, num, percent, seconds

# Below so many judged shoppers a list's precision says next to nothing.
LEAST_SHOPPERS = 30


def ship(
    board: pd.DataFrame,
    precision: pd.DataFrame | None = None,
    currency: str = "",
    validated: bool = True,
) -> str:
    """Which model to ship, what it is worth and where it is weak, in one paragraph.

    board: a leaderboard. precision: warm users × models at k = 5, for the test of the lead.
    validated: whether there were purchases to choose parameters on.
    """
    return " ".join(verdict(board, precision, currency, validated))


def verdict(
    board: pd.DataFrame,
    precision: pd.DataFrame | None = None,
    currency: str = "",
    validated: bool = True,
) -> list[str]:
    """The three statements of `ship`, one by one."""
    first = _lacking(board, validated) or _which(board, precision)
    return [first, _worth(board, currency), _weakness(board)]


def _lacking(board: pd.DataFrame, validated: bool) -> str:
    """Why nothing can be recommended yet; "" if it can."""
    best = best_first(board).iloc[0]
    gaps = []
    if best["users"] < LEAST_SHOPPERS:
        shoppers = "shopper" if best["users"] == 1 else "shoppers"
        gaps.append(
            f"only {best['users']:,} {shoppers} with an earlier purchase bought in the test window,"
            f" and at least {LEAST_SHOPPERS} are needed (longer windows have more: test_weeks)"
        )
    if not validated:
        gaps.append(
            "the validation window has no purchases, so parameters could not be chosen (check the"
            " dates, or change valid_weeks)"
        )
    if not gaps:
        return ""
    return (
        f"Not yet: {'; '.join(gaps)}. The best so far is {display_name(best['model'])},"
        f" {percent(best['value'])} of whose five suggestions were bought"
        f" (95 % interval {num(100 * best['lo'])} to {percent(best['hi'])})."
    )


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
