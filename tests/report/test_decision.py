"""The first screen: which model, worth what against what, how sure, and what to do next."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from published import publish, write_toml

from recsys_utils import LabError
from recsys_utils.data import folds, registry
from recsys_utils.data.registry import Guardrails, Spec, Worth
from recsys_utils.evaluation.experiment import shoppers_needed
from recsys_utils.evaluation.slices import warm
from recsys_utils.evaluation.worth import lead, money_per_shopper, windows_a_year
from recsys_utils.models import OwnPurchases, Popular
from recsys_utils.report import next_test, verdict
from recsys_utils.report.choice import Choice
from recsys_utils.report.compared import Compared, todays_list
from recsys_utils.report.decision import decide
from recsys_utils.report.judged import Judged, judge_fold
from recsys_utils.report.next_test import longer_window
from recsys_utils.report.wording import display_name, num, signed


@pytest.fixture
def judged(shop: Path, home: Path) -> Judged:
    return judge_fold(folds.load_fold(str(home / "shop.toml")))


@pytest.fixture
def spec(shop: Path, home: Path) -> Spec:
    return registry.spec(str(home / "shop.toml"))


def chosen(judged: Judged, model: str, ties: list[str]) -> Judged:
    """The same fold as if validation had chosen otherwise."""
    judged.__dict__["choice"] = Choice(model, 0.5, 100, 3, ties)
    return judged


def test_the_headline_ships_one_or_either_or_keeps_what_is_shown(
    judged: Judged, spec: Spec
) -> None:
    costly = "item_cosine"
    others = ["own_decayed", "popular_28d"]
    fit_seconds = judged.board["model"].eq(costly) * 9.0
    judged.__dict__["board"] = judged.board.assign(fit_seconds=fit_seconds)
    assert decide(chosen(judged, costly, []), spec).headline == f"Ship {display_name(costly)}."
    either = decide(chosen(judged, costly, others), spec).headline
    assert either.startswith(f"Ship either {display_name(costly)} or ")
    # Less than five seconds are no reason.
    judged.__dict__["board"] = judged.board.assign(fit_seconds=fit_seconds / 3)
    alone = decide(chosen(judged, costly, others), spec).headline
    assert alone == f"Ship {display_name(costly)}."
    assert decide(chosen(judged, "popular_28d", []), spec).headline.startswith("Keep Popular")


def test_without_a_choice_nothing_is_shipped(judged: Judged, spec: Spec) -> None:
    judged.__dict__["choice"] = None
    decision = decide(judged, spec)
    assert decision.headline.startswith("Not yet: no model could be chosen")
    claims = (decision.worth, decision.sure, decision.checks, decision.changes, decision.next_step)
    assert not any(claims)
    assert decision.rows[0]["roles"].startswith("best in the test weeks")


def test_too_few_shoppers_are_told_how_long_a_window_would_do(
    judged: Judged, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    fold = judged.fold
    end = pd.Timestamp(fold.borders["end"])
    rows = pd.concat([fold.train, fold.valid, fold.test])

    def returned(weeks: int) -> int:
        cut = end - pd.Timedelta(weeks=weeks)
        late = rows["ts"] >= cut
        return len(set(rows["user_id"][late]) & set(rows["user_id"][~late]))

    now = len(judged.groups["warm"])
    wanted = returned(4) + 1
    weeks = longer_window(fold, 3, wanted)
    assert returned(weeks) >= wanted > returned(weeks - 1)
    assert longer_window(fold, 3, 10**6) is None
    for module in (next_test, verdict):
        monkeypatch.setattr(module, "LEAST_SHOPPERS", wanted)
    decision = decide(chosen(judged, "own_decayed", ["popular_28d"]), spec)
    assert decision.headline.startswith(f"Not yet: only {now:,} shoppers with an earlier purchase")
    assert "The weeks before the test favour Own purchases, decayed;" in decision.headline
    assert decision.next_step[0].startswith(f"Set test_weeks = {weeks} in the shop's TOML")
    roles = {row["roles"] for row in decision.rows}
    assert "ahead before the test" in roles
    assert not any("ties" in role or "choice" in role for role in roles)


def test_money_is_told_against_todays_list_with_its_interval(judged: Judged, spec: Spec) -> None:
    decision = decide(chosen(judged, "own_decayed", []), spec)
    assert decision.incumbent == "popular_28d"
    stage = judged.fold.testing
    money = [
        money_per_shopper(judged.runs[model], stage, cap=0.99)
        for model in ("own_decayed", "popular_28d")
    ]
    gain = lead(*money, Worth())
    predicted, caused, whose = decision.worth
    assert "“Popular, 28 days”" in predicted
    assert decision.unit == "per 1,000 shoppers and year"
    for sentence in (predicted, caused):
        assert re.search(r"€[\d,.]+ \(95 % interval −?€[\d,.]+ to −?€[\d,.]+\)", sentence)
    assert ("cannot be told from" in predicted) == gain.predicted.holds_zero
    assert ("cannot be told from nothing" in caused) == gain.caused.holds_zero
    assert "Assumed: an item that is shown is bought 16 to 21" in caused
    assert f"{gain.shoppers:,} who bought before" in whose
    counted = windows_a_year(stage, 21)
    assert 1 < counted < 17.3
    assert f"A year counts as {num(counted)} such windows, not as 17.4" in whose


def test_money_is_told_against_the_best_other_model_too(judged: Judged, spec: Spec) -> None:
    """Unless that is today's list, of which it is told already."""
    chosen(judged, "own_decayed", [])
    best_other, other = (model for model in judged.families if model != "own_decayed")
    told = f"Against the best other model of the test weeks, “{display_name(best_other)}”, the"
    for incumbent in (best_other, other):
        worth = decide(judged, spec_with(spec, incumbent=incumbent)).worth
        assert any(text.startswith(told) for text in worth) == (incumbent != best_other)


