"""The report says what to ship from the runs' tables alone, in one page that needs nothing else."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from nbformat import v4
from published import EVIL, MODELS

from recsys_utils.data import folds, runs, tables
from recsys_utils.report import board_tables, figures, svg, wording
from recsys_utils.report.choice import Choice, choose
from recsys_utils.report.html import render, to_html
from recsys_utils.report.judged import judge_fold
from recsys_utils.report.page import page_context
from recsys_utils.report.verdict import _against_rival, lacking, reasons


def _board(page: Path) -> pd.DataFrame:
    return pd.read_csv(page.with_name("leaderboard.csv"))


def _tick_texts(ax: plt.Axes) -> list[str]:
    return [label.get_text() for label in ax.get_yticklabels()]


def _page(dataset: str, synthetic: bool = False) -> str:
    """The page's text, not written."""
    data = tables.load(dataset)
    data.spec.synthetic = synthetic
    judged = judge_fold(folds.load_fold(dataset))
    return render("report.html.j2", **page_context(data, [judged]), notebooks=[])


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("popular_28d", "Popular, 28 days"),
        ("item_bm25", "Item BM25"),
        ("als", "ALS"),
        ("own_decayed", "Own purchases, decayed"),
        ("two_tower_own", "Two tower with own purchases"),
        ("tifuknn", "TIFU-KNN"),
        ("hybrid_40_40_20", "Hybrid 40/40/20"),
        ("blend_rrf", "Blend RRF"),
        ("co_purchase", "Co-purchase"),
    ],
)
def test_names_are_readable(model: str, name: str) -> None:
    assert wording.display_name(model) == name


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.37951, "0.380"),
        (791044, "791,000"),
        (999.6, "1,000"),
        (0, "0"),
        (0.00158, "0.00158"),
        (0.0002, "< 0.001"),
        (float("nan"), "–"),
    ],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert wording.num(value) == text


def test_shares_seconds_and_money_are_readable() -> None:
    assert wording.percent(0.1234) == "12.3\u00a0%"
    assert wording.seconds(0.004) == "< 0.01"
    assert wording.money(-2.5, "€") == "−€2.50"


def test_bars_have_the_best_model_on_top(shop: Path) -> None:
    board = _board(shop)
    ax = figures.leaderboard_bars(board)
    newest = board[board["fold"] == board["fold"].iloc[0]]
    rows = newest.query("metric == 'precision' and k == 5 and scope == 'any'")
    rows = rows[rows["users_scope"] == "warm"]
    best = rows.loc[rows["value"].idxmax(), "model"]
    assert _tick_texts(ax)[-1] == wording.display_name(best)
    assert ax.get_xlabel() == "Precision@5, 95 % interval"


def test_figures_of_a_board_name_all_models(shop: Path) -> None:
    board = _board(shop)
    names = {wording.display_name(model) for model in MODELS}
    assert {text.get_text() for text in figures.tradeoff(board, "coverage").texts} >= names
    assert set(_tick_texts(figures.repeat_vs_new(board))) == names
    countries = _tick_texts(figures.by_group(board, "country: "))
    assert any(label.startswith("France (") for label in countries)
    strata = [label.split()[0] for label in _tick_texts(figures.by_popularity(board))]
    assert strata == [
        each for each in ("head", "middle", "tail") if each in figures.strata_of(board)
    ]
    plt.close("all")


def test_curve_and_heatmap() -> None:
    frame = pd.DataFrame(
        {
            "tau": [1, 2, 1, 2],
            "precision": [0.1, 0.2, 0.2, 0.3],
            "model": ["als", "als", "ease", "ease"],
        }
    )
    legend = figures.curve(frame, "tau", "precision", "model").get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["ALS", "EASE"]
    half = pd.DataFrame(0.5, ["als", "ease"], ["als", "ease"])
    assert [text.get_text() for text in figures.heatmap(half).texts] == ["50"]
    plt.close("all")


def test_svg_follows_the_page_and_is_reproducible(shop: Path) -> None:
    first = svg.svg("Bars <", figures.leaderboard_bars, _board(shop))
    assert svg.svg("Bars <", figures.leaderboard_bars, _board(shop)) == first
    assert 'aria-label="Bars &lt;"' in first
    assert "currentColor" in first
    assert svg.INK not in first
    assert svg.GRID not in first
    assert plt.rcParams["text.color"] != svg.INK


def test_a_leaderboard_marks_the_best_and_names_the_beaten(shop: Path, home: Path) -> None:
    judged = judge_fold(folds.load_fold(str(home / "shop.toml")))
    table = board_tables.board_table(judged, "any", 5)
    heads = [column["head"] for column in table["columns"]]
    assert heads[:4] == ["Precision@5", "Seed spread", "Precision@10", "Recall"]
    assert heads[-2:] == ["Fit,\u00a0s", "Recom\u00admend,\u00a0s"]
    precisions = [row["cells"][0] for row in table["rows"]]
    values = [value for value, _ in precisions]
    assert values == sorted(values, reverse=True)
    assert [is_best for _, is_best in precisions] == [True, False, False]
    assert [row["letter"] for row in table["rows"]] == ["a", "b", "c"]
    mean_price = heads.index("Mean price")
    assert not any(row["cells"][mean_price][1] for row in table["rows"])


