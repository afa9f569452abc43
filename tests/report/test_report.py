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

from recsys_utils.data import folds, runs
from recsys_utils.models import ItemCF, OwnPurchases, Popular, Recommender
from recsys_utils.report import figures
from recsys_utils.report import page as report_page

EVIL = "<script>alert(1)</script> & $5 mug"
MODELS = {
    "popular_28d": Popular(28),
    "own_decayed": OwnPurchases(90),
    "item_cosine": ItemCF("cosine"),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of its own, so that no test writes into this one."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECSYS_HOME", str(home))
        patch.delenv("RECSYS_DATA", raising=False)
        yield home


@pytest.fixture(scope="module")
def shop(home: Path) -> Path:
    """The page of a shop with prices, names, countries, cold shoppers and two folds."""
    rng, lines = np.random.default_rng(1), 4000
    item = rng.integers(0, 60, lines) ** 2 // 60
    frame = pd.DataFrame(
        {
            "who": [f"u{n}" for n in rng.integers(0, 160, lines)],
            "what": item,
            "name": [f"{EVIL} {n}" for n in item],
            "when": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 180, lines), "D"),
            "price": 1 + item / 10,
            "land": rng.choice(["France", "Germany"], lines),
        }
    )
    late = pd.DataFrame(
        {
            "who": [f"cold{n}" for n in range(12)],
            "what": [1, 2] * 6,
            "name": EVIL,
            "when": pd.Timestamp("2024-06-28"),
            "price": 2.0,
            "land": "France",
        }
    )
    toml = _toml(
        home,
        "shop",
        pd.concat([frame, late]),
        'title = "A & <b>"\ncurrency = "€"\nfolds = 2',
        'ts = "when"\nprice = "price"',
    )
    toml.write_text(
        toml.read_text()
        + '[items.columns]\nitem_id = "what"\nname = "name"\n[users.columns]\nuser_id = "who"\ncountry = "land"\n'
    )
    return _published(toml, MODELS)


@pytest.fixture(scope="module")
def plain(home: Path) -> Path:
    """The page of receipts without prices, names or dates, with a single model."""
    rng = np.random.default_rng(2)
    frame = pd.DataFrame(
        {
            "who": rng.integers(0, 50, 900),
            "what": rng.integers(0, 30, 900),
            "nth": rng.integers(1, 8, 900),
        }
    )
    return _published(
        _toml(home, "plain", frame, 'protocol = "next_basket"', 'order = "nth"'),
        {"popular_28d": Popular(28)},
    )


def _toml(home: Path, name: str, frame: pd.DataFrame, top: str, columns: str) -> Path:
    frame.to_csv(home / f"{name}.csv", index=False)
    path = home / f"{name}.toml"
    path.write_text(
        f'{top}\n[purchases]\nfiles = ["{name}.csv"]\n[purchases.columns]\nuser_id = "who"\nitem_id = "what"\n{columns}\n'
    )
    return path


def _published(toml: Path, models: dict[str, Recommender]) -> Path:
    folds.write_folds(str(toml))
    for fold in folds.load_folds(str(toml)):
        for name, model in models.items():
            recs = model.fit(fold.testing.history).recommend(fold.testing.users, 50)
            runs.save_run(recs, fold, name, model.family, model.params, 0.5, 0.1)
    return report_page.write_report(str(toml))


def _board(page: Path) -> pd.DataFrame:
    return pd.read_csv(page.with_name("leaderboard.csv"))


def _labels(ax: plt.Axes) -> list[str]:
    return [t.get_text() for t in ax.get_yticklabels()]


def test_names_and_numbers_are_readable() -> None:
    names = {
        "popular_28d": "Popular, 28 days",
        "item_bm25": "Item BM25",
        "als": "ALS",
        "own_decayed": "Own purchases, decayed",
        "two_tower_own": "Two tower with own purchases",
        "tifuknn": "TIFU-KNN",
        "hybrid_40_40_20": "Hybrid 40/40/20",
        "blend_rrf": "Blend RRF",
    }
    assert {m: figures.display_name(m) for m in names} == names
    assert [figures.num(v) for v in (0.37951, 791044, 999.6, 0, 0.00158, 0.0002, float("nan"))] == [
        "0.380",
        "791,000",
        "1,000",
        "0",
        "0.00158",
        "< 0.001",
        "–",
    ]
    assert figures.percent(0.1234) == "12.3\u00a0%"
    assert figures.seconds(0.004) == "< 0.01"


