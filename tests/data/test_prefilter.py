"""The prefilter's business rules: each threshold at its border, the funnel, and the fake item."""

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shops import Shop, receipts

from recsys_utils import LabError
from recsys_utils.data.interactions import Interactions
from recsys_utils.data.prefilter import OTHER, Rules, prefilter, relabel, rules_of
from recsys_utils.data.registry import spec
from recsys_utils.models import OwnPurchases, Popular

OFF = dict.fromkeys(Rules.__dataclass_fields__)
NO_ITEMS = pd.DataFrame({"item_id": ["milk"]})


def kept(purchases: pd.DataFrame, items: pd.DataFrame = NO_ITEMS, **rules: float) -> set[str]:
    return set(prefilter(purchases, items, Rules(**OFF | rules))[0])


def lines(*rows: str) -> pd.DataFrame:
    """Purchases from `user item day quantity price`, each its own basket."""
    return receipts(
        "\n".join(
            f"{u} {i} b{n} {rest}"
            for n, (u, i, rest) in enumerate(row.split(maxsplit=2) for row in rows)
        )
    )


def shares(**buyers: int) -> pd.DataFrame:
    """100 users who all bought `base`; each further item has the given number of buyers."""
    return lines(
        *(
            f"u{n} {item} 2024-01-01 1 5"
            for item, count in {"base": 100, **buyers}.items()
            for n in range(count)
        )
    )


def test_no_rules_keep_everything(tiny: pd.DataFrame) -> None:
    assert kept(tiny) == {"milk", "bread", "jam", "beer"}


@pytest.mark.spec("S3-03")
def test_a_year_without_a_sale_is_too_long() -> None:
    """Last sale < last day − 365 is dropped, whatever the hour."""
    rows = lines("u now 2024-12-31 1 5", "u year 2024-01-01 1 5", "u older 2023-12-31 1 5")
    rows["ts"] += pd.to_timedelta([0, 0, 23], unit="h")
    assert kept(rows, sold_within_days=365) == {"now", "year"}


@pytest.mark.spec("S3-03")
def test_the_last_sale_counts_not_the_first() -> None:
    assert "x" in kept(lines("u x 2020-01-01 1 5", "u x 2024-12-31 1 5"), sold_within_days=365)


@pytest.mark.spec("S3-04")
def test_more_than_a_fifth_of_the_users_is_too_popular() -> None:
    assert kept(shares(edge=20, over=21), max_user_share=0.20) == {"edge"}


@pytest.mark.spec("S3-05")
def test_less_than_two_percent_is_too_unpopular() -> None:
    assert kept(shares(edge=2, under=1), min_user_share=0.02) == {"base", "edge"}


@pytest.mark.spec("S3-04")
def test_shares_are_of_users_not_of_lines() -> None:
    rows = pd.concat([shares(), lines(*(f"u0 often 2024-01-0{d} 1 5" for d in range(1, 10)))])
    assert kept(rows, max_user_share=0.05) == {"often"}


@pytest.mark.spec("S3-06")
def test_a_category_needs_enough_items(tiny: pd.DataFrame) -> None:
    items = pd.DataFrame(
        {"item_id": ["milk", "bread", "jam", "beer"], "category": ["food", "food", "food", "drink"]}
    )
    assert kept(tiny, items, min_category_items=3) == {"milk", "bread", "jam"}
    assert kept(tiny, items, min_category_items=4) == set()


@pytest.mark.spec("S3-06")
def test_without_categories_the_rule_is_left_out(tiny: pd.DataFrame) -> None:
    catalogue, funnel = prefilter(tiny, NO_ITEMS, Rules(**OFF | {"min_category_items": 150}))
    assert len(catalogue) == 4
    assert funnel["rule"].tolist() == ["all items"]


@pytest.mark.spec("S3-06")
def test_an_item_of_unknown_category_is_kept(tiny: pd.DataFrame) -> None:
    items = pd.DataFrame(
        {"item_id": ["milk", "bread", "jam"], "category": ["food", "food", "food"]}
    )
    assert kept(tiny, items, min_category_items=3) == {"milk", "bread", "jam", "beer"}


@pytest.mark.spec("S3-07", "S3-08")
@pytest.mark.parametrize(
    ("rule", "gone"), [({"min_price": 1.0}, "cheap"), ({"max_price": 30.0}, "dear")]
)
def test_the_median_price_counts_and_the_border_stays(rule: dict, gone: str) -> None:
    rows = lines(
        *(
            f"u{n} {item} 2024-01-01 1 {price}"
            for item, prices in {
                "cheap": (0.99, 0.99, 50),
                "one": (0.5, 1, 9),
                "thirty": (1, 30, 99),
                "dear": (30.01, 30.01, 1),
            }.items()
            for n, price in enumerate(prices)
        )
    )
    assert kept(rows, **rule) == {"cheap", "one", "thirty", "dear"} - {gone}


@pytest.mark.spec("S3-07", "S3-08")
def test_without_prices_the_rules_are_left_out(tiny: pd.DataFrame) -> None:
    assert len(kept(tiny.drop(columns="price"), min_price=1, max_price=30)) == 4


@pytest.mark.spec("S3-09")
def test_top_sellers_by_units_after_the_other_rules() -> None:
    rows = lines(
        "u cheap 2024-01-01 99 0.1",
        "u a 2024-01-01 9 5",
        "u b 2024-01-01 2 5",
        "v b 2024-01-01 2 5",
        "u c 2024-01-01 4 5",
    )
    assert kept(rows, min_price=1, top=2) == {"a", "b"}  # b and c: 4 units each, b has more buyers


