"""What a notebook records of a model: its lists, and how much they depend on the seed."""

from pathlib import Path

import numpy as np
import pytest
from lab.record import record, seed_spread
from lab.tuning import tune
from shops import Shop, fold_of

from recsys_utils.data.runs import load_runs, seed_spreads
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
    fresh = seed_spread(BPR(**SMALL), fold.tuning)
    assert seed_spread(BPR(**SMALL).fit(fold.tuning.history), fold.tuning) == fresh


def test_a_model_without_a_seed_has_no_spread(home: Path, shop: Shop) -> None:
    fold = fold_of(shop)
    record(OwnPurchases(), fold, "own", seeds=3)
    assert seed_spreads(load_runs(fold)[1]).isna().all()
    assert seed_spread(BPR(**SMALL), fold.tuning, seeds=0) == {}
