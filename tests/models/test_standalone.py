"""Two towers in service.

Files in, lists and ratings out, in a process that has never seen the training.
"""

import json
import os
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

from recsys_utils import LabError
from recsys_utils.data import tables
from recsys_utils.models.towers.standalone import (
    StandaloneRecommender,
    format_rating,
    save_recommender,
)
from recsys_utils.models.towers.training import prepare, train_two_tower_model
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


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    result = prepare(df_clean(), USER_CAT, USER_NUM, ITEM_CAT, mode="rating", negatives=0)
    model = train_two_tower_model(
        result.train,
        result.val,
        result.encoder.user_cat_sizes,
        result.encoder.item_cat_sizes,
        USER_NUM,
        epochs=12,
        tokens=0.1,
    )
    return save_recommender(
        model, result.encoder, result.assets, result.stats, tmp_path_factory.mktemp("two_tower")
    )


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
    with pytest.raises(LabError, match="search_items"):
        shop.predict_rating(1000, "no such thing")
    with pytest.raises(LabError, match="search_items"):
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
