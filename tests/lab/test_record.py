"""What a notebook records of a model: its lists, and how much they depend on the seed."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lab.record import on_validation, record
from lab.tuning import tune
from shops import Shop, fold_of

from recsys_utils.data.runs import load_runs, load_validation, seed_spreads
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


def test_a_model_without_a_seed_has_no_spread(home: Path, shop: Shop) -> None:
    fold = fold_of(shop)
    record(OwnPurchases(), fold, "own", seeds=3)
    assert seed_spreads(load_runs(fold)[1]).isna().all()
    assert on_validation(BPR(**SMALL), fold.tuning)[1] == {}


def test_lists_for_the_validation_window_see_nothing_later(home: Path, shop: Shop) -> None:
    """They are those of a model that is fitted on what was before it, and are kept for the fold."""
    fold = fold_of(shop)
    model = OwnPurchases()
    record(model, fold, "own")
    [(name, recs)] = load_validation(fold).items()
    assert name == "own"
    stage = fold.tuning
    expected = OwnPurchases().fit(stage.history).recommend(stage.users, 20, stage.exclude)
    ids = ["user_id", "item_id"]
    assert recs[ids].astype(str).equals(expected[ids].astype(str))
    assert recs["score"].equals(expected["score"])
    assert model.as_of == fold.testing.history.as_of
