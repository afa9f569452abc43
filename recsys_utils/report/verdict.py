"""Why a model is shipped: how it was chosen, what the test window says, where it is weak."""

import pandas as pd

from recsys_utils.data.outside import FAMILY
from recsys_utils.evaluation.leaderboard import best_first
from recsys_utils.evaluation.significance import paired_tests
from recsys_utils.report.choice import Choice, regret
from recsys_utils.report.wording import display_name, num, percent, seconds

# Below so many judged shoppers a list's precision says next to nothing.
LEAST_SHOPPERS = 30
NAMED = 4  # models that tie with the choice and are named


def reasons(
    board: pd.DataFrame, precision: pd.DataFrame | None = None, choice: Choice | None = None
) -> list[str]:
    """Why this model: how it was chosen, what the test window says of it, and where it is weak.

    board: a leaderboard. precision: warm users × models at k = 5, for the test of the lead.
    choice: what the validation window says.
    """
    model = shipped(board, choice)
    first = []
    if not lacking(board, model, choice):
        first = [_which(board, precision, choice), _ties(board, choice)]
    return [*first, _share(board, model), _weakness(board, model)]


def shipped(board: pd.DataFrame, choice: Choice | None) -> str:
    """The model that is chosen; without a choice the best of the test window, of our own."""
    if choice:
        return choice.model
    rows = best_first(board)
    return rows.loc[rows["family"] != FAMILY, "model"].iloc[0]


def windows_before(boards: list[pd.DataFrame], choices: list[Choice | None]) -> str:
    """How often the same rule chose right on the earlier windows, in a sentence; "" without any."""
    pairs = [
        (choice.model, best_first(board).set_index("model")["value"])
        for board, choice in zip(boards, choices)
        if choice
    ]
    if not pairs:
        return ""
    right, windows, cost = regret(pairs)
    return (
        f"On {windows} earlier window{'s' if windows > 1 else ''} the same rule chose the best"
        f" model of the test {right} time{'s' if right != 1 else ''}; its choice was on average"
        f" {num(100 * cost)} points of precision@5 below the best."
    )


def best_of_family(board: pd.DataFrame, family: str, name: str = "") -> str | None:
    """The best model of a family, if possible one whose name matches a pattern."""
    rows = best_first(board)
    models = rows.loc[rows["family"] == family, "model"]
    matching = models[models.str.contains(name)]
    return next(iter([*matching, *models]), None)


def total_seconds(row: pd.Series) -> str:
    """Seconds to fit and recommend, with their unit; – where nobody measured them."""
    total = row["fit_seconds"] + row["recommend_seconds"]
    return "–" if pd.isna(total) else f"{seconds(total)}\u00a0s"


def lacking(board: pd.DataFrame, model: str, choice: Choice | None) -> str:
    """Why nothing can be recommended yet, in a sentence; "" if something can."""
    row = _row(board, model)
    gaps = []
    if row["users"] < LEAST_SHOPPERS:
        shoppers = "shopper" if row["users"] == 1 else "shoppers"
        gaps.append(
            f"only {row['users']:,} {shoppers} with an earlier purchase bought in the test window,"
            f" and at least {LEAST_SHOPPERS} are needed"
        )
    if choice is None:
        gaps.append(
            "no model could be chosen before the test window was seen, for want of purchases or of"
            " lists in the validation window (check dates and valid_weeks, and run all notebooks)"
        )
    if not gaps:
        return ""
    name = display_name(model)
    favoured = f"The weeks before the test favour {name}" if choice else f"Best there is {name}"
    return (
        f"Not yet: {'; '.join(gaps)}. {favoured}; in the test window {percent(row['value'])} of"
        f" its five suggestions were bought (95 % interval {num(100 * row['lo'])} to"
        f" {percent(row['hi'])})."
    )


