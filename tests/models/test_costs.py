"""A model that does not fit the machine says so before it starts."""

import pytest
from lab import tuning
from shops import Shop

from recsys_utils import LabError
from recsys_utils.memory import GIB, available_memory
from recsys_utils.models import ALS, EASE, Popular, TwoTower
from recsys_utils.models.costs import TooLarge


def test_the_memory_of_ease_grows_with_the_square_of_the_items() -> None:
    assert EASE().memory(1, 27_000, 1) > 24 * GIB
    assert EASE().memory(0, 20_000, 0) == 4 * EASE().memory(0, 10_000, 0)


def test_every_model_knows_what_it_needs(shop: Shop) -> None:
    users, items = shop.history.shape
    for model in (Popular(), ALS(factors=8), TwoTower(dim=8)):
        needed = model.memory(users, items, len(shop.history.purchases))
        assert 0 < needed < GIB
        assert model.memory(users, items, 10**9) > 100 * GIB


def test_ease_is_left_out_by_name_where_memory_is_short(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSYS_MEMORY", "0.000001")
    with pytest.raises(TooLarge, match="EASE is left out: it needs about .* GiB for .* items and"):
        EASE().fit(shop.history)
    monkeypatch.delenv("RECSYS_MEMORY")
    EASE().fit(shop.history)


def test_the_memory_there_is_may_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert available_memory() > GIB // 10
    monkeypatch.setenv("RECSYS_MEMORY", "1.5")
    assert available_memory() == 1.5 * GIB
    monkeypatch.setenv("RECSYS_MEMORY", "much")
    with pytest.raises(LabError, match="RECSYS_MEMORY=much .* is no number above 0"):
        available_memory()


def test_tuning_goes_on_without_what_does_not_fit(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    enough = Popular().memory(*shop.history.shape, len(shop.history.purchases))
    monkeypatch.setenv("RECSYS_MEMORY", str(1.01 * enough / GIB))
    table = tuning.tune([EASE()], shop.stage)
    assert table.empty
    assert "EASE is left out" in table.attrs["left_out"]
    assert len(tuning.tune([EASE(), Popular()], shop.stage)) == 1