def test_plots_are_functions_of_a_board(shop: Path) -> None:
    board = _board(shop)
    ax = figures.leaderboard_bars(board)
    best = (
        board.query("metric == 'precision' and k == 5 and scope == 'any' and users_scope == 'warm'")
        .iloc[:3]
        .nlargest(1, "value")["model"]
    )
    assert _labels(ax)[-1] == figures.display_name(best.item())
    assert ax.get_xlabel() == "Precision@5, 95 % interval"
    assert {t.get_text() for t in figures.tradeoff(board, "coverage").texts} >= {
        figures.display_name(m) for m in MODELS
    }
    assert any("France (" in label for label in _labels(figures.by_group(board, "country: ")))
    assert len(_labels(figures.repeat_vs_new(board))) == len(MODELS)
    plt.close("all")


def test_generic_plots() -> None:
    frame = pd.DataFrame(
        {
            "tau": [1, 2, 1, 2],
            "precision": [0.1, 0.2, 0.2, 0.3],
            "model": ["als", "als", "ease", "ease"],
        }
    )
    assert [
        t.get_text()
        for t in figures.curve(frame, "tau", "precision", "model").get_legend().get_texts()
    ] == ["ALS", "EASE"]
    assert _labels(figures.bars(pd.Series({"a $5": 1, "b": 2}))) == [r"a \$5", "b"]
    assert figures.histogram([1, 2, 3], "price").get_xlabel() == "price"
    assert [
        t.get_text()
        for t in figures.heatmap(
            pd.DataFrame(np.full((2, 2), 0.5), ["als", "ease"], ["als", "ease"])
        ).texts
    ] == ["50"]
    plt.close("all")


def test_svg_follows_the_page_and_is_reproducible(shop: Path) -> None:
    first, again = (figures.svg("Bars <", figures.leaderboard_bars, _board(shop)) for _ in range(2))
    assert first == again
    assert 'aria-label="Bars &lt;"' in first
    assert "currentColor" in first
    assert figures.INK not in first
    assert figures.GRID not in first
    assert plt.rcParams["text.color"] != figures.INK


@pytest.mark.parametrize("name", ["shop", "plain"])
def test_pages_stand_alone(name: str, request: pytest.FixtureRequest) -> None:
    page = request.getfixturevalue(name)
    text = page.read_text()
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//|@import|url\(\s*["']?http""", text)
    assert page.stat().st_size < 800_000
    assert str(page.parents[2]) not in text + page.with_name("leaderboard.csv").read_text()
    assert "nan" not in re.sub(r"[a-z]nan|nan[a-z]", "", _visible(text).lower())
    assert 'class="badge"' not in text
    assert f'href="{name}/index.html"' in (page.parents[1] / "index.html").read_text()


def test_synthetic_data_is_badged(home: Path) -> None:
    fold_of = str(home / "tiny.toml")
    (home / "tiny.csv").write_text(
        "who,what,when\n"
        + "\n".join(f"{n % 9},{n % 5},2024-01-{1 + n // 20:02}" for n in range(600))
    )
    Path(fold_of).write_text(
        'title = "T"\ntest_weeks = 1\nvalid_weeks = 1\n[purchases]\nfiles = ["tiny.csv"]\n'
        '[purchases.columns]\nuser_id = "who"\nitem_id = "what"\nts = "when"\n'
    )
    real = _published(Path(fold_of), {"popular_28d": Popular(28)}).read_text()
    data, judged = report_page.tables.load(fold_of), [report_page.judge(folds.load_fold(fold_of))]
    data.spec.synthetic = True
    made = report_page.render("report.html.j2", **report_page._context(data, judged), notebooks=[])
    assert "synthetic data</span>" in made
    assert "synthetic data</span>" not in real