def _which(board: pd.DataFrame, precision: pd.DataFrame | None, choice: Choice) -> str:
    """What was chosen, what the untouched test window says of it, and what ties with it."""
    rows = best_first(board)
    row = _row(board, choice.model)
    rank = rows.index[rows["model"] == choice.model][0] + 1
    text = (
        "It was chosen on the weeks before the test, where"
        f" {percent(choice.value)} of its five suggestions per shopper were bought, the most of"
        f" {choice.models} models. In the test window, which played no part in the choice,"
        f" {percent(row['value'])} were bought (95 % interval {num(100 * row['lo'])} to"
        f" {percent(row['hi'])}): rank {rank} of {len(rows)}."
    )
    if len(rows) == 1:
        return f"{text} There is no other model to compare it with."
    if precision is not None:
        text += f" {_against_rival(rows, choice.model, precision)}"
    return text


def _against_rival(rows: pd.DataFrame, model: str, precision: pd.DataFrame) -> str:
    """The test window's word on the choice and the best other model there."""
    rival = rows[rows["model"] != model].iloc[0]
    other = f"“{display_name(rival['model'])}” ({percent(rival['value'])})"
    lead = rows.set_index("model").loc[model, "value"] - rival["value"]
    place = "next" if rows["model"].iloc[0] == model else "best other"
    if _p_against(precision, model)[rival["model"]] >= 0.05:
        return f"The {place} there, {other}, cannot be told from it."
    if lead > 0:
        return f"The next there, {other}, is behind it by more than chance explains."
    ahead = f"There {other} is ahead of it by more than chance explains"
    if rival["family"] == FAMILY:
        return (
            f"{ahead}: ask first whether these lists were made without the test window's receipts."
        )
    return f"{ahead}: look at both."


def _ties(board: pd.DataFrame, choice: Choice) -> str:
    """The models that tie with the choice on validation, and the cheapest of all of them."""
    rows = best_first(board).set_index("model", drop=False)
    tied = [model for model in choice.ties if model in rows.index]
    if not tied:
        return "No other model ties with it on the weeks before the test."
    names = ", ".join(f"“{display_name(model)}”" for model in tied[:NAMED])
    more = f" and {len(tied) - NAMED} more" if len(tied) > NAMED else ""
    cheapest = _cheapest(rows.loc[[choice.model, *tied]])
    return f"On the weeks before the test it ties with {names}{more}. {cheapest}"


def _row(board: pd.DataFrame, model: str) -> pd.Series:
    """Precision@5 of a model for warm shoppers on any purchase."""
    rows = best_first(board)
    return rows[rows["model"] == model].iloc[0]


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


def _share(board: pd.DataFrame, model: str) -> str:
    """Which share of spending its list predicts; without prices how many shoppers it hits."""
    rows = best_first(board, "revenue_share").set_index("model")
    if rows.empty:
        row = best_first(board, "hit_rate").set_index("model").loc[model]
        return f"{_with_interval(row)} of shoppers bought at least one of its five suggestions."
    rivals = [best_of_family(board, "popularity", r"_\d+d"), best_of_family(board, "repeat")]
    against = " and ".join(
        f"{percent(rows['value'][rival])} by “{display_name(rival)}”"
        for rival in rivals
        if rival not in (None, model)
    )
    return (
        f"Its five suggestions predict {_with_interval(rows.loc[model])} of what a shopper spends"
        f" in the window on average{f', against {against}' if against else ''}."
        f"{_earns_less(rows, model)}"
    )


def _earns_less(rows: pd.DataFrame, model: str) -> str:
    """Whether another model predicts more of the spending; "" where none does."""
    best = rows.index[0]
    if rows["value"][best] <= rows["value"][model]:
        return ""
    return f" “{display_name(best)}” predicts the most, {percent(rows['value'][best])}."


def _with_interval(row: pd.Series) -> str:
    """A share with its 95 % interval."""
    ends = f"{num(100 * row['lo'])} to {percent(row['hi'])}"
    return f"{percent(row['value'])} (95 % interval {ends})"


def _weakness(board: pd.DataFrame, model: str) -> str:
    winner = _row(board, model)
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
