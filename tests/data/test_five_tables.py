"""Five files through `data/five_tables.example.toml`.

Joined by id, counted, nothing multiplied or made up.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recsys_utils import LabError
from recsys_utils.data import tables
from recsys_utils.data.attributes import blocks, hot, vocabulary
from recsys_utils.data.interactions import Interactions
from recsys_utils.models import PreferencePairs
from recsys_utils.models.preference_pairs import METADATA
from recsys_utils.models.preferences import preferences

EXAMPLE = Path(__file__).parents[2] / "data" / "five_tables.example.toml"
FILES = {
    "clients.csv": (
        """ClientID,ClientSegment,ClientCountry,ClientGender,Age
007,LOYAL,FRA,F,34
8,TOP,BRA,M,200
9,,DEU,C,
10,PROSPECT,,,-3
8,INACTIVE_1Y,BRA,M,41
"""
    ),
    "products.csv": (
        """ProductID,Category,FamilyLevel1,FamilyLevel2
P1,Power,Chargers,Cheap
P2,Power,Chargers,Premium
P3,Ball sports,Football,
P1,Power,Chargers,Cheap
P4,Ball sports,Football,Balls
"""
    ),
    "stocks.csv": (
        """StoreCountry,ProductID,Quantity
FRA,P1,5
BRA,P1,0
DEU,P1,7
FRA,P2,1.0
"""
    ),
    "stores.csv": "StoreID,StoreCountry\nS1,FRA\nS2,BRA\n",
    "transactions.csv": (
        """ClientID,ProductID,StoreID,SaleTransactionDate,Quantity,SalesNetAmountEuro
