"""A client who is in the shop's file and bought nothing yet: attributes reach list and service."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from lab.record import record
from test_serving_shop import serving

from recsys_utils import lists
from recsys_utils.data import tables
from recsys_utils.data.folds import load_fold, write_folds
from recsys_utils.models import OwnPurchases, PreferencePairs
from recsys_utils.serving import train as training
from recsys_utils.serving.artifacts import Artifacts
from recsys_utils.serving.lists import STOCK

TOML = """
currency = "€"
[purchases]
files = ["receipts.parquet"]
[purchases.columns]
user_id = "user_id"
item_id = "item_id"
ts = "ts"
basket_id = "basket_id"
quantity = "quantity"
price = "price"
[stock]
files = ["stock.parquet"]
[stock.columns]
item_id = "item_id"
country = "country"
quantity = "quantity"
[users]
files = ["clients.parquet"]
[users.columns]
user_id = "user_id"
country = "country"
gender = "gender"
"""
SMALL = 'title = "Small shop"\ncurrency = "€"\nsynthetic = true\nlines = 6000\n'


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A shop without the receipts of one of its clients; its TOML and the client."""
    home = tmp_path_factory.mktemp("shop")
    (home / "small.toml").write_text(SMALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECSYS_HOME", str(home))
        data = tables.load(str(home / "small.toml"))
        told = data.users.dropna(subset=["gender", "country"])
        client = sorted(set(told["user_id"].astype(str)) & set(data.purchases["user_id"]))[0]
        is_held = data.purchases["user_id"].astype(str) == client
        data.purchases[~is_held].astype({"user_id": str}).to_parquet(home / "receipts.parquet")
        data.stock.to_parquet(home / "stock.parquet")
        mute = pd.DataFrame({"user_id": ["mute"], "country": [None], "gender": [None]})
        pd.concat([data.users, mute]).to_parquet(home / "clients.parquet")
        (home / "shop.toml").write_text(TOML)
        yield str(home / "shop.toml"), client


def test_a_client_without_receipts_is_kept(shop: tuple[str, str]) -> None:
    toml, client = shop
    data = tables.load(toml)
    assert client in set(data.users["user_id"].astype(str))
    assert client not in set(data.purchases["user_id"].astype(str))
    write_folds(toml)
    assert client in load_fold(toml).testing.profiles.index


def test_the_service_lists_by_attributes_and_says_so(shop: tuple[str, str], tmp_path: Path) -> None:
    toml, client = shop
    write_folds(toml)
    chosen = PreferencePairs(negatives=4, epochs=2, pairs_per_epoch=0)
    record(chosen, load_fold(toml), "preference_pairs")
    training.train(
        toml,
        tmp_path,
        ("preference_pairs", "own_decayed"),
        pd.Timestamp("2025-07-01"),
        lambda line: None,
        fast=True,
    )
    data = tables.load(toml)
    receipts = data.interactions()
    profiles = data.users.astype({"user_id": str}).set_index("user_id")
    model = replace(chosen).fit(receipts)
    wanted = model.recommend([client], 5, profiles=profiles)["item_id"].astype(str).tolist()
    popular = model.recommend(["nobody"], 5)["item_id"].astype(str).tolist()
    assert wanted != popular
    with serving(tmp_path) as api:
        asked = f"/api/v1/recommendations/{client}?model=preference_pairs&n=5"
        answer = api.get(asked).json()
        by_default = api.get(f"/api/v1/recommendations/{client}?n=5").json()
        stranger = api.get("/api/v1/recommendations/nobody?n=5").json()
        mute = api.get("/api/v1/recommendations/mute?model=preference_pairs&n=5").json()
        known = api.get(f"/api/v1/users/{client}/profile").json()
    art = Artifacts.load(tmp_path)
    country = data.users.set_index("user_id").loc[client, "country"]
    assert known["is_known_user"]
    assert known["profile"]["attributes"]["country"] == country
    assert known["profile"]["history"] == []
    names = [row["item_id"] for row in answer["recommendations"]]
    codes = art.items.index.get_indexer(names)
    stock = [STOCK[value] for value in art.stocks[country][codes]]
    assert [row["stock"] for row in answer["recommendations"]] == stock
    assert mute["primary_model"] == "popularity"
    assert Artifacts.load(tmp_path).lists_of_newcomer("mute") == {}
    for each in (answer, by_default):
        assert [row["item_id"] for row in each["recommendations"]] == wanted
        reasons = {row["recommendation_reason"] for row in each["recommendations"]}
        assert reasons == {"Liked by shoppers with a similar profile"}
    assert [row["item_id"] for row in stranger["recommendations"]] != wanted


def test_a_model_that_nobody_tuned_here_does_not_speak_for_newcomers(
    shop: tuple[str, str], tmp_path: Path
) -> None:
    """Without a notebook's run they get what sells, and are told so."""
    toml, client = shop
    untried = Path(toml).with_name("untried.toml")
    untried.write_text(Path(toml).read_text())
    training.train(
        str(untried),
        tmp_path,
        ("preference_pairs",),
        pd.Timestamp("2025-07-01"),
        lambda line: None,
        fast=True,
    )
    with serving(tmp_path) as api:
        answer = api.get(f"/api/v1/recommendations/{client}?model=preference_pairs&n=5").json()
        by_default = api.get(f"/api/v1/recommendations/{client}?n=5").json()
    assert answer["primary_model"] == by_default["primary_model"] == "popularity"
    assert answer["notes"] == [
        "Preference pairs → Popularity: this shopper has bought nothing yet."
    ]


def test_predict_keeps_to_the_shop_s_own_catalogue(shop: tuple[str, str], tmp_path: Path) -> None:
    """The thresholds of the TOML reach the two-stage retail's call, and no other."""
    toml, _ = shop
    narrow = Path(toml).with_name("narrow.toml")
    narrow.write_text(Path(toml).read_text() + "[prefilter]\nmin_user_share = 0.05\n")
    training.train(
        str(narrow),
        tmp_path,
        ("own_decayed",),
        pd.Timestamp("2025-07-01"),
        lambda line: None,
        fast=True,
    )
    art = Artifacts.load(tmp_path)
    kept = set(art.catalogue["item_id"].astype(str))
    assert 5 < len(kept) < len(art.items)
    user = art.users["baskets"].idxmax()
    with serving(tmp_path) as api:
        five = api.post("/predict", json={"user_id": user}).json()["recommendations"]
        listed = api.get(f"/api/v1/recommendations/{user}?n=20").json()["recommendations"]
    assert len(set(five)) == 5
    assert set(five) <= kept
    assert not {row["item_id"] for row in listed} <= kept


def test_a_file_of_lists_says_whom_attributes_decided_for(
    shop: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    toml, client = shop
    write_folds(toml)
    record(PreferencePairs(epochs=2), load_fold(toml), "preference_pairs")
    out = tmp_path / "lists.csv"
    who = f"{client},mute,nobody"
    options = ["--dataset", toml, "--out", str(out), "--model", "preference_pairs", "-k", "5"]
    assert lists.main([*options, "--users", who]) == 0
    table = pd.read_csv(out, dtype=str).set_index("user_id")
    data = tables.load(toml)
    receipts = data.interactions()
    model = PreferencePairs(epochs=2).fit(receipts)
    wanted = model.recommend([client], 5, profiles=data.clients(receipts))
    assert table.loc[client, "item_id"].tolist() == wanted["item_id"].tolist()
    assert set(table.loc[client, "reason"]) == {lists.BY_PROFILE}
    assert set(table.loc[["mute", "nobody"], "reason"]) == {lists.STRANGER}
    told = capsys.readouterr().err
    assert "chosen by what is known of them: 1\n" in told
    assert "given the bestsellers: 2\n" in told


def test_a_file_of_lists_uses_attributes_whatever_model_knows_the_others(
    shop: tuple[str, str],
) -> None:
    """The model of those with receipts learns none: the recorded preference pairs speak."""
    toml, client = shop
    write_folds(toml)
    fold = load_fold(toml)
    record(OwnPurchases(), fold, "own_decayed")
    record(PreferencePairs(epochs=2), fold, "preference_pairs")
    data = tables.load(toml)
    receipts = data.interactions()
    buyer = receipts.user_ids[0]
    table = lists.recommendations(toml, 5, [buyer, client, "mute"], "own_decayed")
    table = table.set_index("user_id")
    model = PreferencePairs(epochs=2).fit(receipts)
    wanted = model.recommend([client], 5, profiles=data.clients(receipts))
    assert table.loc[client, "item_id"].tolist() == wanted["item_id"].tolist()
    assert set(table.loc[client, "model"]) == {"preference_pairs"}
    assert set(table.loc[client, "reason"]) == {lists.BY_PROFILE}
    assert set(table.loc[[buyer, "mute"], "model"]) == {"own_decayed"}
    assert set(table.loc["mute", "reason"]) == {lists.STRANGER}


def test_a_client_of_values_that_nobody_has_is_a_stranger_to_lists(shop: tuple[str, str]) -> None:
    """Attributes that no receipt's shopper has tell nothing, so no profile is claimed."""
    toml, client = shop
    odd = Path(toml).with_name("odd.toml")
    odd.write_text(Path(toml).read_text().replace("clients.parquet", "odd.parquet"))
    clients = pd.read_parquet(Path(toml).with_name("clients.parquet"))
    is_client = clients["user_id"].astype(str) == client
    clients.loc[is_client, ["country", "gender"]] = ["Atlantis", "?"]
    clients.to_parquet(Path(toml).with_name("odd.parquet"))
    write_folds(str(odd))
    record(PreferencePairs(epochs=2), load_fold(str(odd)), "preference_pairs")
    table = lists.recommendations(str(odd), 5, [client], "preference_pairs")
    popular = lists.recommendations(str(odd), 5, ["nobody"], "preference_pairs")
    assert set(table["reason"]) == {lists.STRANGER}
    assert table["item_id"].tolist() == popular["item_id"].tolist()