def test_the_seed_spread_stands_next_to_precision_at_5_of_warm_shoppers(
    shop: Path, home: Path
) -> None:
    judged = judge_fold(folds.load_fold(str(home / "shop.toml")))
    judged.metas["seed_spread"] = [{"precision@5": 0.0123, "seeds": 3}, {}, {}]
    table = board_tables.board_table(judged, "any", 5)
    spreads = {row["name"]: row["cells"][1][0] for row in table["rows"]}
    measured = wording.display_name(judged.metas.index[0])
    assert spreads.pop(measured) == 0.0123
    assert np.isnan(list(spreads.values())).all()
    for scope, k, users in [("any", 10, "warm"), ("new", 5, "warm"), ("any", 5, "cold")]:
        columns = board_tables.board_table(judged, scope, k, users)["columns"]
        assert "Seed spread" not in [column["head"] for column in columns], (scope, k, users)


@pytest.mark.parametrize("name", ["shop", "plain"])
def test_pages_stand_alone(name: str, request: pytest.FixtureRequest) -> None:
    page = request.getfixturevalue(name)
    text = page.read_text()
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//|@import|url\(\s*["']?http""", text)
    assert page.stat().st_size < 800_000
    this_machine = str(page.parents[2])
    assert this_machine not in text
    assert this_machine not in page.with_name("leaderboard.csv").read_text()
    assert not re.search(r"\bnan\b", _visible(text), re.IGNORECASE)
    assert f'href="{name}/index.html"' in (page.parents[1] / "index.html").read_text()


def test_synthetic_data_is_badged(plain: Path, home: Path) -> None:
    badge = "synthetic data</span>"
    assert badge not in plain.read_text()
    assert badge in _page(str(home / "plain.toml"), synthetic=True)


def test_data_is_escaped(shop: Path) -> None:
    text = shop.read_text()
    assert "<script>alert" not in text
    assert "<title>A &amp; &lt;b&gt;</title>" in text
    script = r'<script type="application/json" id="shoppers">(.*?)</script>'
    embedded = json.loads(re.search(script, text, re.DOTALL)[1])
    assert any(EVIL in name for name, _ in embedded["items"])
    assert any(not shopper["baskets"] for shopper in embedded["shoppers"])
    assert embedded["currency"] == "€"


def test_the_reasons_say_how_it_was_chosen_and_where_it_is_weak(shop: Path, home: Path) -> None:
    judged = judge_fold(folds.load_fold(str(home / "shop.toml")))
    text = " ".join(reasons(judged.board, judged.precision(), judged.choice))
    assert text.startswith("It was chosen on")
    assert "In the test window, which played no part in the choice" in text
    assert "of what a shopper spends" in text
    assert "cold shoppers" in text
    assert "new to the shopper" in text


def test_the_page_has_all_scopes_groups_and_windows(shop: Path) -> None:
    text = shop.read_text()
    assert text.count("data-board=") == 8
    assert "12 cold shoppers" in text
    assert _board(shop)["fold"].nunique() == 2
    assert "Earlier windows" in text


def test_studies_come_in_the_page_s_order_and_are_escaped(shop: Path, home: Path) -> None:
    toml = str(home / "shop.toml")
    fold = folds.load_fold(toml)
    without = shop.read_text()
    for text in ('id="two-stage"', 'id="knobs"', "#knobs"):
        assert text not in without
    recall = pd.DataFrame({"generator": ["als", "all together"], "n": 10, "recall": [0.1, 0.2]})
    knobs = pd.DataFrame({"knob": "Upsell <b>", "value": ["off", "1"], "precision": [0.2, 0.1]})
    runs.save_study(recall, fold, "candidate_recall", EVIL)
    runs.save_study(knobs, fold, "knob_costs")
    ages = {"model": "als", "days": [0, 7], "precision": [0.2, 0.1], "change": [0, -0.1]}
    aged = pd.DataFrame(ages | {"low": [0, -0.2], "high": [0, -0.05]})
    runs.save_study(aged, fold, "retraining", "ALS loses nothing up to 0 days.")
    page = _page(toml)
    for path in (home / "data").glob("*/studies/*/*"):
        path.unlink()
    order = ("repeat", "popularity", "two-stage", "overlap", "knobs", "retraining", "explorer")
    places = [page.index(f'id="{section}"') for section in order]
    assert places == sorted(places)
    assert "Upsell &lt;b&gt;" in page
    assert "<script>alert" not in page
    assert 'href="#knobs"' in page
    assert "ALS loses nothing up to 0 days." in page


@pytest.mark.parametrize(
    "gap",
    [
        "receipts have no prices",
        "ids stand in",
        "there is only one",
        "keeps receipts only",
        "There is no other model",
        "Without prices",
    ],
)
def test_what_cannot_be_computed_is_said(gap: str, plain: Path) -> None:
    assert gap in plain.read_text()


