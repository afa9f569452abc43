"""Two towers in service.

Files in, lists and ratings out, in a process that has never seen the training.
"""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lab import rating_towers

from recsys_utils import LabError
from recsys_utils.data import tables
from recsys_utils.models.towers.ratings import fit_ratings, fit_whole
from recsys_utils.models.towers.standalone import (
    StandaloneRecommender,
    format_rating,
    save_recommender,
)
from recsys_utils.models.towers.training import (
    NAMES,
    prepare,
    product_names,
    train_two_tower_model,
    transactions,
)
from recsys_utils.models.towers.two_tower import TwoTower
from recsys_utils.store import read_json, write_json

USER_CAT = [
    "Customer_ID",
    "City",
    "State",
    "Country",
    "Gender",
    "Income",
    "Customer_Segment",
    "Feedback",
    "Shipping_Method",
    "Payment_Method",
    "Order_Status",
]
USER_NUM = ["Age", "Total_Purchases", "Amount"]
ITEM_CAT = ["products", "Product_Category", "Product_Brand", "Product_Type"]
COLUMNS = {"user_cat_cols": USER_CAT, "user_num_cols": USER_NUM, "item_cat_cols": ITEM_CAT}
NEW_USER = {
    "Age": 28,
    "Gender": "Female",
    "Country": "UK",
    "City": "London",
    "State": "England",
    "Income": "High",
    "Customer_Segment": "Premium",
    "Feedback": "Excellent",
    "Shipping_Method": "Express",
    "Payment_Method": "Credit Card",
    "Order_Status": "Delivered",
    "Total_Purchases": 3,
    "Amount": 300.0,
}
IPHONE = {
    "products": "iPhone 14",
    "Product_Category": "Electronics",
    "Product_Brand": "Apple",
    "Product_Type": "Smartphone",
}


def df_clean(rows: int = 1_500, customers: int = 120, seed: int = 0) -> pd.DataFrame:
    """Transactions with ratings: women like Electronics, men like Books, ratings say so."""
    rng = np.random.default_rng(seed)
    kinds = np.array(["Electronics", "Books"])
    cities = np.array(["London", "Paris", "Rome"])
    who = rng.integers(0, customers, rows)
    item = rng.integers(0, 24, rows)
    woman = who % 2 == 0
    kind = item % 2
    rating = np.clip(
        np.where(woman == (kind == 0), 4.6, 1.4) + rng.normal(0, 0.5, rows), 1, 5
    ).round()
    name = np.where(item == 0, "iPhone 14", np.char.add("product ", item.astype(str)))
    pick = lambda *values: np.array(values)[rng.integers(0, len(values), rows)]  # noqa: E731
    return pd.DataFrame(
        {
            "Customer_ID": 1000.0 + who,
            "Date": (
                pd.Timestamp("2023-03-01")
                + pd.to_timedelta(np.sort(rng.integers(0, 360, rows)), "D")
            ),
            "City": cities[who % 3],
            "State": "England",
            "Country": "UK",
            "Gender": np.where(woman, "Female", "Male"),
            "Income": pick("High", "Low"),
            "Customer_Segment": pick("Premium", "New"),
            "Feedback": pick("Excellent", "Bad"),
            "Shipping_Method": pick("Express", "Standard"),
            "Payment_Method": pick("Cash", "Credit Card"),
            "Order_Status": "Delivered",
            "Age": 18.0 + who % 50,
            "Total_Purchases": rng.integers(1, 11, rows),
            "Amount": rng.uniform(10, 500, rows),
            "products": name,
            "Product_Category": kinds[kind],
            "Product_Brand": np.where(item % 3 == 0, "Apple", "Penguin"),
            "Product_Type": np.where(kind == 0, "Smartphone", "Novel"),
            "Ratings": rating,
        }
    )


def saved(folder: Path, train: dict, **data: object) -> dict[str, Path]:
    """Towers that learnt the transactions, as files. data: options of `prepare`."""
    parts = prepare(df_clean(), USER_CAT, USER_NUM, ITEM_CAT, **data)
    sizes = parts.encoder.user_cat_sizes, parts.encoder.item_cat_sizes
    model = train_two_tower_model(parts.train, parts.val, *sizes, USER_NUM, **train)
    return save_recommender(model, parts.encoder, parts.assets, parts.stats, folder)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("two_tower")
    return saved(folder, {"epochs": 12, "tokens": 0.1}, mode="rating", negatives=0)