def test_data_is_escaped(shop: Path) -> None:
    text = shop.read_text()
    assert "<script>alert" not in text
    assert "<title>A &amp; &lt;b&gt;</title>" in text
    embedded = json.loads(
        re.search(r'<script type="application/json" id="shoppers">(.*?)</script>', text, re.DOTALL)[
            1
        ]
    )
    assert any(EVIL in name for name, _ in embedded["items"])
    assert any(not s["baskets"] for s in embedded["shoppers"])
    assert embedded["currency"] == "€"


def test_verdict_and_tables(shop: Path) -> None:
    board, text = _board(shop), shop.read_text()
    said = report_page.ship(board[board["fold"] == board["fold"].iloc[0]], currency="€")
    assert said.startswith("Ship ")
    assert "€" in said
    assert "cold shoppers" in said
    assert "new to the shopper" in said
    assert text.count("data-board=") == 8
    assert "12 cold shoppers" in text
    assert board["fold"].nunique() == 2
    assert "Rolling folds" in text


def test_studies_stand_between_repeats_and_shoppers(shop: Path, home: Path) -> None:
    """A notebook's findings come in the page's order and leave with their study; what they say is escaped."""
    toml = str(home / "shop.toml")
    fold = folds.load_fold(toml)
    assert 'id="two-stage"' not in shop.read_text()
    assert 'id="knobs"' not in shop.read_text()
    assert "#knobs" not in shop.read_text()
    recall = pd.DataFrame(
        {
            "generator": ["als", "als", "union", "union"],
            "n": [10, 50] * 2,
            "recall": [0.1, 0.2, 0.2, 0.4],
        }
    )
    knobs = pd.DataFrame({"knob": "Upsell <b>", "value": ["off", "1"], "precision": [0.2, 0.1]})
    data, judged = report_page.tables.load(toml), [report_page.judge(fold)]
    runs.save_study(recall, fold, "candidate_recall", EVIL)
    runs.save_study(knobs, fold, "knob_costs")
    page = report_page.render("report.html.j2", **report_page._context(data, judged), notebooks=[])
    places = [
        page.index(f'id="{section}"')
        for section in ("repeat", "two-stage", "overlap", "knobs", "explorer")
    ]
    assert places == sorted(places)
    assert "Upsell &lt;b&gt;" in page
    assert "<script>alert" not in page
    assert 'href="#knobs"' in page
    for path in (home / "data").glob("*/studies/*/*"):
        path.unlink()


def test_what_cannot_be_computed_is_said(plain: Path) -> None:
    text = plain.read_text()
    for gap in (
        "receipts have no prices",
        "ids stand in",
        "there is only one",
        "keeps receipts only",
        "there is no other model",
        "Without prices",
    ):
        assert gap in text
    assert 'id="tradeoffs"' not in text
    assert 'id="overlap"' not in text


def test_notebook_page_folds_code_and_keeps_money(shop: Path, tmp_path: Path) -> None:
    text = "# My *notebook*\nIt costs $5 or $10; $s_{ui} < 1$ and `$x$`.\n\n$$\\frac{1}{2}$$\n"
    error = v4.new_output(
        "error", ename="ValueError", evalue="bad <b>", traceback=["ValueError: bad <b>"]
    )
    table = v4.new_output(
        "execute_result",
        data={"text/html": "<table><tr><td>1</td></tr></table>", "text/plain": "1"},
    )
    cells = [
        v4.new_markdown_cell(text),
        v4.new_code_cell("x = 1", outputs=[table]),
        v4.new_code_cell("raise", outputs=[error]),
    ]
    nbformat.write(v4.new_notebook(cells=cells), tmp_path / "nb.ipynb")
    out = report_page.to_html(tmp_path / "nb.ipynb", shop.with_name("04_mine.html"))
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
    assert (report_page.code_template_dir() / "conf.json").exists()


class _Text(HTMLParser):
    """The text of a page outside scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.words = "", []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.inside = tag

    def handle_data(self, data: str) -> None:
        self.words += [data] if self.inside not in ("script", "style") else []


def _visible(page: str) -> str:
    parser = _Text()
    parser.feed(page)
    return " ".join(parser.words)
