"""The network's two outputs: interest orders lists, the probability of purchase is one."""

import io
import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lab import replay
from shops import cut_shop

from recsys_utils import LabError
from recsys_utils.data.interactions import Interactions
from recsys_utils.evaluation.calibration import calibration_error, reliability
from recsys_utils.models.platt import Platt
from recsys_utils.models.purchase_net import PurchaseNet, labels, model_path
from recsys_utils.online.queue import Queue
from recsys_utils.online.update import PAIRS

SMALL = {"dim": 8, "hidden": 16, "epochs": 6, "update_rate": 3e-3}
WARM_UP = 5  # days after which the line has seen the stream's outcomes
SHOPPERS = [f"u{n:02d}" for n in range(40)]


@pytest.fixture(scope="module")
def net() -> PurchaseNet:
    """Trained on 40 shoppers who bought 8 of 20 products and passed 8 others over."""
    rng = np.random.default_rng(3)
    rows = []
    for user in SHOPPERS:
        met = rng.permutation(20)[:16]
        rows += [(user, f"i{item:02d}", float(n < 8)) for n, item in enumerate(met)]
    return PurchaseNet.cold(pd.DataFrame(rows, columns=["user_id", "item_id", "label"]), **SMALL)


def views(item: str) -> pd.DataFrame:
    """Everybody looks at a product, nobody buys it."""
    return labels(pd.DataFrame({"user_id": SHOPPERS, "item_id": item, "event_type": "view"}))


def test_the_probability_rises_with_the_interest(net: PurchaseNet) -> None:
    users = np.repeat(SHOPPERS, 20)
    items = np.tile(net.item_ids, len(SHOPPERS))
    interest = net.pairs(users, items)
    chance = net.purchase_probability(users, items)
    order = np.argsort(interest, kind="stable")
    assert (np.diff(chance[order]) > -1e-6).all()
    assert 0 < chance.min() < chance.max() < 1


def test_lists_are_ordered_by_interest_whatever_the_line(net: PurchaseNet, tmp_path: Path) -> None:
    """The line changes no score of the network and no place of a queue."""
    shown = []
    scores = []
    keep = net.platt
    for n, line in enumerate((keep, Platt(0.01, -5, 1, 1))):
        net.platt = line
        with Queue(tmp_path / f"{n}.db") as queue:
            shown.append(queue.recommend(SHOPPERS, 6, net, at=pd.Timestamp("2025-01-01")))
        scores.append(net.scores(SHOPPERS))
    net.platt = keep
    pd.testing.assert_frame_equal(*shown)
    assert np.array_equal(*scores)


def test_a_line_that_learns_leaves_the_network_as_it_would_be(net: PurchaseNet) -> None:
    """Outcomes reach the probability only: with any outcome the interest learns the same."""
    looked = views("i05")
    bought = looked.assign(bought=True)
    one, other = (net.updated(pairs, 1) for pairs in (looked, bought))
    assert all(np.array_equal(one.weights[name], other.weights[name]) for name in one.weights)
    assert one.platt != other.platt


def test_many_views_without_a_purchase_do_not_make_a_purchase_likely(net: PurchaseNet) -> None:
    """They raise the interest towards 1, and the probability falls."""
    first = net.purchase_probability(SHOPPERS, ["i05"] * len(SHOPPERS)).mean()
    later = net
    for night in range(60):
        later = later.updated(views("i05"), night)
    asked = SHOPPERS, ["i05"] * len(SHOPPERS)
    assert later.pairs(*asked).mean() > 0.9
    assert later.purchase_probability(*asked).mean() < min(0.2, first)


def test_purchases_make_a_purchase_likelier(net: PurchaseNet) -> None:
    later = net
    for night in range(10):
        later = later.updated(views("i05").assign(bought=True), night)
    asked = SHOPPERS, ["i05"] * len(SHOPPERS)
    assert later.purchase_probability(*asked).mean() > net.purchase_probability(*asked).mean()