def test_a_list_that_earns_less_is_not_praised(judged: Judged, spec: Spec) -> None:
    """The choice and today's list change places: the lead changes its sign, and so do the words."""
    ahead = decide(chosen(judged, "popular_28d", []), spec_with(spec, incumbent="item_cosine"))
    behind = decide(chosen(judged, "item_cosine", []), spec)
    assert ("is behind" in behind.worth[0]) == ("predict" in ahead.worth[0])
    assert behind.sure[0][1] == mirrored(ahead.sure[0][1])


def mirrored(number: str) -> str:
    return number.translate(str.maketrans("+−", "−+"))


def spec_with(spec: Spec, **worth: object) -> Spec:
    return spec.model_copy(update={"worth": Worth(**worth)})


def test_how_sure_is_five_numbers_of_the_paired_lead(judged: Judged, spec: Spec) -> None:
    sure = decide(chosen(judged, "own_decayed", []), spec).sure
    precision = judged.precision()
    points = 100 * (precision["own_decayed"] - precision["popular_28d"]).mean()
    assert [label for label, _ in sure] == [
        "lead in precision@5, points",
        "lowest, 95 %",
        "highest, 95 %",
        "p, paired test",
        "shoppers",
    ]
    assert sure[0][1] == signed(points)
    assert sure[4][1] == f"{len(precision):,}"


def test_guardrails_pass_and_fail_by_their_limits(judged: Judged, spec: Spec) -> None:
    chosen(judged, "own_decayed", [])
    strict = Guardrails(
        least_coverage=1,
        most_top20_share=0.01,
        most_price_change=0.0001,
        most_repeats=0.01,
        most_seconds=0.0001,
        most_fit_seconds=0.0001,
    )
    loose = Guardrails(least_coverage=0, most_top20_share=1, most_price_change=99, most_repeats=1)
    risky = decide(judged, spec.model_copy(update={"guardrails": strict}))
    safe = decide(judged, spec.model_copy(update={"guardrails": loose}))
    failed, passed = risky.checks, safe.checks
    first = next(check for check in failed if not check.passed)
    assert f"fail: {first.name}, {first.found} ({first.limit});" in risky.caution
    assert not safe.caution
    assert len(failed) == len(passed) == 7
    assert "12 cold shoppers" in failed[0].name
    held = [check.name for check in failed[1:] if check.passed]
    assert held == ["share of the catalogue shown"], "all 60 items are shown to somebody"
    assert all(check.passed for check in passed)


def test_the_rows_that_matter_are_few_and_say_why(judged: Judged, spec: Spec) -> None:
    rows = decide(chosen(judged, "own_decayed", ["item_cosine"]), spec).rows
    assert rows[0]["roles"].startswith("the choice")
    assert rows[1]["roles"].startswith("today's list")
    assert rows[1]["money"] is None, "nothing leads over itself"
    assert len({row["name"] for row in rows}) == len(rows) <= 5


def test_the_next_step_is_a_test_with_a_size(judged: Judged, spec: Spec) -> None:
    spending, hits = decide(chosen(judged, "own_decayed", []), spec).next_step
    assert "active shoppers" in spending
    assert "how many of the new list's five items" in hits
    assert re.search(r"[\d,]+ buying shoppers in 3 weeks", hits)


def test_a_test_of_hits_counts_what_only_the_new_list_shows(judged: Judged, spec: Spec) -> None:
    """By hand: hits of the choice that are not among today's five; the spread is that of all."""
    chosen(judged, "own_decayed", [])
    for today in ("popular_28d", "item_cosine"):
        compared = Compared(judged, spec_with(spec, incumbent=today))
        alone = next_test.hits_of_one_list(compared, "own_decayed", today)
        stage = judged.fold.testing
        truth = warm(stage.truth, stage.history).astype({"user_id": str, "item_id": str})
        bought = {user: set(rows) for user, rows in truth.groupby("user_id")["item_id"]}
        shown = {}
        for model in ("own_decayed", today):
            lists = judged.runs[model].query("rank <= 5").astype({"user_id": str, "item_id": str})
            shown[model] = lists.groupby("user_id")["item_id"].agg(set)
        expected = {
            user: len((shown["own_decayed"][user] - shown[today][user]) & items)
            for user, items in bought.items()
        }
        assert alone.to_dict() == pytest.approx(expected)
        hits = 5 * judged.precision()["own_decayed"]
        assert 0 < alone.mean() < hits.mean()
        needed = shoppers_needed(hits.std(), 0.16 * alone.mean())
        assert f"{needed:,.0f} buying shoppers" in next_test.next_tests(compared)[-1]


