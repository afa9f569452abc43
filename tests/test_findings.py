"""Studies become sections of the report: each figure says what its table says, and without a table there is no section."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from recsys_utils import LabError, findings, plots_studies

KNOBS = pd.DataFrame({"knob": ["Upsell"] * 2 + ["Price cap"] * 3, "value": ["0", "1", "off", "2", "1.5"], "precision": [0.2, 0.2, 0.2, 0.15, 0.1],
                      "revenue_share": [0.4, 0.44, 0.4, 0.2, 0.1], "mean_price": [3.0, 3.3, 3.0, 2.0, 1.5]})
RECALL = pd.DataFrame([(name, n, share * n) for name, share in {"als": 0.001, "own_decayed": 0.002, **{f"m{i}": 0.0001 for i in range(6)}, "union": 0.003}.items()
                       for n in (10, 100)], columns=["generator", "n", "recall"])
ABLATION = pd.DataFrame([("features", "price_ features", 0.001, -0.002, 0.004), ("features", "pair_ features", -0.03, -0.04, -0.02),
                         ("generators", "own_decayed", -0.01, -0.02, -0.001)], columns=["kind", "without", "change", "low", "high"])
RELIABILITY = pd.DataFrame({"confidence": [0.1, 0.4], "bought": [0.1, 0.3], "n": [300, 100]})
STUDIES = {"candidate_recall": (RECALL, "A note on <recall>."), "two_stage_ablation": (ABLATION, ""), "knob_costs": (KNOBS, "A note on knobs."),
           "reliability": (RELIABILITY, "")}


@pytest.fixture(autouse=True)
def close() -> None:
    yield
    plt.close("all")


def test_sections_hold_what_studies_there_are() -> None:
    made = findings.sections(STUDIES)
    assert [caption for _, caption in made["two_stage"]["figures"]] == ["Purchases among the candidates", "Without a group of features, 95 % interval",
                                                                      "Without a generator of candidates, 95 % interval"]
    assert [caption for _, caption in made["knobs"]["figures"]] == ["Upsell", "Price cap", "Confidence against what was bought: off by 2.50\u00a0% on average"]
    assert made["two_stage"]["notes"] == ["A note on <recall>."] and made["knobs"]["notes"] == ["A note on knobs."]
    assert all(svg.startswith("<svg") for section in made.values() for svg, _ in section["figures"])
    assert findings.sections({}) == {} and findings.sections({"knob_costs": (KNOBS[:0], "x"), "other": (KNOBS, "")}) == {}
    assert set(findings.sections({"reliability": STUDIES["reliability"]})) == {"knobs"}


def test_a_study_without_its_columns_is_named() -> None:
    with pytest.raises(LabError, match="study 'knob_costs' lacks the column precision"):
        findings.sections({"knob_costs": (KNOBS.drop(columns="precision"), "")})


def test_recall_shows_the_union_and_the_best_generators() -> None:
    """Five of the eight, the best first, in words."""
    svg = findings.sections({"candidate_recall": STUDIES["candidate_recall"]})["two_stage"]["figures"][0][0]
    places = [svg.index(f">{name}<") for name in ("Union", "Own purchases, decayed", "ALS", "M0")]
    assert places == sorted(places) and ">M5<" not in svg


def test_knobs_share_one_scale() -> None:
    """Price cap takes three quarters of revenue, upsell moves a tenth of it: the axis is the same."""
    first, second = (svg for svg, _ in findings.sections({"knob_costs": (KNOBS, "")})["knobs"]["figures"])
    assert "−60 %" in first and "−60 %" in second


def test_knob_changes_by_hand() -> None:
    changes = plots_studies.knob_changes(KNOBS[2:])
    assert changes.round(4).to_numpy().tolist() == [[0, 0, 0], [-0.25, -0.5, -0.3333], [-0.5, -0.75, -0.5]]
    plain = plots_studies.knob_changes(KNOBS.assign(revenue_share=np.nan).drop(columns="mean_price"))
    assert list(plain) == ["precision"]
    assert (plots_studies.knob_changes(KNOBS.assign(precision=0.0))["precision"] == 0).all()
    ax = plots_studies.knob(KNOBS[2:])
    assert [t.get_text() for t in ax.get_xticklabels()] == ["off", "2", "1.5"] and [t.get_text() for t in ax.get_legend().get_texts()][0] == "Precision"
    assert [a.get_title() for a in plots_studies.knobs(KNOBS).figure.axes] == ["Upsell", "Price cap", ""]


def test_change_fills_what_is_not_chance() -> None:
    ax = plots_studies.change(ABLATION, reach=0.05)
    faces = ax.collections[1].get_facecolors()
    assert [t.get_text() for t in ax.get_yticklabels()][0] == "price_ features" and ax.get_xlim() == (-0.05, 0.05)
    assert len(faces) == 3 and [bool(face[3]) for face in faces] == [False, True, True]


def test_reliability_draws_the_line_of_honesty() -> None:
    ax = plots_studies.reliability(RELIABILITY)
    assert np.allclose(ax.collections[0].get_offsets(), RELIABILITY[["confidence", "bought"]]) and ax.get_xlim() == ax.get_ylim()
    assert np.diff(ax.collections[0].get_sizes())[0] < 0


def test_package_names_no_study_without_a_figure() -> None:
    text = (Path(findings.__file__).parent / "templates" / "report.html.j2").read_text()
    assert all(f"findings.{section}" in text for section in findings.sections(STUDIES))
