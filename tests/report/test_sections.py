"""Studies become sections of the report: each figure says what its table says, and without a table there is no section."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from shops import Shop, receipts

from recsys_utils import LabError
from recsys_utils.data.folds import Stage
from recsys_utils.data.interactions import Interactions
from recsys_utils.ensembles.hybrid import Hybrid
from recsys_utils.evaluation.leaderboard import warm
from recsys_utils.evaluation.metrics import per_user
from recsys_utils.report import sections, study_figures

KNOBS = pd.DataFrame(
    {
        "knob": ["Upsell"] * 2 + ["Price cap"] * 3,
        "value": ["0", "1", "off", "2", "1.5"],
        "precision": [0.2, 0.2, 0.2, 0.15, 0.1],
        "revenue_share": [0.4, 0.44, 0.4, 0.2, 0.1],
        "mean_price": [3.0, 3.3, 3.0, 2.0, 1.5],
    }
)
RECALL = pd.DataFrame(
    [
        (name, n, share * n)
        for name, share in {
            "als": 0.001,
            "own_decayed": 0.002,
            **{f"m{i}": 0.0001 for i in range(6)},
            "union": 0.003,
        }.items()
        for n in (10, 100)
    ],
    columns=["generator", "n", "recall"],
)
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
def close() -> None:
    yield
    plt.close("all")


def test_sections_hold_what_studies_there_are() -> None:
    made = sections.sections(STUDIES)
    assert [caption for _, caption in made["two_stage"]["figures"]] == [
        "Purchases among the candidates",
        "Without a group of features, 95 % interval",
        "Without a generator of candidates, 95 % interval",
    ]
    assert [caption for _, caption in made["knobs"]["figures"]] == [
        "Upsell",
        "Price cap",
        "Confidence against what was bought: off by 2.50\u00a0% on average",
    ]
    assert made["two_stage"]["notes"] == ["A note on <recall>."]
    assert made["knobs"]["notes"] == ["A note on knobs."]
    assert all(svg.startswith("<svg") for section in made.values() for svg, _ in section["figures"])
    assert sections.sections({}) == {}
    assert sections.sections({"knob_costs": (KNOBS[:0], "x"), "other": (KNOBS, "")}) == {}
    assert set(sections.sections({"reliability": STUDIES["reliability"]})) == {"knobs"}


def test_a_study_without_its_columns_is_named() -> None:
    with pytest.raises(LabError, match="study 'knob_costs' lacks the column precision"):
        sections.sections({"knob_costs": (KNOBS.drop(columns="precision"), "")})


def test_recall_shows_the_union_and_the_best_generators() -> None:
    """Five of the eight, the best first, in words."""
    svg = sections.sections({"candidate_recall": STUDIES["candidate_recall"]})["two_stage"][
        "figures"
    ][0][0]
    places = [svg.index(f">{name}<") for name in ("Union", "Own purchases, decayed", "ALS", "M0")]
    assert places == sorted(places)
    assert ">M5<" not in svg


def test_a_hopeless_ranker_does_not_flatten_the_rest() -> None:
    """Features and generators share a scale; rankers have their own."""
    worse = pd.concat(
        [
            ABLATION,
            pd.DataFrame(
                {
                    "kind": ["ranker"],
                    "without": ["popularity"],
                    "change": [-0.5],
                    "low": [-0.6],
                    "high": [-0.4],
                }
            ),
        ]
    )
    before, after = (
        dict(
            map(
                reversed, sections.sections({"two_stage_ablation": (t, "")})["two_stage"]["figures"]
            )
        )
        for t in (ABLATION, worse)
    )
    assert all(after[caption] == svg for caption, svg in before.items())
    assert len(after) == 3
    assert all(">−0.5<" not in svg for svg in before.values())
    assert ">−0.5<" in after["With another ranker, 95 % interval"]


def test_knobs_share_one_scale() -> None:
    """Price cap takes three quarters of revenue, upsell moves a tenth of it: the axis is the same."""
    first, second = (
        svg for svg, _ in sections.sections({"knob_costs": (KNOBS, "")})["knobs"]["figures"]
    )
    assert "−60 %" in first
    assert "−60 %" in second


def test_knob_changes_by_hand() -> None:
    changes = study_figures.knob_changes(KNOBS[2:])
    assert changes.round(4).to_numpy().tolist() == [
        [0, 0, 0],
        [-0.25, -0.5, -0.3333],
        [-0.5, -0.75, -0.5],
    ]
    plain = study_figures.knob_changes(
        KNOBS.assign(revenue_share=np.nan).drop(columns="mean_price")
    )
    assert list(plain) == ["precision"]
    assert (study_figures.knob_changes(KNOBS.assign(precision=0.0))["precision"] == 0).all()
    ax = study_figures.knob(KNOBS[2:])
    assert [t.get_text() for t in ax.get_xticklabels()] == ["off", "2", "1.5"]
    assert [t.get_text() for t in ax.get_legend().get_texts()][0] == "Precision"
    assert [a.get_title() for a in study_figures.knobs(KNOBS).figure.axes] == [
        "Upsell",
        "Price cap",
        "",
    ]


def test_change_fills_what_is_not_chance() -> None:
    ax = study_figures.change(ABLATION, reach=0.05)
    faces = ax.collections[1].get_facecolors()
    assert [t.get_text() for t in ax.get_yticklabels()][0] == "price_ features"
    assert ax.get_xlim() == (-0.05, 0.05)
    assert len(faces) == 3
    assert [bool(face[3]) for face in faces] == [False, True, True]


def test_reliability_draws_the_line_of_honesty() -> None:
    ax = study_figures.reliability(RELIABILITY)
    assert np.allclose(ax.collections[0].get_offsets(), RELIABILITY[["confidence", "bought"]])
    assert ax.get_xlim() == ax.get_ylim()
    assert np.diff(ax.collections[0].get_sizes())[0] < 0


def test_package_names_no_study_without_a_figure() -> None:
    text = (Path(sections.__file__).parent / "templates" / "report.html.j2").read_text()
    assert all(f"findings.{section}" in text for section in sections.sections(STUDIES))


OFF = {
    "upsell": {"factor": 0},
    "user_segments": {"enabled": False},
    "repurchase_cycle": {"enabled": False},
    "price_sensitivity": {"mode": "off"},
}


def test_knob_costs_are_those_of_the_retuned_model(shop: Shop) -> None:
    model = Hybrid({"factors": 8, "iterations": 2}, tuning=OFF).fit(shop.history)
    knobs = {
        "Upsell": {"0": {}, "1": {"upsell": {"factor": 1.0}}},
        "Cap": {"1.2": {"price_sensitivity": {"budget_tolerance": 1.2}}},
    }
    costs = sections.knob_costs(model, OFF, knobs, shop.stage)
    assert costs[["knob", "value"]].to_numpy().tolist() == [
        ["Upsell", "0"],
        ["Upsell", "1"],
        ["Cap", "1.2"],
    ]
    truth = warm(shop.truth, shop.history)
    plain = per_user(model.recommend(truth["user_id"].unique(), 5), truth, 5).mean()
    assert costs.loc[0, ["precision", "revenue_share"]].tolist() == pytest.approx(
        plain[["precision", "revenue_share"]].tolist()
    )
    assert costs["mean_price"][2] < costs["mean_price"][0] != costs["mean_price"][1]
    bare = Interactions.of(shop.history.purchases.drop(columns="price"), as_of=shop.history.as_of)
    stage = Stage(bare, shop.truth.drop(columns="price"))
    assert list(
        sections.knob_costs(
            Hybrid({"factors": 8, "iterations": 2}).fit(bare), {}, {"Upsell": {"0": {}}}, stage
        )
    ) == ["knob", "value", "precision"]


def test_hidden_counts_what_the_rules_would_not_have_shown() -> None:
    """Ann bought milk on three first days of months and jam yesterday; then she buys both, and bread. Jam alone came too early."""
    past = receipts(
        "ann milk a1 2024-01-01 1 1\nann milk a2 2024-02-01 1 1\nann milk a3 2024-03-01 1 1\nann jam a4 2024-04-19 1 1\nbob bread b1 2024-04-19 1 9"
    )
    then = receipts(
        "ann milk x 2024-04-21 1 1\nann jam x 2024-04-21 1 1\nann bread x 2024-04-21 1 9\neve bread y 2024-04-21 1 9"
    )
    stage = Stage(Interactions.of(past, as_of=pd.Timestamp("2024-04-20")), then)
    made = sections.hidden(
        {
            "cycle": OFF | {"repurchase_cycle": {}},
            "cap": OFF | {"price_sensitivity": {}},
            "none": OFF,
        },
        stage,
    )
    assert made.loc["cycle"].round(4).to_dict() == {"any": 0.3333, "repeat": 0.5, "new": 0}
    assert made.loc["cap"].round(4).to_dict() == {"any": 0.3333, "repeat": 0, "new": 1}
    assert (made.loc["none"] == 0).all()


def test_reliability_tells_models_apart() -> None:
    two = pd.concat([RELIABILITY.assign(model=name) for name in ("blend_tuned", "hybrid_reranked")])
    assert [t.get_text() for t in study_figures.reliability(two).get_legend().get_texts()] == [
        "Blend tuned",
        "Hybrid reranked",
    ]
    assert study_figures.reliability(RELIABILITY).get_legend() is None
