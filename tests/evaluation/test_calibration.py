"""Confidence is a share of what was bought: by hand, by simulation, blind to the test window."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shops import Shop, receipts

from recsys_utils import LabError
from recsys_utils.data.interactions import Interactions
from recsys_utils.evaluation import calibration
from recsys_utils.models import ItemCF, Popular

PAST = receipts("""
ann milk a1 2024-01-01 1 1
ann milk a2 2024-02-01 1 1
bob milk b1 2024-02-10 1 1
""")


def shares(cells: pd.DataFrame, model: str) -> np.ndarray:
    """Confidence of a model's cells: buckets × deciles."""
    confidence = cells.loc[cells["model"] == model, "confidence"].to_numpy()
    return confidence.reshape(len(calibration.BUCKETS), -1)


def simulated(n: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame, Interactions]:
    """Suggestions whose score is their true chance of being bought, to users of any history."""
    rng = np.random.default_rng(seed)
    recs = pd.DataFrame(
        {
            "user_id": [f"u{i}" for i in range(n)],
            "item_id": "x",
            "score": rng.uniform(0, 0.6, n),
            "rank": 1,
        }
    )
    past = pd.DataFrame(
        {
            "user_id": rng.choice(recs["user_id"], n),
            "item_id": "y",
            "basket_id": [f"b{i}" for i in range(n)],
            "ts": pd.Timestamp("2024-01-01"),
            "quantity": 1.0,
        }
    )
    return recs, recs[rng.random(n) < recs["score"]], Interactions.of(past)


@pytest.mark.spec("S5-45")
def test_a_cell_by_hand() -> None:
    """Ann (2 baskets) bought 1 of 2 suggestions, bob (1 basket) 0 of 2; a strength of 4.

    Equal scores make one decile.
    """
    recs = pd.DataFrame(
        {
            "user_id": ["ann", "ann", "bob", "bob"],
            "item_id": ["milk", "jam", "milk", "tea"],
            "score": 1.0,
            "rank": [1, 2, 1, 2],
        }
    )
    truth = pd.DataFrame({"user_id": ["ann", "bob", "bob"], "item_id": ["jam", "jam", "soap"]})
    cells = calibration.fit({"als": recs}, truth, Interactions.of(PAST), strength=4)
    assert list(cells) == ["model", "bucket", "low", "n", "bought", "confidence"]
    filled = cells[cells["n"] > 0]
    assert filled["n"].tolist() == [2, 2, 2, 2]
    assert filled["bought"].tolist() == [0, 1, 0, 1]
    by_bucket = dict(zip(calibration.BUCKETS, shares(cells, "als")[:, 0]))
    # The share of the model and of its decile is (1 + 4 · ¼) / (4 + 4) = ¼.
    assert by_bucket[1] == pytest.approx((0 + 4 / 4) / 6)
    assert by_bucket[2] == pytest.approx((1 + 4 / 4) / 6)
    assert by_bucket[0] == by_bucket[5] == by_bucket[25] == pytest.approx(0.25)


@pytest.mark.spec("S5-45")
def test_only_the_first_places_count() -> None:
    recs = pd.DataFrame(
        {"user_id": "ann", "item_id": ["milk", "jam"], "score": 1.0, "rank": [10, 11]}
    )
    cells = calibration.fit({"als": recs}, recs[["user_id", "item_id"]], Interactions.of(PAST))
    assert cells.loc[cells["model"] == "als", "n"].sum() == 1


@pytest.mark.spec("S5-45")
@given(
    st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=1, max_size=60),
    st.floats(0, 100),
)
def test_monotone_in_the_score_and_a_share(rows: list[tuple[int, bool]], strength: float) -> None:
    recs = pd.DataFrame(rows, columns=["score", "bought"]).astype({"score": float})
    recs = recs.assign(user_id="ann", item_id=[f"i{n}" for n in recs.index], rank=1)
    bob = pd.DataFrame({"user_id": ["bob"], "item_id": ["milk"]})
    truth = pd.concat([recs[recs["bought"]], bob])
    cells = calibration.fit({"als": recs}, truth, Interactions.of(PAST), strength=strength + 1e-6)
    confidence = calibration.confidence(cells, "als", np.linspace(-9, 9, 50), 2)
    assert (np.diff(confidence) >= 0).all()
    assert cells["confidence"].between(0, 1).all()
    assert np.isfinite(confidence).all()


