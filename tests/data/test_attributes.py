"""Attributes as features: blocks, unknown values, numbers and words, worked by hand."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shops import Shop

from recsys_utils.data.attributes import blocks, codes, hot, known, text, vocabulary
from recsys_utils.data.folds import Stage
from recsys_utils.data.interactions import Interactions

FRAME = pd.DataFrame(
    {
        "segment": ["a", "b", "a", None],
        "visits": [1, 2, np.nan, 3],
        "name": ["Red tea cup", "red cup", "x", None],
    },
    index=list("uvwx"),
)
VOCAB = [
    "segment=",
    "segment=a",
    "segment=b",
    "visits=",
    "visits=1",
    "visits=2",
    "visits=3",
    "name~cup",
    "name~red",
]


@pytest.mark.spec("S1-08")
def test_blocks_begin_with_the_unknown_and_follow_the_columns() -> None:
    vocab = vocabulary(FRAME, ["segment", "visits"], ["name"])
    assert vocab.tolist() == VOCAB
    assert blocks(vocab) == {"segment": slice(0, 3), "visits": slice(3, 7), "name~": slice(7, 9)}


@pytest.mark.spec("S1-11")
def test_values_that_are_missing_or_new_take_the_unknown_column() -> None:
    vocab = vocabulary(FRAME, ["segment", "visits"], ["name"])
    assert codes(FRAME, vocab).tolist() == [[1, 4], [2, 5], [1, 3], [0, 6]]
    stranger = pd.DataFrame({"segment": ["z", "", "b"], "name": ["cup CUP", "", "tea"]})
    assert codes(stranger, vocab).tolist() == [[0, 3], [0, 3], [2, 3]]
    assert hot(stranger, vocab).toarray().tolist() == [
        [1, 0, 0, 1, 0, 0, 0, 1, 0],
        [1, 0, 0, 1, 0, 0, 0, 0, 0],
        [0, 0, 1, 1, 0, 0, 0, 0, 0],
    ]
    assert known(stranger, vocab).tolist() == [True, False, True]


def test_large_numbers_keep_every_digit() -> None:
    """Ids that a missing value has turned into floats must not become one another."""
    assert text(pd.Series([1234567.0, 1234568.0, None, 3.0, 2.5, 3])).tolist() == [
        "1234567",
        "1234568",
        "",
        "3",
        "2.5",
        "3",
    ]
    assert text(pd.Series(["", " a ", None, "3.0"])).tolist() == ["", "a", "", "3.0"]


def test_numbers_are_cut_at_their_quintiles() -> None:
    vocab = vocabulary(pd.DataFrame({"age": np.arange(100)}))
    assert vocab.tolist() == ["age=", "age≥0", "age≥19.8", "age≥39.6", "age≥59.4", "age≥79.2"]
    assert codes(
        pd.DataFrame({"age": [-5, 0, 50, 1_000, None, "old"]}), vocab
    ).ravel().tolist() == [1, 1, 3, 5, 0, 0]


def test_columns_that_say_nothing_are_left_out() -> None:
    frame = pd.DataFrame(
        {"id": [f"i{i}" for i in range(20)], "same": "x", "country": ["UK", "FR"] * 10}
    )
    assert list(blocks(vocabulary(frame))) == ["country"]
    assert not len(vocabulary(frame, []))
    assert hot(frame, vocabulary(frame, [])).shape == (20, 0)


@pytest.mark.spec("S1-08")
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "a", "b", "=", "~", "≥"]), st.one_of(st.none(), st.integers(0, 3))
        ),
        min_size=1,
    )
)
def test_exactly_one_1_per_block_whatever_the_values(rows: list) -> None:
    frame = pd.DataFrame(rows, columns=["kind", "level"])
    vocab = vocabulary(frame, ["kind", "level"])
    result = hot(frame, vocab).toarray()
    assert all((result[:, place].sum(axis=1) == 1).all() for place in blocks(vocab).values())
    assert (result[np.arange(len(frame))[:, None], codes(frame, vocab)] == 1).all()


def test_items_on_sale_that_nobody_bought_are_numbered_last_and_profiles_are_at_hand(
    shop: Shop,
) -> None:
    rows = shop.history.purchases
    data = Interactions.of(
        rows,
        shop.tables["items"],
        shop.tables["users"],
        shop.history.as_of,
        pd.Series(["zzz", *rows["item_id"].unique()]),
    )
    assert data.item_ids[-1] == "zzz"
    assert data.sold.sum() == len(data.item_ids) - 1 == len(shop.history.item_ids)
    assert data.items.loc["zzz"].isna().all()
    assert np.array_equal(data.item, shop.history.item)
    assert Stage(data, shop.truth).profiles is None