007,P1,S1,2024-01-01 10:00:00,12,60
007,P2,S1,2024-01-02 10:00:00,3,120
8,P1,S2,2024-01-03 10:00:00,2,10
8,P3,S2,2024-01-03 10:00:00,1,25
8,P3,S2,2024-01-04 10:00:00,-1,-25
9,P2,S1,2024-01-05 10:00:00,1,40
9,P2,S1,2024-01-05 10:00:00,0,0
10,P3,S9,2024-01-06 10:00:00,1,25
11,P1,S1,2024-01-07 10:00:00,1,5
"""
    ),
}
Load = Callable[..., tables.Tables]


@pytest.fixture
def load(home: Path) -> Load:
    """Write the five files, some of them changed, beside the example and load them."""

    def load_changed(**changed: str) -> tables.Tables:
        for name, text in (FILES | {f"{stem}.csv": text for stem, text in changed.items()}).items():
            (home / name).write_text(text)
        shutil.copy(EXAMPLE, home / "corner.toml")
        return tables.load(str(home / "corner.toml"))

    return load_changed


def interactions(made: tables.Tables) -> Interactions:
    return Interactions.of(made.purchases, made.items, made.users)


@pytest.mark.spec("S1-02")
def test_merging_keeps_every_line_and_no_quantity_is_multiplied(load: Load) -> None:
    """P1 has three rows of stock and two of products, client 8 two rows.

    A careless join would count them all.
    """
    result = load()
    assert len(result.purchases) == 7
    assert result.purchases["quantity"].sum() == 12 + 3 + 2 + 1 + 1 + 1 + 1
    joined = result.purchases.merge(result.users, on="user_id", how="left", validate="m:1").merge(
        result.items, on="item_id", how="left", validate="m:1"
    )
    assert len(joined) == len(result.purchases)
    assert joined["quantity"].sum() == result.purchases["quantity"].sum()
    assert (result.purchases["quantity"] * result.purchases["price"]).sum() == pytest.approx(
        60 + 120 + 10 + 25 + 40 + 25 + 5
    )


@pytest.mark.spec("S1-02")
def test_a_repeated_client_or_product_is_one_row_and_its_first_value_stays(
    load: Load,
) -> None:
    result = load()
    assert not result.users["user_id"].duplicated().any()
    assert not result.items["item_id"].duplicated().any()
    assert result.users.set_index("user_id").loc["8", ["segment", "country"]].tolist() == [
        "TOP",
        "BRA",
    ]
    again = load(
        transactions=FILES["transactions.csv"], stocks=FILES["stocks.csv"] + "GBR,P1,9\nGBR,P2,9\n"
    )
    pd.testing.assert_frame_equal(again.purchases, result.purchases)


@pytest.mark.spec("S1-02")
def test_ids_stay_text_and_lines_of_unknown_clients_and_stores_stay(load: Load) -> None:
    result = load()
    assert {"007", "11"} <= set(result.purchases["user_id"].astype(str))
    assert "S9" in set(result.purchases["store_id"].astype(str))
    stranger = result.users.set_index("user_id").loc["11"]
    assert stranger[["segment", "country", "gender", "age"]].isna().all()


@pytest.mark.spec("S1-02")
def test_returns_and_zeros_are_rejected_and_counted(load: Load) -> None:
    audit = load().audit.query("table == 'purchases'").set_index("rule")
    assert audit.loc["quantity not above 0", "rows"] == 2
    assert audit.loc["kept", "rows"] == 7
    assert audit.loc["kept", "money"] == 285


@pytest.mark.spec("S1-02")
def test_a_copy_of_a_line_is_dropped_and_counted_with_its_money(home: Path, load: Load) -> None:
    """With drop_copies duplicates go; without drop_copies equal lines are two scans and add up."""
    twice = FILES["transactions.csv"] + "11,P1,S1,2024-01-07 10:00:00,1,5\n"
    result = load(transactions=twice)
    assert result.purchases.set_index("user_id").loc["11", "quantity"] == 1
    audit = result.audit.query("table == 'purchases'").set_index("rule")
    assert audit.loc["copy of another line", ["rows", "money"]].tolist() == [1, 5]
    assert audit.loc["kept", "rows"] == 7
    (home / "corner.toml").write_text(EXAMPLE.read_text().replace("drop_copies = true", ""))
    assert (
        tables.load(str(home / "corner.toml")).purchases.set_index("user_id").loc["11", "quantity"]
        == 2
    )


@pytest.mark.spec("S1-02")
def test_stores_join_on_their_id(home: Path, load: Load) -> None:
    result = load(stores="StoreID,StoreCountry\nS1,FRA\nS1,DEU\nS2,BRA\n")
    assert result.stores.set_index("store_id")["country"].dropna().to_dict() == {
        "S1": "FRA",
        "S2": "BRA",
    }
    assert len(
        result.purchases.merge(result.stores, on="store_id", how="left", validate="m:1")
    ) == len(result.purchases)
    (home / "corner.toml").write_text(EXAMPLE.read_text().replace('store_id = "StoreID"\nts', "ts"))
    with pytest.raises(
        LabError, match=r"\[stores\] of 'corner' has nothing to join on: map store_id"
    ):
        tables.load(str(home / "corner.toml"))


@pytest.mark.spec("S1-02")
def test_products_that_nobody_bought_are_on_sale(load: Load) -> None:
    assert load().items.set_index("item_id").loc["P4", "name"] == "Balls"


@pytest.mark.spec("S1-25")
def test_stock_is_by_country_and_separate(load: Load) -> None:
    stock = load().stock.set_index(["item_id", "country"])["quantity"]
    assert stock.to_dict() == {
        ("P1", "BRA"): 0,
        ("P1", "DEU"): 7,
        ("P1", "FRA"): 5,
        ("P2", "FRA"): 1,
    }


@pytest.mark.spec("S1-09")
def test_ages_out_of_range_are_unknown_and_age_is_no_feature(load: Load) -> None:
    result = load()
    ages = result.users.set_index("user_id")["age"]
    assert ages["007"] == 34
    assert ages[["9", "10", "11"]].isna().all()
    # Of two rows that contradict one another the first counts, and its 200 is no age.
    assert np.isnan(ages["8"])
    model = PreferencePairs(epochs=1).fit(interactions(result))
    assert list(blocks(model.vocabulary_)) == list(METADATA)


@pytest.mark.spec("S1-11")
def test_an_unknown_value_is_unknown_and_not_somebody_s_segment(load: Load) -> None:
    """Client 9 has no segment and an odd gender, 10 no country, 11 is in no file.

    None becomes PROSPECT, BRA or U.
    """
    data = interactions(load())
    vocab = vocabulary(data.users, METADATA)
    table = pd.DataFrame(hot(data.users, vocab).toarray(), data.user_ids, vocab)
    assert (table.T.groupby(lambda name: name.split("=")[0]).sum() == 1).all(axis=None)
    assert table.loc["9"][table.loc["9"] > 0].index.tolist() == [
        "segment=",
        "country=DEU",
        "gender=",
    ]
    assert table.loc["10"][table.loc["10"] > 0].index.tolist() == [
        "segment=PROSPECT",
        "country=",
        "gender=",
    ]
    assert table.loc["11"][table.loc["11"] > 0].index.tolist() == [
        "segment=",
        "country=",
        "gender=",
    ]


@pytest.mark.spec("S1-03", "S1-06")
def test_preferences_of_the_five_files(load: Load) -> None:
    data = interactions(load())
    row, cheap, premium = data.user_ids.get_loc("007"), *data.item_ids.get_indexer(["P1", "P2"])
    units, adjusted = (
        preferences(data, signal).toarray()[row] for signal in ("quantity", "price_adjusted")
    )
    mean = (60 + 120 + 10 + 40 + 5) / (12 + 3 + 2 + 1 + 1)  # of Power, over all clients
    assert units[[cheap, premium]].tolist() == [12, 3]
    assert np.allclose(adjusted[[cheap, premium]], [60 / mean, 120 / mean])


@pytest.mark.spec("S1-02")
def test_personal_columns_are_not_kept(home: Path, load: Load) -> None:
    load()
    text = EXAMPLE.read_text().replace(
        'segment = "ClientSegment"', 'segment = "ClientSegment"\nemail = "Mail"\nphone = "Phone"'
    )
    lines = FILES["clients.csv"].splitlines()
    (home / "clients.csv").write_text(
        "\n".join([lines[0] + ",Mail,Phone"] + [line + ",a@b.example,0123" for line in lines[1:]])
        + "\n"
    )
    (home / "corner.toml").write_text(text)
    result = tables.load(str(home / "corner.toml"))
    assert not {"email", "phone"} & set(result.users)
    assert "a@b.example" not in result.users.to_string()
    assert result.manifest["personal_columns_dropped"] == ["email", "phone"]


@pytest.mark.spec("S1-02")
@pytest.mark.parametrize("name", sorted(FILES))
def test_a_missing_file_is_named(name: str, home: Path, load: Load) -> None:
    load()
    (home / name).unlink()
    with pytest.raises(LabError, match=name):
        tables.load(str(home / "corner.toml"))


@pytest.mark.spec("S1-02")
def test_an_amount_that_is_no_number_is_named(load: Load) -> None:
    with pytest.raises(LabError, match="SalesNetAmountEuro"):
        load(transactions=FILES["transactions.csv"].replace(",12,60", ",12,sixty"))