@pytest.mark.spec("S5-45")
def test_an_unseen_model_or_history_falls_back() -> None:
    """Each takes the next coarser cell: no 25 baskets were seen, and no model bpr."""
    recs, truth, history = simulated(4000, 1)
    cells = calibration.fit({"als": recs}, truth, history)
    n = cells[cells["model"] == "als"].groupby("bucket")["n"].sum()
    assert n[25] == 0
    assert n[0] > 0
    decile = cells[cells["model"] == "als"].groupby("low")[["bought", "n"]].sum()
    coarse = calibration.confidence(cells, "als", decile.index.to_numpy(), 25)
    assert coarse == pytest.approx((decile["bought"] / decile["n"]).to_numpy(), abs=0.02)
    strange = calibration.confidence(cells, "bpr", np.array([-1e9, 0, 1e9]), 25)
    assert strange == pytest.approx(np.repeat(len(truth) / len(recs), 3))


@pytest.mark.spec("S5-45")
def test_recovers_a_calibrated_simulation() -> None:
    recs, truth, history = simulated(20_000, 2)
    cells = calibration.fit({"als": recs}, truth, history)
    fresh, bought, _ = simulated(20_000, 3)
    rows = calibration.labelled(fresh, bought, history)
    claimed = calibration.confidence(cells, "als", rows["score"], rows["bucket"])
    assert np.abs(claimed - fresh["score"]).mean() < 0.025  # half a decile's width, 0.03, at most
    table = calibration.reliability(claimed, rows["bought"])
    assert calibration.calibration_error(table) < 0.015
    assert table["n"].sum() == 20_000
    assert table["confidence"].is_monotonic_increasing
    wrong = calibration.reliability(1 - claimed, rows["bought"])
    assert calibration.calibration_error(wrong) > 0.3


def test_reliability_by_hand() -> None:
    claimed = np.array([0.1, 0.1, 0.1, 0.5, 0.9, 0.9])
    table = calibration.reliability(claimed, np.array([0, 0, 1, 1, 1, 0]), bins=3)
    assert table.round(4).to_numpy().tolist() == [[0.1, 0.3333, 3], [0.5, 1, 1], [0.9, 0.5, 2]]
    error = (3 * (1 / 3 - 0.1) + 0.5 + 2 * 0.4) / 6
    assert calibration.calibration_error(table) == pytest.approx(error)


def test_reliability_of_nothing_has_no_error() -> None:
    table = calibration.reliability(np.zeros(0), np.zeros(0))
    assert np.isnan(calibration.calibration_error(table))


def test_buckets_count_baskets_of_strangers_too() -> None:
    assert calibration.buckets(["bob", "eve", "ann"], Interactions.of(PAST)).tolist() == [1, 0, 2]


@pytest.mark.spec("S5-45")
def test_the_test_window_is_not_read(shop: Shop) -> None:
    """What is bought later, shuffled or not, changes no cell."""
    tables = []
    for seed in (0, 1):
        items = shop.truth["item_id"].sample(frac=1, random_state=seed).to_numpy()
        rows = pd.concat([shop.history.purchases, shop.truth.assign(item_id=items)])
        before = rows[rows["ts"] < shop.borders["tuning"]]
        window = rows[rows["ts"].between(shop.borders["tuning"], shop.borders["test"], "left")]
        history = Interactions.of(before, as_of=shop.borders["tuning"])
        lists = {}
        for name, model in {"cosine": ItemCF(), "popular": Popular(28)}.items():
            lists[name] = model.fit(history).recommend(window["user_id"].unique(), 20)
        assert len(window)
        tables.append(calibration.fit(lists, window, history))
    pd.testing.assert_frame_equal(*tables)
    assert tables[0]["confidence"].nunique() > 10


def test_nothing_to_learn_from_is_said() -> None:
    with pytest.raises(LabError, match="nothing to learn from"):
        calibration.fit({}, PAST, Interactions.of(PAST))
    with pytest.raises(LabError, match="nothing to learn from"):
        calibration.fit({"als": PAST.assign(rank=1, score=1)}, PAST[:0], Interactions.of(PAST))