def test_lists_that_hold_the_same_hits_cannot_be_tested_by_hits(judged: Judged, spec: Spec) -> None:
    compared = Compared(chosen(judged, "own_decayed", []), spec)
    compared.judged.runs["popular_28d"] = compared.judged.runs["own_decayed"]
    assert "Every item that was bought stands in both lists" in next_test.next_tests(compared)[-1]


def test_nothing_assumed_is_no_effect_to_plan_with(judged: Judged, spec: Spec) -> None:
    compared = Compared(
        chosen(judged, "own_decayed", []), spec_with(spec, uplift_repeats=(0.0, 0.2))
    )
    assert "assumed to be nothing" in next_test.next_tests(compared)[-1]


def test_the_margin_does_not_shrink_what_a_test_of_spending_sees(
    judged: Judged, spec: Spec
) -> None:
    """The test counts turnover; the margin is what the shop keeps of it."""
    told = []
    for margin in (1, 0.25):
        compared = Compared(chosen(judged, "own_decayed", []), spec_with(spec, margin=margin))
        told.append(next_test.next_tests(compared)[0])
    assert told[0] == told[1]


def test_an_incumbent_that_was_not_run_is_named(judged: Judged, spec: Spec) -> None:
    with pytest.raises(LabError, match=r"incumbent = 'nobody'.*item_cosine, own_decayed"):
        todays_list(judged.board, "nobody")


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("[worth]\nmargin = 1.5", "worth.margin"),
        ("[worth]\nuplift_first = [0.4, 0.2]", "worth.uplift_first"),
        ("[worth]\nuplift_repeats = [5, 8]", "worth.uplift_repeats.*0.05 means 5 %"),
        ("[worth]\nuplift_first = [0.3, 2.1]", "worth.uplift_first.*0.05 means 5 %"),
        ("[worth]\nprofit = 1", "worth.profit"),
        ("[guardrails]\nleast_coverage = 2", "guardrails.least_coverage"),
    ],
)
def test_settings_of_money_and_guardrails_are_checked(
    line: str, named: str, shop: Path, home: Path
) -> None:
    toml = home / "checked.toml"
    toml.write_text((home / "shop.toml").read_text() + line)
    with pytest.raises(LabError, match=named):
        registry.spec(str(toml))


def test_uplifts_up_to_200_percent_are_taken(shop: Path, home: Path) -> None:
    toml = home / "checked.toml"
    toml.write_text((home / "shop.toml").read_text() + "[worth]\nuplift_first = [-1, 2]")
    assert registry.spec(str(toml)).worth.uplift_first == (-1, 2)


def test_receipts_without_prices_get_a_decision_without_money(plain: Path, home: Path) -> None:
    toml = str(home / "plain.toml")
    decision = decide(judge_fold(folds.load_fold(toml)), registry.spec(toml))
    assert not decision.has_prices
    assert decision.worth == ["Without prices its worth in money cannot be computed."]
    assert decision.unit == "per 1,000 baskets"


def test_the_page_opens_with_the_decision_and_folds_the_rest(shop: Path) -> None:
    text = shop.read_text()
    assert text.index('class="headline"') < text.index('id="matter"') < text.index("data-board=")
    assert "Guardrails" in text
    assert "Best of each family" in text
    frame = pd.read_csv(shop.with_name("leaderboard.csv"))
    assert frame["model"].nunique() == 3


def test_next_baskets_with_prices_are_told_per_basket(home: Path) -> None:
    rng = np.random.default_rng(3)
    day = pd.to_timedelta(rng.integers(0, 90, 1500), "D")
    frame = pd.DataFrame(
        {
            "who": rng.integers(0, 60, 1500),
            "what": rng.integers(0, 30, 1500),
            "when": pd.Timestamp("2024-01-01") + day,
            "price": rng.uniform(1, 9, 1500).round(2),
        }
    )
    columns = 'ts = "when"\nprice = "price"'
    toml = str(write_toml(home, "baskets", frame, 'protocol = "next_basket"', columns))
    models = {"popular_28d": Popular(28), "own_decayed": OwnPurchases(90)}
    page = publish(Path(toml), models).read_text()
    decision = decide(judge_fold(folds.load_fold(toml)), registry.spec(toml))
    assert decision.unit == "per 1,000 baskets"
    assert not any("A year is" in text for text in decision.worth)
    assert all("spending" not in text for text in decision.next_step)
    assert "per 1,000 baskets" in page