@pytest.fixture
def shop(paths: dict[str, Path]) -> StandaloneRecommender:
    return StandaloneRecommender(**paths, **COLUMNS, device="cpu")


@pytest.fixture
def copied(paths: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    """The files again, to be spoilt."""
    root = paths["model_path"].parent
    for path in (p for p in root.rglob("*") if p.is_file()):
        (tmp_path / path.relative_to(root)).parent.mkdir(exist_ok=True)
        (tmp_path / path.relative_to(root)).write_bytes(path.read_bytes())
    return {role: tmp_path / path.relative_to(root) for role, path in paths.items()}


@pytest.mark.spec("S2-21")
def test_files_have_their_names_and_safe_formats(paths: dict[str, Path]) -> None:
    assert [p.name for p in paths.values()] == [
        "best_two_tower_model.safetensors",
        "preproc_artifacts.json",
        "recommendation_assets",
    ]
    assert {p.name for p in paths["assets_path"].iterdir()} == {
        "item_catalog.parquet",
        "user_profiles.parquet",
        "user_histories.parquet",
        "rating_stats.json",
        "manifest.json",
    }
    artifacts = json.loads(paths["artifacts_path"].read_text())
    assert artifacts["mappings"]["Gender"] == {"Female": 1, "Male": 2}
    assert artifacts["vocab_sizes"]["Gender"] == 3
    assert {name: s["kind"] for name, s in artifacts["scalers"].items()} == {
        "Age": "standard",
        "Total_Purchases": "min-max",
        "Amount": "log",
    }


@pytest.mark.spec("S2-22")
def test_works_in_a_fresh_process_without_training_code(
    paths: dict[str, Path], shop: StandaloneRecommender
) -> None:
    code = f"""
import json, sys
from recsys_utils.models.towers.standalone import StandaloneRecommender
shop = StandaloneRecommender(**{ {k: str(v) for k, v in paths.items()} }, **{COLUMNS}, device="cpu")
known = shop.recommend_for_user(customer_id=1000, top_k=5)
print(json.dumps([known, shop.recommend_for_new_user({NEW_USER}, top_k=5)]))
training = ("recsys_utils.models.towers.training", "implicit", "lightfm", "lightgbm", "sklearn")
assert not [name for name in training if name in sys.modules]
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=paths["assets_path"],
        env=dict(os.environ),
    )
    assert done.returncode == 0, done.stderr
    known, new = json.loads(done.stdout)
    assert [i["products"] for i, _ in known] == [
        i["products"] for i, _ in shop.recommend_for_user(1000, 5)
    ]
    assert np.allclose(
        [r for _, r in new], [r for _, r in shop.recommend_for_new_user(NEW_USER, 5)]
    )


@pytest.mark.spec("S2-05", "S2-23")
def test_a_customers_list_is_sorted_and_no_longer_than_the_catalogue(
    shop: StandaloneRecommender,
) -> None:
    result = shop.recommend_for_user(1000, top_k=5)
    ratings = [rating for _, rating in result]
    assert len(result) == 5
    assert ratings == sorted(ratings, reverse=True)
    assert all(1 <= r <= 5 for r in ratings)
    assert set(result[0][0]) == set(ITEM_CAT)
    assert len(shop.recommend_for_user(1000, top_k=10_000, exclude_purchased=False)) == 24
    assert shop.recommend_for_user("1000", 5) == shop.recommend_for_user(1000.0, 5) == result
    with pytest.raises(LabError, match="recommend_for_new_user"):
        shop.recommend_for_user(999_999)
    for k in (0, -1, 2.5, True):
        with pytest.raises(LabError, match="top_k"):
            shop.recommend_for_user(1000, k)


@pytest.mark.spec("S2-24")
def test_the_purchased_filter_is_on_by_default(shop: StandaloneRecommender) -> None:
    bought = {row["products"] for row in shop.get_user_info(1000)["purchase_history"]}
    filtered = {item["products"] for item, _ in shop.recommend_for_user(1000, 100)}
    assert bought
    assert not bought & filtered
    assert len(filtered) == 24 - len(bought)
    assert bought <= {
        item["products"] for item, _ in shop.recommend_for_user(1000, 100, exclude_purchased=False)
    }


@pytest.mark.spec("S2-06", "S2-25")
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(keys=st.sets(st.sampled_from(sorted(NEW_USER))))
def test_any_subset_of_the_thirteen_fields_will_do(
    shop: StandaloneRecommender, keys: set[str]
) -> None:
    result = shop.recommend_for_new_user({key: NEW_USER[key] for key in keys}, top_k=5)
    assert len(result) == 5
    assert all(1 <= rating <= 5 for _, rating in result)


@pytest.mark.spec("S2-25")
def test_a_profile_decides_and_the_unknown_is_neutral(shop: StandaloneRecommender) -> None:
    woman, man = (
        [i["Product_Category"] for i, _ in shop.recommend_for_new_user({"Gender": g}, 5)]
        for g in ("Female", "Male")
    )
    assert woman == ["Electronics"] * 5
    assert man == ["Books"] * 5
    assert (
        shop.recommend_for_new_user({"City": "Atlantis"}, 5)
        == shop.recommend_for_new_user({}, 5)
        == shop.recommend_for_new_user({"City": None}, 5)
    )
    mean = shop.recommend_for_new_user({"Age": shop.encoder.scalers["Age"]["centre"]}, 5)
    assert np.allclose(
        [r for _, r in mean], [r for _, r in shop.recommend_for_new_user({}, 5)], atol=1e-5
    )


@pytest.mark.spec("S2-25")
def test_no_customers_id_embedding_matters_for_a_new_user(
    shop: StandaloneRecommender,
) -> None:
    before = shop.recommend_for_new_user(NEW_USER, 24)
    known = shop.recommend_for_user(1000, 24)
    ids = slice(1, shop.encoder.user_cat_sizes["Customer_ID"])
    for table in (shop.model.user_tower.embedding, shop.model.user_tower.bias):
        table.weight.data[ids] += torch.randn_like(table.weight.data[ids])
    assert shop.recommend_for_new_user(NEW_USER, 24) == before
    assert shop.recommend_for_user(1000, 24) != known


@pytest.mark.spec("S2-25")
@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ({"Agee": 3}, "'Agee' is no field"),
        ({"Customer_ID": 1000}, "'Customer_ID' is no field"),
        ({"Age": "old"}, "Age is 'old', not a finite number"),
        ({"Age": float("nan")}, "Age is nan"),
        ({"Amount": True}, "Amount is True"),
        ({"City": ["London"]}, "City is .'London'., not a text"),
        ({"Age": "old", "Colour": 1}, "'Colour' is no field; Age is 'old'"),
        ([1], "a profile is a dictionary"),
    ],
)
def test_a_bad_profile_is_one_clear_error(
    shop: StandaloneRecommender, profile: object, words: str
) -> None:
    with pytest.raises(LabError, match=words):
        shop.recommend_for_new_user(profile)


@pytest.mark.spec("S2-07", "S2-26")
def test_a_rating_for_any_pair(shop: StandaloneRecommender) -> None:
    assert (
        shop.predict_rating(NEW_USER, IPHONE)
        > 4
        > 2
        > shop.predict_rating(NEW_USER | {"Gender": "Male"}, IPHONE)
    )
    assert shop.predict_rating(1000, "iPhone 14") == pytest.approx(
        shop.predict_rating("1000", IPHONE), abs=1e-6
    )
    listed = {
        item["products"]: rating
        for item, rating in shop.recommend_for_user(1000, 24, exclude_purchased=False)
    }
    assert shop.predict_rating(1000, "product 3") == pytest.approx(listed["product 3"], abs=1e-5)
    novel = {"products": "unheard of", "Product_Category": "Books", "Product_Type": "Novel"}
    assert (
        shop.predict_rating({"Gender": "Male"}, novel)
        > shop.predict_rating({"Gender": "Female"}, novel) + 1
    )
    with pytest.raises(LabError, match="name a product of the catalogue"):
        shop.predict_rating(1000, "no such thing")
    with pytest.raises(LabError, match="name a product of the catalogue"):
        shop.predict_rating(1000, {"products": "no such thing", "Product_Category": "Boats"})
    with pytest.raises(LabError, match="'colour' is no attribute"):
        shop.predict_rating(1000, {"colour": "red"})
    with pytest.raises(LabError, match="recommend_for_new_user"):
        shop.predict_rating(5, "iPhone 14")


@pytest.mark.spec("S2-26")
def test_ratings_can_reach_one_and_five(shop: StandaloneRecommender) -> None:
    """With t fixed to 1 and b to 0 they would stay within 2.08 and 3.92."""
    with torch.no_grad():
        shop.model.log_t.fill_(4.0)
    everyone = shop.ratings(shop.profiles)
    assert everyone.min() < 1.01
    assert everyone.max() > 4.99
    assert everyone.min() >= 1
    assert everyone.max() <= 5


@pytest.mark.spec("S2-27")
def test_a_rating_is_printed_out_of_five() -> None:
    assert [format_rating(r) for r in (3.8, 1, 4.996)] == ["3.80/5.0", "1.00/5.0", "5.00/5.0"]


@pytest.mark.spec("S2-10")
def test_batched_is_one_by_one_and_faster(shop: StandaloneRecommender) -> None:
    everyone = pd.concat([shop.profiles] * 3)
    shop.ratings(everyone)
    start = time.perf_counter()
    batch = shop.ratings(everyone)
    middle = time.perf_counter()
    single = np.concatenate([shop.ratings(everyone.iloc[[n]]) for n in range(len(everyone))])
    assert np.abs(batch - single).max() < 1e-5
    assert np.abs(batch - single).max() / 4 < 1e-6
    assert time.perf_counter() - middle > 3 * (middle - start)


@pytest.mark.spec("S2-10")
def test_the_item_tower_runs_once(
    shop: StandaloneRecommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shop.model.item_tower, "forward", None)
    assert len(shop.recommend_for_user(1000, 5)) == len(shop.recommend_for_new_user({}, 5)) == 5


@pytest.mark.spec("S2-32")
def test_user_info_and_search(shop: StandaloneRecommender) -> None:
    info = shop.get_user_info(1001)
    assert info["profile"]["Gender"] == "Male"
    assert info["num_purchases"] == sum(row["times"] for row in info["purchase_history"])
    assert shop.get_user_info("nobody") is None
    assert [i["products"] for i in shop.search_items(" IPHONE ")] == ["iPhone 14"]
    assert len(shop.search_items("smart")) == 12
    assert len(shop.search_items("p")) == 20
    assert len(shop.search_items("p", limit=3)) == 3
    assert shop.search_items("(") == []
    assert {i["Product_Brand"] for i in shop.search_items("apple")} == {"Apple"}


@pytest.mark.spec("S2-30")
def test_new_purchases_move_the_customer_and_only_them(shop: StandaloneRecommender) -> None:
    everyone = shop.ratings(shop.profiles)
    at = shop.profiles.index.get_loc("1000")
    item = shop.names.get_loc("product 5")
    shop.partial_fit(pd.DataFrame({"Customer_ID": [1000] * 3, "products": "product 5"}))
    after = shop.ratings(shop.profiles)
    assert after[at, item] > everyone[at, item] + 0.05
    assert "product 5" not in [i["products"] for i, _ in shop.recommend_for_user(1000, 24)]
    others = np.delete(np.arange(len(everyone)), at)
    assert np.abs(after - everyone)[others].mean() < np.abs(after - everyone)[at].mean() / 2


@pytest.mark.spec("S2-30")
def test_a_new_customer_becomes_known(shop: StandaloneRecommender) -> None:
    new = shop.recommend_for_new_user(NEW_USER, 24)
    others = shop.ratings(shop.profiles)
    shop.partial_fit(
        pd.DataFrame({"Customer_ID": ["late"], "products": ["product 7"], "Ratings": [5]})
    )
    assert shop.get_user_info("late")["num_purchases"] == 1
    assert len(shop.recommend_for_user("late", 24)) == 23
    moved = np.abs(shop.ratings(shop.profiles.iloc[:-1]) - others)
    assert moved[:, shop.names != "product 7"].max() < 0.3
    # nobody's codes have shifted
    assert np.median(moved) < 1e-3
    assert np.allclose(
        [r for _, r in shop.recommend_for_new_user(NEW_USER, 24)], [r for _, r in new], atol=0.3
    )
    with pytest.raises(LabError, match="'ghost', which is not in the catalogue"):
        shop.partial_fit(pd.DataFrame({"Customer_ID": ["late"], "products": ["ghost"]}))


@pytest.mark.spec("C6")
@pytest.mark.parametrize(
    "name",
    [
        "best_two_tower_model.safetensors",
        "preproc_artifacts.json",
        "recommendation_assets/item_catalog.parquet",
        "recommendation_assets/rating_stats.json",
        "recommendation_assets/manifest.json",
    ],
)
def test_a_missing_or_changed_file_is_refused_by_name(copied: dict[str, Path], name: str) -> None:
    path = copied["model_path"].parent / name
    content = path.read_bytes()
    path.write_bytes(
        content.replace(b'"version"', b'"versiom"')
        if "manifest" in name
        else content[:-1] + bytes([content[-1] ^ 1])
    )
    with pytest.raises(LabError, match=path.name.replace(".", r"\.") + r".*(changed)"):
        StandaloneRecommender(**copied, **COLUMNS)
    path.unlink()
    with pytest.raises(LabError, match=path.name.replace(".", r"\.") + ".* is missing"):
        StandaloneRecommender(**copied, **COLUMNS)


@pytest.mark.spec("C6")
def test_another_version_or_other_columns_are_refused(copied: dict[str, Path]) -> None:
    with pytest.raises(LabError, match="user_num_cols is .'Age'., the model was trained with"):
        StandaloneRecommender(**copied, **COLUMNS | {"user_num_cols": ["Age"]})
    manifest = copied["assets_path"] / "manifest.json"
    write_json(read_json(manifest) | {"schema": 99}, manifest)
    with pytest.raises(LabError, match="schema 99, this version reads 2"):
        StandaloneRecommender(**copied, **COLUMNS)


CSV = """Transaction_ID,Customer_ID,Name,Email,Phone,Address,City,State,Zipcode,Country,Age,Gender,\
Income,Customer_Segment,Date,\
Year,Month,Time,Total_Purchases,Amount,Total_Amount,Product_Category,Product_Brand,Product_Type,Feedback,\
Shipping_Method,Payment_Method,Order_Status,Ratings,products
{}
"""


def raw(
    n: int, status: str = "Delivered", customer: str = "37249.0", date: str = "9/18/2023"
) -> str:
    return (
        f"{8691788 + n}.0,{customer},Jo Doe,jo@example.org,1414786801,3959 Amanda Burgs,"
        f"Dortmund,Berlin,77985.0,Germany,21.0,Male,Low,Regular,{date},2023.0,September,22:03:55,"
        f"{n % 9 + 1}.0,108.03,324.09,Clothing,Nike,Shorts,Excellent,Same-Day,Debit Card,{status},"
        f"5.0,Cycling shorts {n % 7}"
    )


@pytest.mark.spec("S2-28")
def test_the_original_csv_is_read_without_what_names_a_person(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        raw(n, customer=f"{100 + n % 5}.0", date=f"{n % 12 + 1}/{n % 28 + 1}/2023")
        for n in range(60)
    ]
    lines += [raw(60, "Shipped"), raw(61, "Pending"), raw(62, customer=""), raw(63, date="")]
    monkeypatch.setenv("RECSYS_DATA", str(home / "raw"))
    (home / "raw/retail_ratings").mkdir(parents=True)
    (home / "raw/retail_ratings/new_retail_data.csv").write_text(CSV.format("\n".join(lines)))
    data = tables.load("retail_ratings")
    assert len(data.purchases) == 60
    assert data.purchases["rating"].eq(5).all()
    assert set(data.purchases["user_id"]) == {f"{100 + n}" for n in range(5)}
    assert data.purchases["ts"].min() == pd.Timestamp("2023-01-01 22:03:55")
    assert set(data.items["item_id"]) == {f"Cycling shorts {n}" for n in range(7)}
    assert {
        "age",
        "gender",
        "income",
        "segment",
        "city",
        "state",
        "country",
        "feedback",
        "total_purchases",
        "amount",
    } <= set(data.users)
    assert sorted(data.manifest["personal_columns_dropped"]) == [
        "address",
        "email",
        "name",
        "phone",
    ]
    text = " ".join(
        p.read_bytes().decode("latin-1")
        for p in (home / "data/retail_ratings/tables").glob("*.parquet")
    )
    assert not any(word in text for word in ("Jo Doe", "jo@example", "Amanda", "1414786801"))
    rules = data.audit.set_index("rule")["rows"]
    assert rules["not delivered"] == 2
    assert rules["no customer"] == 1


@pytest.fixture(scope="module")
def with_lists(tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """A synthetic shop served by towers for lists and towers for ratings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECSYS_HOME", str(tmp_path_factory.mktemp("home")))
        data = tables.load("synthetic")
    lists = TwoTower(epochs=2, windows=4).fit(data.interactions())
    rows = transactions(data.purchases, data.users, data.items)
    model, whole = fit_whole(rows, epochs=2)
    names = product_names(data.items)
    paths = save_recommender(
        model,
        whole.encoder,
        whole.assets,
        whole.stats,
        tmp_path_factory.mktemp("with_lists"),
        lists=lists.vectors().renamed(NAMES, names),
    )
    columns = {
        "user_cat_cols": whole.encoder.user_cat_cols,
        "user_num_cols": whole.encoder.user_num_cols,
        "item_cat_cols": whole.encoder.item_cat_cols,
    }
    return StandaloneRecommender(**paths, **columns), lists, names, data, columns


def chosen(listed: list) -> set[str]:
    return {item["products"] for item, _ in listed}


def test_what_is_listed_is_what_the_leaderboard_s_model_lists(with_lists: tuple) -> None:
    """Known customers with and without what they bought, and strangers by their profile."""
    shop, lists, names, data, _ = with_lists
    users = shop.profiles.index[:20]
    for exclude, bought in ((None, False), ("bought", True)):
        recs = lists.recommend(users, 5, exclude)
        for user in users:
            items = recs[recs["user_id"] == user]["item_id"].astype(str)
            listed = shop.recommend_for_user(user, 5, exclude_purchased=bought)
            assert chosen(listed) == {names[item] for item in items}
            ratings = [rating for _, rating in listed]
            assert ratings == sorted(ratings, reverse=True)
    people = data.users.set_index("user_id")[["gender", "country"]].dropna().head(5)
    profiles = people.set_axis([f"stranger {n}" for n in range(len(people))])
    recs = lists.recommend(profiles.index, 5, profiles=profiles)
    for stranger, row in profiles.iterrows():
        items = recs[recs["user_id"] == stranger]["item_id"].astype(str)
        profile = {"Gender": row["gender"], "Country": row["country"]}
        assert chosen(shop.recommend_for_new_user(profile, 5)) == {names[item] for item in items}


def test_who_tells_nothing_gets_what_is_popular(with_lists: tuple) -> None:
    shop, lists, names, _, _ = with_lists
    popular = lists.recommend(["nobody"], 5)["item_id"].astype(str)
    assert chosen(shop.recommend_for_new_user({}, 5)) == {names[item] for item in popular}


def test_histories_hold_everything_that_was_bought_rated_or_not(with_lists: tuple) -> None:
    """Of what is suggested as new nothing had been bought."""
    shop, _, names, data, _ = with_lists
    lines = data.purchases.astype({"user_id": str, "item_id": str})
    assert lines["rating"].isna().any()
    bought = lines.assign(product=lines["item_id"].map(names))
    bought = bought.groupby("user_id")["product"].agg(set)
    assert shop.histories["times"].sum() == len(lines)
    for user in shop.profiles.index[:40]:
        assert not chosen(shop.recommend_for_user(user, 10)) & bought[user]


def test_what_was_learnt_from_events_can_be_saved(with_lists: tuple, tmp_path: Path) -> None:
    shop, *_, columns = with_lists
    again = StandaloneRecommender(**shop.save(tmp_path / "one"), **columns)
    product = shop.names[3]
    event = pd.DataFrame({"Customer_ID": ["late"], "products": [product], "Ratings": [5]})
    again.partial_fit(event)
    kept = StandaloneRecommender(**again.save(tmp_path / "two"), **columns)
    (row,) = kept.get_user_info("late")["purchase_history"]
    assert (row["products"], row["times"], row["rating"]) == (product, 1, 5)
    assert kept.predict_rating("late", product) == again.predict_rating("late", product)
    assert kept.recommend_for_user("late", 5) == again.recommend_for_user("late", 5)
    assert product not in chosen(kept.recommend_for_user("late", 50))


def test_a_rating_s_own_transaction_tells_nothing_about_it() -> None:
    """Feedback that is the rating itself: known only afterwards, so it must not help."""
    rows = df_clean(3_000)
    rows["Ratings"] = np.random.default_rng(1).integers(1, 6, len(rows)).astype(float)
    rows["Feedback"] = "gave " + rows["Ratings"].astype(int).astype(str)
    parts = prepare(rows, USER_CAT, USER_NUM, ITEM_CAT, mode="rating", negatives=0)
    model = fit_ratings(parts, epochs=6)
    truth = rating_towers.stars(parts.test.label[:, 0])
    error = np.abs(rating_towers.predicted(model, parts) - truth).mean()
    constant = np.abs(truth.mean() - truth).mean()
    assert error == pytest.approx(constant, abs=0.15)
    assert error > 1


def test_text_dates_have_the_order_of_time() -> None:
    """As letters "9/18/2023" comes after "10/2/2023"."""
    rows = df_clean(300)
    dates = rows["Date"]
    as_text = rows.assign(Date=dates.dt.strftime("%-m/%-d/%Y"))
    one, two = (
        prepare(each, USER_CAT, USER_NUM, ITEM_CAT, mode="rating", negatives=0)
        for each in (rows, as_text)
    )
    pd.testing.assert_frame_equal(one.assets["user_profiles"], two.assets["user_profiles"])
    mine = one.assets["user_profiles"].set_index("Customer_ID")["Amount"]
    cut = pd.Timestamp(one.stats["cut"])
    known = rows[dates <= cut].sort_values("Date", kind="stable")
    expected = known.groupby("Customer_ID")["Amount"].last()
    assert np.allclose(mine[expected.index.astype(int).astype(str)], expected)
    with pytest.raises(LabError, match="column Date cannot be read as dates"):
        prepare(rows.assign(Date="soon"), USER_CAT, USER_NUM, ITEM_CAT)


@pytest.mark.parametrize(
    ("users", "items", "words"),
    [
        (["City", "Customer_ID"], ITEM_CAT, "user_cat_cols begins with City: put the id"),
        (USER_CAT, ["Product_Brand", "products"], "item_cat_cols begins with Product_Brand"),
        ([], ITEM_CAT, "user_cat_cols is empty"),
    ],
)
def test_a_key_that_is_not_the_first_column_is_refused(
    users: list[str], items: list[str], words: str
) -> None:
    with pytest.raises(LabError, match=words):
        prepare(df_clean(300), users, [], items)


def test_a_pickled_model_is_refused_as_one(copied: dict[str, Path]) -> None:
    path = copied["model_path"].with_suffix(".pth")
    path.write_bytes(copied["model_path"].read_bytes())
    with pytest.raises(LabError, match=r"\.pth is a pickle, .* save_recommender"):
        StandaloneRecommender(**copied | {"model_path": path}, **COLUMNS)


def test_towers_that_learnt_purchases_give_no_ratings(tmp_path: Path) -> None:
    paths = saved(tmp_path, {"epochs": 2, "patience": 1})
    shop = StandaloneRecommender(**paths, **COLUMNS)
    with pytest.raises(LabError, match="mode='rating'"):
        shop.predict_rating(1000, "iPhone 14")
    assert len(shop.recommend_for_user(1000, 5)) == 5


@pytest.mark.spec("S2-22")
def test_the_example_of_readme_learns_the_tastes_that_it_made_up(tmp_path: Path) -> None:
    """1001 is a woman, and women like books here; the stranger is a man, and gets tools."""
    script = Path(__file__).with_name("two_towers.py")
    for step in ("train", "serve"):
        command = [sys.executable, str(script), step, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    known, new, rating = done.stdout.splitlines()
    assert known.count("'Books'") == 3
    assert new.count("'Tools'") == 3
    assert re.fullmatch(r"[1-5]\.\d\d/5\.0", rating)
