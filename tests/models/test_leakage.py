"""Whatever happens after the cut, everything fitted before it stays the same to the last byte."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lab.eda import spending_segments
from shops import Shop
from test_models import concrete, make

from recsys_utils import LabError
from recsys_utils.data.folds import Fold, Stage, load_fold, write_folds
from recsys_utils.data.interactions import Interactions
from recsys_utils.data.prefilter import Rules, prefilter
from recsys_utils.models.popularity import Popular
from recsys_utils.store import read_json

RULES = Rules(min_category_items=5, max_user_share=0.6, min_price=1.5, top=150)
NOW = ["user_id", "item_id", "quantity", "price", "category", "country", "ts"]
TOML = """
title = "a shop whose rows hold everything"
[purchases]
files = ["rows.parquet"]
[purchases.columns]
user_id = "user_id"
item_id = "item_id"
basket_id = "basket_id"
ts = "ts"
quantity = "quantity"
price = "price"
[items.columns]
item_id = "item_id"
category = "category"
[users.columns]
user_id = "user_id"
country = "country"
"""


@pytest.fixture(scope="module")
def rows(shop: Shop) -> pd.DataFrame:
    """Raw lines by date with the attributes in them, as in Online Retail."""
    lines = (
        shop.tables["purchases"]
        .merge(shop.tables["items"][["item_id", "category"]])
        .merge(shop.tables["users"][["user_id", "country"]])
    )
    return lines.sort_values(["ts", "user_id", "item_id"], ignore_index=True)


def scrambled(rows: pd.DataFrame, cut: pd.Timestamp, seed: int) -> pd.DataFrame:
    """Users, items, prices, quantities, attributes and times after the cut, each dealt again.

    A tenth of it is unheard of.
    """
    rng = np.random.default_rng(seed)
    late = np.flatnonzero(rows["ts"] >= cut)
    result = rows.copy()
    for column in NOW:
        result.loc[late, column] = rows[column].to_numpy()[rng.permutation(late)]
    result.loc[late[::10], "item_id"] = "brand-new"
    result.loc[late[5::10], "user_id"] = "stranger"
    result.loc[late, "price"] *= 100
    return result


def folded(home: Path, rows: pd.DataFrame) -> Fold:
    rows.to_parquet(home / "rows.parquet")
    (home / "corner.toml").write_text(TOML)
    write_folds(str(home / "corner.toml"))
    return load_fold(str(home / "corner.toml"))


def lines(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.astype({name: str for name in frame if name.endswith("_id")})


def check_same_past(before: Stage, after: Stage, folder: Path) -> None:
    """History, catalogue, segments and every model's saved arrays."""
    a = before.history
    b = after.history
    pd.testing.assert_frame_equal(lines(a.purchases), lines(b.purchases))
    pd.testing.assert_frame_equal(a.items, b.items)
    pd.testing.assert_frame_equal(a.users, b.users)
    assert a.as_of == b.as_of
    assert a.item_ids.equals(b.item_ids)
    assert spending_segments(a).equals(spending_segments(b))
    catalogues, funnels = zip(
        *(prefilter(data.purchases, data.items.reset_index(), RULES) for data in (a, b))
    )
    assert len(catalogues[0]) > 20
    assert catalogues[0].equals(catalogues[1])
    pd.testing.assert_frame_equal(*funnels)
    for name in concrete():
        digests = {
            read_json(make(name).fit(data).save(folder / f"{name}-{i}") / "manifest.json")[
                "sha256"
            ]["arrays.npz"]
            for i, data in enumerate((a, b))
        }
        assert len(digests) == 1, f"{name} has seen the future"


@pytest.mark.spec("C2")
@pytest.mark.parametrize("seed", [1, 2])
def test_a_scrambled_test_window_changes_nothing_that_was_fitted(
    home: Path, rows: pd.DataFrame, seed: int
) -> None:
    before = folded(home, rows)
    after = folded(home, scrambled(rows, pd.Timestamp(before.borders["test"]), seed))
    assert before.borders == after.borders
    assert before.hash != after.hash
    assert len(before.test)
    assert not lines(before.test).equals(lines(after.test))
    check_same_past(before.testing, after.testing, home / "models")
    pd.testing.assert_frame_equal(lines(before.tuning.truth), lines(after.tuning.truth))


@pytest.mark.spec("C2")
def test_a_scrambled_end_of_validation_changes_nothing_that_was_tuned_on(
    home: Path, rows: pd.DataFrame
) -> None:
    before = folded(home, rows)
    after = folded(home, scrambled(rows, pd.Timestamp(before.borders["tuning"]), 3))
    assert before.borders == after.borders
    assert not lines(before.tuning.truth).equals(lines(after.tuning.truth))
    check_same_past(before.tuning, after.tuning, home / "models")


@pytest.mark.spec("C2")
def test_the_check_would_notice(home: Path, rows: pd.DataFrame) -> None:
    """Scrambling starts three days before the cut.

    History and models differ, so the tests above are able to fail.
    """
    before = folded(home, rows)
    after = folded(
        home, scrambled(rows, pd.Timestamp(before.borders["test"]) - pd.Timedelta(days=3), 4)
    )
    with pytest.raises(AssertionError):
        check_same_past(before.testing, after.testing, home / "models")


@pytest.mark.spec("C2")
def test_attributes_come_from_the_past_whatever_the_order_of_the_file(
    home: Path, rows: pd.DataFrame
) -> None:
    """In a file with the newest lines first, a line of the test window must not say what an item's
    category was.
    """
    newest_first = rows.iloc[::-1].reset_index(drop=True)
    before = folded(home, newest_first)
    renamed = newest_first.assign(
        category=newest_first["category"].where(
            newest_first["ts"] < pd.Timestamp(before.borders["test"]), "renamed"
        )
    )
    after = folded(home, renamed)
    pd.testing.assert_frame_equal(before.testing.history.items, after.testing.history.items)


@pytest.mark.spec("C2")
def test_unknown_items_of_the_future_are_in_no_catalogue(home: Path, rows: pd.DataFrame) -> None:
    first = folded(home, rows)
    fold = folded(home, scrambled(rows, pd.Timestamp(first.borders["test"]), 1))
    assert "brand-new" in set(fold.test["item_id"])
    assert "brand-new" not in fold.testing.history.item_ids
    assert "stranger" in fold.testing.users
    assert "stranger" not in fold.testing.history.user_ids
    served = Popular().fit(fold.testing.history).recommend(["stranger"], 10_000)
    assert "brand-new" not in set(served["item_id"].astype(str))


@pytest.mark.parametrize(
    "what",
    [lambda d: d.recent, lambda d: d.price, lambda d: d.item_ids],
    ids=["popularity", "price", "order of items"],
)
def test_trap_popularity_and_prices_see_train_only(
    shop: Shop, what: Callable[[Interactions], object]
) -> None:
    """They would differ if the test window were in: leaking it could not go unnoticed."""
    both = pd.concat([shop.history.purchases, shop.truth], ignore_index=True)
    with pytest.raises(LabError, match="after as_of"):
        Interactions.of(both, as_of=shop.history.as_of)
    leaky = Interactions.of(both)
    assert not np.array_equal(np.asarray(what(leaky)), np.asarray(what(shop.history)))