@pytest.mark.spec("S3-09")
def test_units_then_id_break_ties() -> None:
    assert kept(lines("u b 2024-01-01 1 5", "u a 2024-01-01 1 5"), top=1) == {"a"}


@pytest.mark.spec("S3-09")
def test_the_funnel_counts_items_users_lines_and_money(tiny: pd.DataFrame) -> None:
    _, funnel = prefilter(tiny, NO_ITEMS, Rules(**OFF | {"min_price": 1.5, "max_price": 3.0}))
    assert funnel["rule"].tolist() == ["all items", "not too cheap", "not too expensive"]
    assert funnel["items"].tolist() == [4, 3, 2]
    assert funnel["users"].tolist() == [3, 3, 2]
    assert funnel["lines"].tolist() == [10, 6, 4]
    assert funnel["money"].tolist() == [39.0, 34.0, 22.0]


@pytest.mark.spec("S3-09")
def test_the_funnel_of_the_defaults_only_narrows(shop: Shop) -> None:
    catalogue, funnel = prefilter(
        shop.history.purchases,
        shop.tables["items"],
        Rules(min_category_items=10, max_user_share=0.5),
    )
    assert 0 < len(catalogue) == funnel["items"].iloc[-1]
    assert len(funnel) == 8
    assert all(
        funnel[column].is_monotonic_decreasing for column in ("items", "users", "lines", "money")
    )


@pytest.mark.spec("C4")
@settings(max_examples=15, deadline=None)
@given(st.randoms())
def test_rows_in_another_order_give_the_same_catalogue(random) -> None:
    rows = lines(
        *(
            f"u{random.randrange(5)} i{random.randrange(12)} 2024-01-0{random.randint(1, 9)}"
            f" {random.randint(1, 2)} 5"
            for _ in range(30)
        )
    )
    assert kept(rows, top=5) == kept(rows.sample(frac=1, random_state=1), top=5)


def test_categories_of_pandas_are_read(tiny: pd.DataFrame) -> None:
    rows = tiny.astype({"user_id": "category", "item_id": "category"})
    assert kept(rows[rows["item_id"] != "milk"], top=9) == {"bread", "jam", "beer"}


@pytest.mark.parametrize(
    "name", ["sold_within_days", "max_user_share", "min_category_items", "max_price", "top"]
)
def test_a_negative_threshold_is_named(name: str) -> None:
    with pytest.raises(LabError, match=name):
        Rules(**{name: -1})


def test_trap_the_catalogue_sees_train_only(shop: Shop) -> None:
    """Sales of the test window alone would bring an item in or push it out."""
    first = prefilter(shop.history.purchases, shop.tables["items"], Rules(**OFF | {"top": 50}))[0]
    all_weeks = prefilter(
        shop.tables["purchases"].assign(
            quantity=lambda t: t["quantity"].where(t["ts"] < shop.borders["test"], 1_000)
        ),
        shop.tables["items"],
        Rules(**OFF | {"top": 50}),
    )[0]
    assert not first.equals(all_weeks)
    assert set(first) <= set(shop.history.item_ids)


# ---- the fake item


@pytest.mark.spec("S3-10")
def test_purchases_outside_are_relabelled_and_stay_history(tiny: pd.DataFrame) -> None:
    result = relabel(tiny.astype({"item_id": "category"}), pd.Index(["milk", "jam"]))
    assert len(result) == len(tiny)
    assert set(result["item_id"]) == {"milk", "jam", OTHER}
    assert (result["item_id"] == OTHER).sum() == tiny["item_id"].isin(["bread", "beer"]).sum()
    assert result.drop(columns="item_id").equals(tiny.drop(columns="item_id"))


@pytest.mark.spec("S3-10")
@pytest.mark.parametrize("model", [Popular(), OwnPurchases()])
def test_the_fake_item_is_never_recommended_where_it_is_excluded(tiny: pd.DataFrame, model) -> None:
    data = Interactions.of(relabel(tiny, pd.Index(["milk", "jam"])))
    assert OTHER in data.item_ids
    result = model.fit(data).recommend(data.user_ids, 9, exclude=[OTHER])
    assert set(result["item_id"]) == {"milk", "jam"}


def test_a_shop_sets_its_own_thresholds_and_a_run_comes_first(tmp_path: Path) -> None:
    toml = tmp_path / "shop.toml"
    toml.write_text("synthetic = true\n[prefilter]\nmin_user_share = 0.01\ntop = false\n")
    rules = rules_of(spec(str(toml)), 5_000)
    assert (rules.min_user_share, rules.top, rules.max_price) == (0.01, None, 30)
    assert rules.min_category_items == 100  # a fiftieth of the catalogue
    again = rules_of(spec(str(toml)), 5_000, min_user_share=0.05, max_price=False, top=None)
    assert (again.min_user_share, again.max_price, again.top) == (0.05, None, None)
    assert rules_of(spec("synthetic"), 10**6) == Rules()
    toml.write_text("synthetic = true\n[prefilter]\nmin_price = 0\n")
    assert rules_of(spec(str(toml)), 5_000).min_price == 0


@pytest.mark.parametrize("line", ["minimum = 3", "min_price = 'cheap'", "top = true"])
def test_an_unknown_or_odd_threshold_is_named(tmp_path: Path, line: str) -> None:
    toml = tmp_path / "shop.toml"
    toml.write_text(f"synthetic = true\n[prefilter]\n{line}\n")
    with pytest.raises(LabError, match=rf"shop.toml: \[prefilter\] .*{line.split()[0]}"):
        spec(str(toml))
