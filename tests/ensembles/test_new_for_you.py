"""A list that promises new items: by hand, and on every shopper of the synthetic shop."""

import pandas as pd
import pytest
from shops import Shop, ranked

from recsys_utils import LabError
from recsys_utils.data.interactions import Interactions
from recsys_utils.ensembles.new_for_you import with_new
from recsys_utils.evaluation.slices import bought_before
from recsys_utils.models import ItemCF, Popular


def items(recs: pd.DataFrame, user: str) -> list[str]:
    return recs[recs["user_id"] == user].sort_values("rank")["item_id"].tolist()


@pytest.fixture
def history(tiny: pd.DataFrame) -> Interactions:
    return Interactions.of(tiny)


BEST = ranked([("ann", "milk"), ("ann", "beer"), ("ann", "jam"), ("ann", "bread")])
NEW = ranked([("ann", "beer"), ("ann", "milk"), ("ann", "tea"), ("ann", "rum"), ("eve", "tea")])


def test_what_was_bought_and_stands_lowest_makes_room(history: Interactions) -> None:
    """Beer is new already; of the new list milk was bought, so tea is the first to come."""
    assert items(with_new(BEST, NEW, history, 1, 3), "ann") == ["milk", "beer", "jam"]
    assert items(with_new(BEST, NEW, history, 2, 3), "ann") == ["milk", "beer", "tea"]
    assert items(with_new(BEST, NEW, history, 3, 3), "ann") == ["beer", "tea", "rum"]


def test_a_promise_is_kept_as_far_as_there_are_new_items(history: Interactions) -> None:
    few = NEW[NEW["item_id"] != "rum"]
    assert items(with_new(BEST, few, history, 3, 3), "ann") == ["milk", "beer", "tea"]
    assert items(with_new(BEST, few[:0], history, 3, 3), "ann") == ["milk", "beer", "jam"]


def test_nothing_leaves_a_list_that_has_room(history: Interactions) -> None:
    wanted = ["milk", "beer", "jam", "bread", "tea", "rum"]
    assert items(with_new(BEST, NEW, history, 3, 6), "ann") == wanted
    assert items(with_new(BEST, NEW, history, 3, 5), "ann") == ["milk", "beer", "jam", "tea", "rum"]


def test_only_shoppers_with_a_list_get_one(history: Interactions) -> None:
    assert set(with_new(BEST, NEW, history, 2, 3)["user_id"]) == {"ann"}


@pytest.mark.parametrize("n", [-1, 4])
def test_more_new_items_than_places_are_refused(history: Interactions, n: int) -> None:
    with pytest.raises(LabError, match="between 0 and 3"):
        with_new(BEST, NEW, history, n, 3)


@pytest.mark.parametrize("n", range(6))
def test_every_list_keeps_its_length_and_its_promise(shop: Shop, n: int) -> None:
    history = shop.history
    best = Popular(28).fit(history).recommend(shop.stage.users, 10)
    new = ItemCF().fit(history).recommend(shop.stage.users, 30, "bought")
    recs = with_new(best, new, history, n, 5)
    assert not recs.duplicated(["user_id", "item_id"]).any()
    assert (recs["user_id"].value_counts() == 5).all()
    assert recs.groupby("user_id")["rank"].apply(list).map(lambda x: x == [1, 2, 3, 4, 5]).all()
    fresh = recs.assign(new=~bought_before(recs, history)).groupby("user_id")["new"].sum()
    assert (fresh >= n).all()
