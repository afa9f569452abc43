"""Studies become sections of the page: figures that show their table, and none without one."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from recsys_utils import LabError
from recsys_utils.report import sections, study_figures
from recsys_utils.report.sections import study_sections
from recsys_utils.report.verdict import shipped

KNOBS = pd.DataFrame(
    {
        "knob": ["Upsell"] * 2 + ["Price cap"] * 3,
        "value": ["0", "1", "off", "2", "1.5"],
        "precision": [0.2, 0.2, 0.2, 0.15, 0.1],
        "revenue_share": [0.4, 0.44, 0.4, 0.2, 0.1],
        "mean_price": [3.0, 3.3, 3.0, 2.0, 1.5],
    }
)
PRICE_CAP = KNOBS[2:]
RECALL_AT_10 = {
    "als": 0.01,
    "own_decayed": 0.02,
    "m0": 0.001,
    "m1": 0.001,
    "m2": 0.001,
    "m3": 0.001,
    "m4": 0.001,
    "m5": 0.001,
    "all together": 0.03,
}
RECALL = pd.DataFrame({"generator": RECALL_AT_10.keys(), "n": 10, "recall": RECALL_AT_10.values()})
RECALL = pd.concat([RECALL, RECALL.assign(n=100, recall=10 * RECALL["recall"])])
ABLATION = pd.DataFrame(
    [
        ("features", "price_ features", 0.001, -0.002, 0.004),
        ("features", "pair_ features", -0.03, -0.04, -0.02),
        ("generators", "own_decayed", -0.01, -0.02, -0.001),
    ],
    columns=["kind", "without", "change", "low", "high"],
)
RELIABILITY = pd.DataFrame({"confidence": [0.1, 0.4], "bought": [0.1, 0.3], "n": [300, 100]})
STUDIES = {
    "candidate_recall": (RECALL, "A note on <recall>."),
    "two_stage_ablation": (ABLATION, ""),
    "knob_costs": (KNOBS, "A note on knobs."),
    "reliability": (RELIABILITY, ""),
}


@pytest.fixture(autouse=True)
def close_figures() -> None:
    yield
    plt.close("all")


def drawn(section: str, **studies: pd.DataFrame) -> dict[str, str]:
    """The SVG of each figure of a section by caption."""
    content = study_sections({name: (table, "") for name, table in studies.items()})[section]
    return {caption: svg for svg, caption in content["figures"]}


def legend_texts(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_sections_hold_what_studies_there_are() -> None:
    content = study_sections(STUDIES)
    assert [caption for _, caption in content["two_stage"]["figures"]] == [
        "Purchases among the candidates",
        "Without a group of features, 95 % interval",
        "Without a generator's scores, 95 % interval",
    ]
    assert [caption for _, caption in content["knobs"]["figures"]] == [
        "Upsell",
        "Price cap",
        "Confidence against what was bought: off by 2.50\u00a0% on average",
    ]
    assert content["two_stage"]["notes"] == ["A note on <recall>."]
    assert content["knobs"]["notes"] == ["A note on knobs."]
    for section in content.values():
        for svg, caption in section["figures"]:
            assert svg.startswith("<svg"), caption


@pytest.mark.parametrize(
    ("studies", "there"),
    [
        ({}, set()),
        ({"knob_costs": (KNOBS[:0], "empty"), "unknown": (KNOBS, "")}, set()),
        ({"reliability": STUDIES["reliability"]}, {"knobs"}),
    ],
)
def test_a_section_without_a_study_is_not_there(studies: dict, there: set[str]) -> None:
    assert set(study_sections(studies)) == there


def test_a_study_without_its_columns_is_named() -> None:
    table = KNOBS.drop(columns="precision")
    with pytest.raises(LabError, match="study 'knob_costs' lacks the column precision"):
        study_sections({"knob_costs": (table, "")})


def test_recall_shows_all_together_and_the_five_best_generators() -> None:
    svg = drawn("two_stage", candidate_recall=RECALL)["Purchases among the candidates"]
    names = ("All together", "Own purchases, decayed", "ALS", "M0")
    places = [svg.index(f">{name}<") for name in names]
    assert places == sorted(places)
    assert ">M5<" not in svg


def test_a_hopeless_ranker_does_not_flatten_the_rest() -> None:
    """Features and generators share a scale; rankers have their own."""
    ranker = {"kind": "ranker", "without": "popularity", "change": -0.5, "low": -0.6, "high": -0.4}
    with_ranker = pd.concat([ABLATION, pd.DataFrame([ranker])])
    before = drawn("two_stage", two_stage_ablation=ABLATION)
    after = drawn("two_stage", two_stage_ablation=with_ranker)
    assert ">−0.5<" in after.pop("With another ranker, 95 % interval")
    assert after == before
    for caption, svg in before.items():
        assert ">−0.5<" not in svg, caption


def test_knobs_share_one_scale() -> None:
    """The cap costs three quarters of revenue, upsell moves a tenth: the axis is the same."""
    figures = drawn("knobs", knob_costs=KNOBS)
    assert "−60 %" in figures["Upsell"]
    assert "−60 %" in figures["Price cap"]


def test_knob_changes_by_hand() -> None:
    changes = study_figures.knob_changes(PRICE_CAP).round(4)
    assert changes["precision"].tolist() == [0, -0.25, -0.5]
    assert changes["revenue_share"].tolist() == [0, -0.5, -0.75]
    assert changes["mean_price"].tolist() == [0, -0.3333, -0.5]


def test_knob_changes_without_prices_are_precision_alone() -> None:
    plain = KNOBS.assign(revenue_share=np.nan).drop(columns="mean_price")
    assert list(study_figures.knob_changes(plain)) == ["precision"]


def test_knob_changes_from_zero_are_zero() -> None:
    changes = study_figures.knob_changes(KNOBS.assign(precision=0.0))
    assert (changes["precision"] == 0).all()


def test_knob_draws_a_line_per_metric() -> None:
    ax = study_figures.knob(PRICE_CAP)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["off", "2", "1.5"]
    assert legend_texts(ax) == ["Precision", "Revenue share", "Mean price"]


def test_change_fills_what_is_not_chance() -> None:
    ax = study_figures.change(ABLATION, reach=0.05)
    opacity = ax.collections[1].get_facecolors()[:, 3]
    assert ax.get_yticklabels()[0].get_text() == "price_ features"
    assert ax.get_xlim() == (-0.05, 0.05)
    assert (opacity > 0).tolist() == [False, True, True]


def test_reliability_draws_its_dots_by_size_and_the_diagonal() -> None:
    ax = study_figures.reliability(RELIABILITY)
    dots = ax.collections[0]
    assert np.allclose(dots.get_offsets(), RELIABILITY[["confidence", "bought"]])
    assert ax.get_xlim() == ax.get_ylim()
    assert dots.get_sizes()[0] > dots.get_sizes()[1]
    assert ax.get_legend() is None


def test_reliability_names_models() -> None:
    two = pd.concat([RELIABILITY.assign(model=name) for name in ("blend_tuned", "hybrid_reranked")])
    assert legend_texts(study_figures.reliability(two)) == ["Blend tuned", "Hybrid reranked"]


@pytest.mark.parametrize("section", ["two_stage", "knobs"])
def test_the_page_has_a_place_for_each_section(section: str) -> None:
    template = Path(sections.__file__).parent / "templates" / "report.html.j2"
    assert f"studies.{section}" in template.read_text()


def test_lists_of_others_are_never_shipped_by_the_test_window() -> None:
    """Without a choice on validation the best of our own models is taken."""
    rows = {"metric": "precision", "k": 5, "scope": "any", "users_scope": "warm", "fold": "f"}
    board = pd.DataFrame(
        [
            rows | {"model": "vendor", "family": "outside", "value": 0.9},
            rows | {"model": "own", "family": "repeat", "value": 0.3},
        ]
    )
    assert shipped(board, None) == "own"
