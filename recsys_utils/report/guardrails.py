"""What a list must hold to be shipped: each limit of `[guardrails]`, and what was found."""

from dataclasses import dataclass

from recsys_utils.evaluation.worth import K
from recsys_utils.report.compared import Compared
from recsys_utils.report.wording import num, percent, seconds, signed

TOP = 20  # products whose share of all places is watched


@dataclass(frozen=True)
class Check:
    """One guardrail: what is looked at, what was found, what is allowed, and whether it holds."""

    name: str
    found: str
    limit: str
    passed: bool


def checks(compared: Compared) -> list[Check]:
    """Every guardrail; those against today's list only where it is another one."""
    limits = compared.spec.guardrails
    row = compared.ranking.loc[compared.model]
    shoppers = len(compared.judged.fold.testing.users)
    serving = 1000 * row["recommend_seconds"] / max(1, shoppers)
    shown = _numbers(compared, compared.model)
    result = _against_today(compared, shown) if compared.has_rival else []
    least = limits.least_coverage
    coverage = shown["coverage"]
    result.append(
        Check(
            "share of the catalogue shown",
            percent(coverage),
            f"at least {percent(least)}",
            bool(coverage >= least),
        )
    )
    top = _share_of_top(compared, compared.model)
    for name, value, limit, told in (
        (f"share of the {TOP} most shown products", top, limits.most_top20_share, percent),
        ("share of repeats", shown["repeat_share"], limits.most_repeats, percent),
        ("seconds to recommend to 1,000 shoppers", serving, limits.most_seconds, seconds),
        ("seconds to fit", row["fit_seconds"], limits.most_fit_seconds, seconds),
    ):
        allowed = percent(limit) if told is percent else num(limit)
        result.append(Check(name, told(value), f"at most {allowed}", bool(value <= limit)))
    return result


def _against_today(compared: Compared, shown: dict[str, float]) -> list[Check]:
    """Cold shoppers and prices, where there are some."""
    result = []
    cold = len(compared.judged.groups["cold"])
    if cold:
        lead = compared.precision_lead("cold")
        value = signed(100 * lead.value)
        low = signed(100 * lead.low)
        high = signed(100 * lead.high)
        result.append(
            Check(
                f"precision@5 of {cold:,} cold shoppers against today's list, points",
                f"{value} ({low} to {high})",
                "not below by more than chance",
                bool(lead.high >= 0),
            )
        )
    if "mean_price" in shown:
        today = _numbers(compared, compared.incumbent)["mean_price"]
        change = shown["mean_price"] / today - 1 if today else 0.0
        limit = compared.spec.guardrails.most_price_change
        result.append(
            Check(
                "mean price against today's list",
                f"{signed(100 * change)}\u00a0%",
                f"within ±{percent(limit)}",
                bool(abs(change) <= limit),
            )
        )
    return result


def _numbers(compared: Compared, model: str) -> dict[str, float]:
    """What the leaderboard says of a model's first five places for warm shoppers, by metric."""
    board = compared.judged.board
    rows = board[
        (board["model"] == model)
        & (board["fold"] == compared.judged.fold.name)
        & (board["scope"] == "any")
        & (board["users_scope"] == "warm")
        & (board["k"] == K)
    ]
    return rows.set_index("metric")["value"].to_dict()


def _share_of_top(compared: Compared, model: str) -> float:
    """Share of all places that the most shown products take."""
    recs = compared.judged.runs[model]
    shown = recs.loc[recs["rank"] <= K, "item_id"].value_counts()
    return float(shown.head(TOP).sum() / max(1, shown.sum()))
