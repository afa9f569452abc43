"""What rules cost and hide, and the figures that only notebooks draw."""

import pandas as pd
import pytest
from lab import charts
from lab.knobs import hidden_purchases, knob_costs
from matplotlib import pyplot as plt
from shops import Shop, receipts

from recsys_utils.data.folds import Stage
from recsys_utils.data.interactions import Interactions
from recsys_utils.ensembles.hybrid import Hybrid
from recsys_utils.evaluation.metrics import per_user
from recsys_utils.evaluation.slices import warm

OFF = {
    "upsell": {"factor": 0},
    "user_segments": {"enabled": False},
    "repurchase_cycle": {"enabled": False},
    "price_sensitivity": {"mode": "off"},
}
SMALL_ALS = {"factors": 8, "iterations": 2}


@pytest.fixture(autouse=True)
def close_figures() -> None:
    yield
    plt.close("all")


def test_knob_costs_are_those_of_the_retuned_model(shop: Shop) -> None:
    model = Hybrid(SMALL_ALS, tuning=OFF).fit(shop.history)
    knobs = {
        "Upsell": {"0": {}, "1": {"upsell": {"factor": 1.0}}},
        "Cap": {"1.2": {"price_sensitivity": {"budget_tolerance": 1.2}}},
    }
    costs = knob_costs(model, OFF, knobs, shop.stage)
    assert list(costs["knob"]) == ["Upsell", "Upsell", "Cap"]
    assert list(costs["value"]) == ["0", "1", "1.2"]
    truth = warm(shop.truth, shop.history)
    plain = per_user(model.recommend(truth["user_id"].unique(), 5), truth, 5).mean()
    for metric in ("precision", "revenue_share"):
        assert costs[metric][0] == pytest.approx(plain[metric])
    assert costs["mean_price"][2] < costs["mean_price"][0], "a cap lowers prices"
    assert costs["mean_price"][1] != costs["mean_price"][0], "upsell moves prices"


def test_knob_costs_without_prices_are_precision_alone(shop: Shop) -> None:
    receipts = shop.history.purchases.drop(columns="price")
    history = Interactions.of(receipts, as_of=shop.history.as_of)
    stage = Stage(history, shop.truth.drop(columns="price"))
    costs = knob_costs(Hybrid(SMALL_ALS).fit(history), {}, {"Upsell": {"0": {}}}, stage)
    assert list(costs) == ["knob", "value", "precision"]


def test_hidden_purchases_are_those_that_rules_would_not_have_shown() -> None:
    """Ann buys milk each month, and jam yesterday; then both and bread. Only jam is too early."""
    past = receipts("""
    ann milk  a1 2024-01-01 1 1
    ann milk  a2 2024-02-01 1 1
    ann milk  a3 2024-03-01 1 1
    ann jam   a4 2024-04-19 1 1
    bob bread b1 2024-04-19 1 9
    """)
    then = receipts("""
    ann milk  x 2024-04-21 1 1
    ann jam   x 2024-04-21 1 1
    ann bread x 2024-04-21 1 9
    eve bread y 2024-04-21 1 9
    """)
    stage = Stage(Interactions.of(past, as_of=pd.Timestamp("2024-04-20")), then)
    rules = {
        "cycle": OFF | {"repurchase_cycle": {}},
        "cap": OFF | {"price_sensitivity": {}},
        "none": OFF,
    }
    hidden = hidden_purchases(rules, stage).round(4)
    assert hidden.loc["cycle"].to_dict() == {"any": 0.3333, "repeat": 0.5, "new": 0}
    assert hidden.loc["cap"].to_dict() == {"any": 0.3333, "repeat": 0, "new": 1}
    assert hidden.loc["none"].to_dict() == {"any": 0, "repeat": 0, "new": 0}


def test_knobs_stand_side_by_side() -> None:
    costs = pd.DataFrame(
        {
            "knob": ["Upsell", "Upsell", "Price cap", "Price cap"],
            "value": ["0", "1", "off", "2"],
            "precision": [0.2, 0.2, 0.2, 0.15],
        }
    )
    panels = charts.knobs(costs).figure.axes
    assert [panel.get_title() for panel in panels] == ["Upsell", "Price cap", ""]


def test_bars_keep_their_order_and_a_dollar_is_no_formula() -> None:
    ax = charts.bars(pd.Series({"a $5": 1, "b": 2}))
    assert [label.get_text() for label in ax.get_yticklabels()] == [r"a \$5", "b"]


def test_histogram_on_a_log_scale_leaves_out_what_is_not_positive() -> None:
    ax = charts.histogram([0, 1, 2, 3, None], "price", log=True)
    assert ax.get_xlabel() == "price"
    assert sum(bar.get_height() for bar in ax.patches) == 3
