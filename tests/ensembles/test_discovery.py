"""Features that find new items, by hand and against a slow loop.

That they see nothing from after the cut is tested with the windows of the two-stage model.
"""

import numpy as np
import pandas as pd
import pytest
from shops import Shop, receipts

from recsys_utils.data.interactions import Interactions
from recsys_utils.ensembles.candidates import Candidates
from recsys_utils.ensembles.discovery import PAUSE, Finders, word_vectors
from recsys_utils.ensembles.features import build

NAMES = pd.DataFrame(
    {
        "item_id": ["milk", "bread", "jam", "beer"],
        "name": ["Fresh Milk 1 l", "fresh bread", "Apple JAM", "apple beer!"],
    }
)
GROUPS = (Finders.words, Finders.momentum)


def every_pair(history: Interactions) -> Candidates:
    user, item = np.indices(history.shape, dtype=np.int32)
    return Candidates(user.ravel(), item.ravel(), {})


def some_pairs(history: Interactions, seed: int = 0) -> Candidates:
    rng = np.random.default_rng(seed)
    cells = np.sort(rng.choice(history.shape[0] * history.shape[1], 2_000, replace=False))
    user, item = np.divmod(cells.astype(np.int32), history.shape[1])
    return Candidates(user, item, {})


def at(history: Interactions, values: np.ndarray, user: str, item: str) -> float:
    place = history.user_ids.get_loc(user), history.item_ids.get_loc(item)
    return float(values.reshape(history.shape)[place])


def test_words_that_only_one_item_has_are_left_out(tiny: pd.DataFrame) -> None:
    history = Interactions.of(tiny, NAMES)
    vectors = word_vectors(history)
    assert vectors.shape == (4, 2)  # fresh and apple; case, digits and single letters do not count
    milk, bread = (vectors[history.item_ids.get_loc(item)] for item in ("milk", "bread"))
    assert (milk @ bread.T).toarray() == pytest.approx(1)


def test_a_name_is_compared_with_what_else_the_shopper_bought(tiny: pd.DataFrame) -> None:
    history = Interactions.of(tiny, NAMES)
    values = Finders(history).words(every_pair(history))["words_last"]
    assert at(history, values, "bob", "jam") == pytest.approx(1)  # the last basket is beer
    assert at(history, values, "bob", "milk") == 0
    assert np.isnan(at(history, values, "bob", "beer"))  # nothing else is in it
    assert at(history, values, "ann", "milk") == 0  # itself does not count, jam is not alike
    assert at(history, values, "ann", "bread") == pytest.approx(0.5)  # of milk and jam


@pytest.mark.parametrize("tau", [15, 60, 365])
def test_likeness_is_the_mean_over_other_items_by_recency(shop: Shop, tau: int) -> None:
    """Against a loop over the shopper's receipts."""
    history = shop.history
    pairs = some_pairs(history)
    values = Finders(history).words(pairs)[f"words_{tau}"]
    vectors = word_vectors(history).toarray()
    weights = np.exp(-history.age / tau)
    for n in range(0, len(pairs), 97):
        others = (history.user == pairs.user[n]) & (history.item != pairs.item[n])
        if others.any():
            likeness = vectors[history.item[others]] @ vectors[pairs.item[n]]
            expected = np.average(likeness, weights=weights[others])
            assert values[n] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("items", [None, NAMES.assign(name=["a", "b", "c", "d"])])
def test_without_names_that_share_words_there_are_no_word_features(
    tiny: pd.DataFrame, items: pd.DataFrame | None
) -> None:
    history = Interactions.of(tiny, items)
    assert Finders(history).words(every_pair(history)) == {}
    table = build(every_pair(history), history, discovery=True)
    assert not [name for name in table if name.startswith("words")]


def test_missing_names_are_like_nothing(tiny: pd.DataFrame) -> None:
    items = NAMES.assign(name=["fresh milk", "fresh bread", None, np.nan])
    history = Interactions.of(tiny, items)
    values = Finders(history).words(every_pair(history))["words_60"]
    assert at(history, values, "bob", "jam") == 0
    assert at(history, values, "bob", "milk") > 0


def test_momentum_is_sales_over_what_the_usual_share_lets_expect() -> None:
    rows = [f"u{n} tea b{n} 2024-03-{30 - n} 1 1" for n in range(4)]
    rows += [f"v{n} rum c{n} 2024-02-{10 + n} 1 1" for n in range(4)]
    history = Interactions.of(receipts("\n".join(rows)), as_of=pd.Timestamp("2024-03-31"))
    values = Finders(history).momentum(every_pair(history))
    assert at(history, values["momentum_3"], "u0", "tea") == pytest.approx(
        (3 + 1) / (4 * 3 / 8 + 1)
    )
    assert at(history, values["momentum_3"], "u0", "rum") == pytest.approx(1 / (4 * 3 / 8 + 1))
    assert at(history, values["momentum_found_7"], "u0", "tea") == 1


def test_an_item_is_back_after_a_pause_and_only_then() -> None:
    start = pd.Timestamp("2024-01-01")
    days = {"tea": (0, PAUSE + 5, PAUSE + 7), "rum": (0, PAUSE - 5, PAUSE + 7)}
    rows = [
        f"ann {item} {item}{day} {start + pd.Timedelta(days=day):%Y-%m-%d} 1 1"
        for item, bought in days.items()
        for day in bought
    ]
    history = Interactions.of(
        receipts("\n".join(rows)), as_of=start + pd.Timedelta(days=PAUSE + 10)
    )
    values = Finders(history).momentum(every_pair(history))["momentum_back"]
    assert at(history, values, "ann", "tea") == 5
    assert np.isnan(at(history, values, "ann", "rum"))


@pytest.mark.parametrize("group", GROUPS)
def test_candidates_are_told_apart_whoever_is_asked_with_them(shop: Shop, group: object) -> None:
    """A pair's features are the same alone and among all."""
    pairs = some_pairs(shop.history)
    some = slice(500, 600)
    part = Candidates(pairs.user[some], pairs.item[some], {})
    finders = Finders(shop.history)
    whole = group(finders, pairs)
    for name, value in group(finders, part).items():
        np.testing.assert_allclose(value, whole[name][some], rtol=1e-5, atol=1e-6, err_msg=name)