def test_on_days_not_learnt_yet_the_probability_is_calibrated(
    record_property: Callable, capsys: pytest.CaptureFixture
) -> None:
    """Each day of the stream is predicted before it is learnt; the interest is no probability."""
    shop = cut_shop(lines=30_000, seed=1)
    log = Interactions.of(shop.tables["purchases"], events=shop.tables["events"]).log
    start = log["ts"].max().floor("D") - pd.Timedelta(days=35)
    net = replay.cold_model(log, start, seed=1, **SMALL)
    interest, chance, bought = [], [], []
    for night, (_, before, now) in enumerate(replay.steps(log, start)):
        pairs = labels(now, replay._bought_pairs(before))
        asked = pairs["user_id"], pairs["item_id"]
        if night >= WARM_UP:
            interest.append(net.pairs(*asked))
            chance.append(net.purchase_probability(*asked))
            bought.append(pairs["bought"])
        net = net.updated(pairs, night)
    bought = np.concatenate(bought)
    before, after = (
        calibration_error(reliability(np.concatenate(claimed), bought))
        for claimed in (interest, chance)
    )
    record_property("calibration_error", f"{before:.3f} of interest, {after:.3f} of probability")
    with capsys.disabled():
        print(f"\ncalibration error: {before:.3f} of interest, {after:.3f} of the probability")
    assert len(bought) > 2_000
    assert after < 0.1
    assert after < 0.6 * before


def test_one_kind_of_outcome_tells_no_probability() -> None:
    """A shop that keeps receipts only knows nothing of what was passed over."""
    rows = [(user, f"i{n:02d}", 1.0) for user in SHOPPERS for n in range(3)]
    net = PurchaseNet.cold(pd.DataFrame(rows, columns=["user_id", "item_id", "label"]), **SMALL)
    assert np.isnan(net.purchase_probability(["u00"], ["i00"])).all()
    looked = net.updated(views("i01"))
    assert not np.isnan(looked.purchase_probability(["u00", "who"], ["i00", "what"])).any()


def test_years_without_looks_do_not_make_everything_likely(tmp_path: Path) -> None:
    """Outcomes count from the first look on: before it, nothing passed over was logged."""
    rows = [(u, f"i{n:02d}", "purchase", "2024-01-01") for u in SHOPPERS for n in range(15)]
    for place, user in enumerate(SHOPPERS):
        kinds = ["purchase" if (place + n) % 4 == 0 else "view" for n in range(15, 20)]
        rows += [(user, f"i{n:02d}", kind, "2025-01-01") for n, kind in enumerate(kinds, 15)]
    log = pd.DataFrame(rows, columns=["user_id", "item_id", "event_type", "ts"])
    log = log.assign(ts=pd.to_datetime(log["ts"]), event_id=range(len(log)), category="")
    with Queue(tmp_path / "years.db") as queue:
        queue.post(log)
        pairs = queue.read(PAIRS, (2**62,))
    assert pairs["label"].mean() > 0.8
    assert pairs["bought"].notna().sum() == 5 * len(SHOPPERS)
    net = PurchaseNet.cold(pairs, **SMALL)
    assert net.platt.bought + net.platt.passed < 60
    chance = net.purchase_probability(SHOPPERS, ["i17"] * len(SHOPPERS))
    assert 0.1 < chance.mean() < 0.5


def test_saved_and_loaded_the_line_is_the_same_and_nothing_is_pickled(
    net: PurchaseNet, tmp_path: Path
) -> None:
    sha = net.save(tmp_path)
    loaded = PurchaseNet.load(tmp_path, sha)
    assert loaded.platt == net.platt
    assert loaded.updated(views("i05"), 2).platt == net.updated(views("i05"), 2).platt
    with np.load(model_path(tmp_path, sha), allow_pickle=False) as file:
        assert not any(file[name].dtype == object for name in file.files)


def test_a_model_of_an_older_version_is_refused_by_name(net: PurchaseNet, tmp_path: Path) -> None:
    sha = older(tmp_path, net.save(tmp_path))
    path = model_path(tmp_path, sha)
    with pytest.raises(LabError, match=f"{path.name} is of an older version.*train the cold model"):
        PurchaseNet.load(tmp_path, sha)


def older(folder: Path, sha: str) -> str:
    """A model's file as it was before there was a line, under its own digest."""
    with np.load(model_path(folder, sha)) as file:
        arrays = dict(file)
    about = json.loads(arrays["about"].tobytes())
    del about["platt"]
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    digest = sha256(buffer.getvalue()).hexdigest()
    model_path(folder, digest).write_bytes(buffer.getvalue())
    return digest
