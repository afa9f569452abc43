"""What a notebook records of a model: its lists, and how much they depend on the seed."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lab.record import on_validation, record
from lab.scores import recorded
from lab.tuning import over_seeds, tune
from shops import Shop, fold_of

from recsys_utils.data.runs import DEPTH, load_runs, load_validation, seed_spreads
from recsys_utils.models import BPR, OwnPurchases

SMALL = {"factors": 4, "iterations": 5}


def test_the_spread_over_seeds_is_kept_with_the_table(home: Path, shop: Shop) -> None:
    fold = fold_of(shop)
    record(BPR(**SMALL), fold, "bpr", seeds=3)
    precision = [
        tune([BPR(**SMALL, seed=seed)], fold.tuning)["precision@5"][0] for seed in (42, 43, 44)
    ]
    metas = load_runs(fold)[1]
    assert metas.loc["bpr", "seed_spread"]["seeds"] == 3
    assert seed_spreads(metas)["bpr"] == pytest.approx(np.std(precision, ddof=1))
    assert len(set(precision)) > 1


def test_a_model_that_is_fitted_already_is_not_fitted_again(shop: Shop) -> None:
    fold = fold_of(shop)
    fresh, _ = on_validation(BPR(**SMALL), fold.tuning)
    fitted = BPR(**SMALL).fit(fold.tuning.history)
    fitted.user_factors_ = fitted.user_factors_ * 0
    pd.testing.assert_frame_equal(on_validation(BPR(**SMALL), fold.tuning)[0], fresh)
    assert not on_validation(fitted, fold.tuning)[0].equals(fresh)


def test_a_fitted_model_is_the_first_of_the_seeds(shop: Shop) -> None:
    fold = fold_of(shop)
    fresh = on_validation(BPR(**SMALL), fold.tuning, seeds=3)
    fitted = BPR(**SMALL).fit(fold.tuning.history)
    lists, spread = on_validation(fitted, fold.tuning, seeds=3)
    pd.testing.assert_frame_equal(lists, fresh[0])
    assert spread == fresh[1]


def test_a_model_without_a_seed_has_no_spread(home: Path, shop: Shop) -> None:
    fold = fold_of(shop)
    record(OwnPurchases(), fold, "own", seeds=3)
    assert seed_spreads(load_runs(fold)[1]).isna().all()
    assert on_validation(BPR(**SMALL), fold.tuning)[1] == {}


def test_lists_for_the_validation_window_see_nothing_later(home: Path, shop: Shop) -> None:
    """They are those of a model that is fitted on what was before it, and as deep as the test's: a
    choice for new items must find them behind many repeats.
    """
    fold = fold_of(shop)
    model = OwnPurchases()
    record(model, fold, "own")
    [(name, recs)] = load_validation(fold).items()
    assert name == "own"
    stage = fold.tuning
    expected = OwnPurchases().fit(stage.history).recommend(stage.users, DEPTH, stage.exclude)
    ids = ["user_id", "item_id"]
    assert recs[ids].astype(str).equals(expected[ids].astype(str))
    assert recs["score"].equals(expected["score"])
    assert model.as_of == fold.testing.history.as_of


def test_a_model_that_is_judged_again_keeps_its_number_of_tries(shop: Shop) -> None:
    stage = fold_of(shop).tuning
    best = tune([OwnPurchases(days) for days in (30, 90, 365)], stage)["model"][0]
    assert tune([best], stage)["model"][0].tries == 3


def test_tries_are_written_down_with_the_table(home: Path, shop: Shop) -> None:
    """Three settings were judged on validation before one was taken; the other had no rival."""
    fold = fold_of(shop)
    table = tune([OwnPurchases(tau) for tau in (30, 60, 90)], fold.tuning)
    record(table["model"][0], fold, "chosen")
    record(OwnPurchases(), fold, "as_it_is")
    assert load_runs(fold)[1]["tries"].to_dict() == {"as_it_is": 1, "chosen": 3}


def test_rivals_are_those_that_were_recorded(home: Path, shop: Shop) -> None:
    fold = fold_of(shop)
    assert recorded(fold, ["own"]) == {}
    lists = record(OwnPurchases(), fold, "own")
    again = recorded(fold, ["own", "nobody recorded this"])
    assert list(again) == ["own"]
    assert again["own"]["item_id"].astype(str).tolist() == lists["item_id"].astype(str).tolist()


def test_models_over_seeds_are_compared_with_the_first_of_them(shop: Shop) -> None:
    models = {"one": BPR(**SMALL), "same": BPR(**SMALL), "longer": BPR(**SMALL | {"factors": 8})}
    stage = fold_of(shop).tuning
    table = over_seeds(models, stage, seeds=2)
    single = [tune([BPR(**SMALL, seed=seed)], stage)["precision@5"][0] for seed in (42, 43)]
    assert table.loc["one", "precision@5"] == pytest.approx(np.mean(single))
    assert table.loc["one", "spread"] == pytest.approx(np.std(single, ddof=1))
    assert table.loc["same", ["change", "low", "high"]].tolist() == [0, 0, 0]
    longer = table.loc["longer"]
    assert longer["change"] == pytest.approx(longer["precision@5"] - table["precision@5"]["one"])
    assert longer["low"] <= longer["change"] <= longer["high"]