@pytest.mark.parametrize("section", ["tradeoffs", "overlap"])
def test_one_model_alone_is_compared_with_none(section: str, plain: Path) -> None:
    assert f'id="{section}"' not in plain.read_text()


def test_notebook_page_folds_code_and_keeps_money(shop: Path, tmp_path: Path) -> None:
    text = "# My *notebook*\nIt costs $5 or $10; $s_{ui} < 1$ and `$x$`.\n\n$$\\frac{1}{2}$$\n"
    error = v4.new_output(
        "error", ename="ValueError", evalue="bad <b>", traceback=["ValueError: bad <b>"]
    )
    html = {"text/html": "<table><tr><td>1</td></tr></table>", "text/plain": "1"}
    table = v4.new_output("execute_result", data=html)
    cells = [
        v4.new_markdown_cell(text),
        v4.new_code_cell("x = 1", outputs=[table]),
        v4.new_code_cell("raise", outputs=[error]),
    ]
    nbformat.write(v4.new_notebook(cells=cells), tmp_path / "nb.ipynb")
    out = to_html(tmp_path / "nb.ipynb", shop.with_name("04_mine.html"))
    page = out.read_text()
    assert page.count("<details") == 2
    assert page.count('open="">') == 1
    assert 'href="index.html"' in page
    assert page.count("<math") == 2
    assert "$5 or $10;" in page
    assert "<code>$x$</code>" in page
    assert "stopped with an error" in page
    assert "bad &lt;b&gt;" in page
    assert out.stat().st_size < 50_000
    assert not re.search(r"(src|href)=.https?:", page)
    assert '<a href="04_mine.html"><small>04</small> My notebook</a>' in shop.read_text()


class _Text(HTMLParser):
    """The text of a page outside scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.element = ""
        self.words = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.element = tag

    def handle_data(self, data: str) -> None:
        if self.element not in ("script", "style"):
            self.words.append(data)


def _visible(page: str) -> str:
    parser = _Text()
    parser.feed(page)
    return " ".join(parser.words)


def test_the_choice_is_made_on_validation_and_the_test_only_confirms(
    shop: Path, home: Path
) -> None:
    """A model that is best on the test window alone is not shipped."""
    judged = judge_fold(folds.load_fold(str(home / "shop.toml")))
    worst = list(judged.families)[-1]
    choice = Choice(worst, 0.5, 100, 3, [])
    text = " ".join(reasons(judged.board, judged.precision(), choice))
    assert "rank 3 of 3" in text
    assert "No other model ties with it" in text


def test_the_second_of_two_equals_has_a_best_other_and_no_next() -> None:
    rows = pd.DataFrame({"model": ["alike", "mine"], "value": [0.3, 0.3]})
    same = pd.DataFrame({"alike": [0.2, 0.4], "mine": [0.2, 0.4]})
    second = _against_rival(rows, "mine", same)
    assert (
        second == f"The best other there, “Alike” ({wording.percent(0.3)}), cannot be told from it."
    )
    first = _against_rival(rows, "alike", same)
    assert first == f"The next there, “Mine” ({wording.percent(0.3)}), cannot be told from it."


def test_lists_of_others_that_are_ahead_may_have_seen_the_test_window() -> None:
    families = ["outside", "repeat"]
    rows = pd.DataFrame({"model": ["vendor", "own"], "value": [0.9, 0.1], "family": families})
    rng = np.random.default_rng(0)
    precision = pd.DataFrame({"vendor": rng.random(200) + 1, "own": rng.random(200)})
    said = _against_rival(rows, "own", precision)
    assert "is ahead of it by more than chance explains: ask first whether these lists" in said
    ours = _against_rival(rows.assign(family="repeat"), "own", precision)
    assert ours.endswith("look at both.")


def test_a_tie_on_validation_is_said_and_the_cheapest_named() -> None:
    rng = np.random.default_rng(0)
    own = rng.random(200)
    values = pd.DataFrame({"own": own, "alike": own + rng.normal(0, 0.2, 200), "bad": own * 0.2})
    choice = choose(values)
    assert {choice.model, *choice.ties} == {"own", "alike"}
    assert choice.users == 200
    assert choice.models == 3


def test_no_choice_is_made_without_validation_lists(shop: Path, home: Path) -> None:
    judged = judge_fold(folds.load_fold(str(home / "shop.toml")))
    assert choose(pd.DataFrame()) is None
    model = next(iter(judged.families))
    assert lacking(judged.board, model, None).startswith("Not yet: no model could be chosen before")


def test_few_judged_shoppers_give_no_recommendation(shop: Path, home: Path) -> None:
    judged = judge_fold(folds.load_fold(str(home / "shop.toml")))
    text = lacking(judged.board.assign(users=29), judged.choice.model, judged.choice)
    assert text.startswith("Not yet: only 29 shoppers with an earlier purchase")


def test_how_often_the_rule_chose_right_is_told(shop: Path) -> None:
    assert "On 1 earlier window the same rule chose the best" in shop.read_text()
