"""What the service tells of items and users: neighbours, stock, profiles, reasons, explanations."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from asking import API, LIVE, event, got, rec, sent
from fastapi.testclient import TestClient
from test_serving_shop import MODELS, current, serving

from recsys_utils.data import tables
from recsys_utils.serving.artifacts import KIND, Artifacts, service_manifest
from recsys_utils.serving.lists import STOCK
from recsys_utils.store import write_manifest


@pytest.mark.spec("S5-32")
def test_similar_items(client: TestClient, art: Artifacts) -> None:
    item = art.items["lines"].idxmax()
    have = got(client, f"{API}/items/{item}/similar")
    want = art.hybrid.similar(item, 5)
    assert [row["item_id"] for row in have["similar_items"]] == want["item_id"].tolist()
    assert item not in want["item_id"].tolist()
    np.testing.assert_allclose(
        [row["relevance_score"] for row in have["similar_items"]], want["score"], atol=1e-6
    )
    seen = art.hybrid.seen_ > 0
    codes = art.items.index.get_indexer([item, have["similar_items"][0]["item_id"]])
    a, b = (seen[:, [code]].toarray().ravel() for code in codes)
    assert have["similar_items"][0]["confidence_score"] == pytest.approx((a & b).sum() / a.sum())
    assert client.get(f"{API}/items/nothing/similar").status_code == 404
    assert len(got(client, f"{API}/items/{item}/similar", n=20)["similar_items"]) <= 20


@pytest.mark.spec("S5-33")
def test_popular_items(client: TestClient, art: Artifacts) -> None:
    have = got(client, f"{API}/items/popular", n=100)
    scores = [row["popularity_score"] for row in have["items"]]
    assert have["count"] == len(have["items"]) == 100
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == 1
    top = have["items"][0]
    assert top["purchase_count"] == art.items.loc[top["item_id"], "lines"]
    assert top["unique_buyers"] == art.buyers[:, [art.items.index.get_loc(top["item_id"])]].nnz
    assert set(top) == {
        "item_id",
        "item_name",
        "category",
        "item_price",
        "stock",
        "popularity_score",
        "confidence_score",
        "purchase_count",
        "unique_buyers",
    }
    assert got(client, f"{API}/items/popular")["count"] == 10


def test_items_are_found_by_name_id_and_category(client: TestClient, art: Artifacts) -> None:
    item = art.items.iloc[3]
    for words in (item["name"], item.name, item["category"].upper()):
        have = got(client, f"{API}/items", q=words, limit=100)
        assert item.name in [row["item_id"] for row in have["items"]] or have["count"] > 100
    assert got(client, f"{API}/items", q="no such words")["count"] == 0
    assert got(client, f"{API}/items")["categories"] == sorted(art.items["category"].unique())


@pytest.mark.spec("S5-38")
def test_users_with_limit_offset_and_q(client: TestClient, art: Artifacts) -> None:
    have = got(client, f"{API}/users")
    lines = np.diff(art.hybrid.line_start_)
    assert have["loyal_count"] == (lines >= 10).sum()
    assert have["new_count"] == (lines < 10).sum()
    assert have["users"]["loyal"] == art.hybrid.user_ids_[lines >= 10].tolist()[:100]
    assert (
        got(client, f"{API}/users", limit=2, offset=3)["users"]["loyal"]
        == have["users"]["loyal"][3:5]
    )
    found = got(client, f"{API}/users", q="u00001")
    assert found["users"]["loyal"] + found["users"]["new"]
    assert all("U00001" in who for who in found["users"]["loyal"] + found["users"]["new"])
    assert got(client, f"{API}/users", q=".*")["loyal_count"] == 0


@pytest.mark.spec("S5-39", "S5-56")
def test_profiles(client: TestClient, art: Artifacts, user: str) -> None:
    have = got(client, f"{API}/users/{user}/profile")
    assert have["is_known_user"]
    assert have["user_info"] == rec(client, user)["user_info"]
    assert have["profile"]["attributes"]["country"] == art.users.loc[user, "country"]
    dates = [row["last_purchase_date"] for row in have["profile"]["history"]]
    assert dates == sorted(dates, reverse=True)
    assert pd.Timestamp(dates[0]) == pd.Timestamp(have["user_info"]["last_purchase_date"])
    unknown = got(client, f"{API}/users/nobody/profile")
    assert (unknown["is_known_user"], unknown["profile"], unknown["user_info"]["user_type"]) == (
        False,
        None,
        "unknown",
    )


@pytest.mark.spec("S5-42")
def test_user_types_and_the_knob(folder: Path, user: str) -> None:
    with serving(folder) as client:
        assert rec(client, user)["user_info"]["user_type"] == "loyal"
        assert rec(client, "nobody")["user_info"]["user_type"] == "unknown"
    with serving(folder, tuning={"loyal_purchases": 100_000}) as client:
        assert rec(client, user)["user_info"]["user_type"] == "new"
        assert got(client, f"{API}/users")["loyal_count"] == 0


@pytest.mark.spec("S1-25")
def test_stock_of_the_users_country(client: TestClient, art: Artifacts, user: str) -> None:
    stock = art.stock.astype({"item_id": str, "country": str})
    country = art.users.loc[user, "country"]
    mine = stock[stock["country"] == country].set_index("item_id")["quantity"]
    any_ = stock.groupby("item_id")["quantity"].sum()
    seen = set()
    for who, table in ((user, mine), ("nobody", any_)):
        for n in range(0, 60, 20):
            for row in rec(
                client, who, n=20, model="two_stage", exclude_items=art.items.index[:n].tolist()
            )["recommendations"]:
                want = (
                    "unknown"
                    if row["item_id"] not in table
                    else "in_stock"
                    if table[row["item_id"]] > 0
                    else "out_of_stock"
                )
                assert row["stock"] == want
                seen.add(want)
        rows = rec(client, who, n=20, in_stock_only=True)["recommendations"]
        assert len(rows) == 20
        assert {row["stock"] for row in rows} == {"in_stock"}
    assert len(seen) > 1


@pytest.mark.spec("S1-25")
def test_without_a_stock_table_all_is_unknown(
    client: TestClient, art: Artifacts, folder: Path
) -> None:
    (current(folder) / "stock.parquet").unlink()
    manifest = service_manifest(folder)
    files = {name: current(folder) / name for name in manifest["sha256"]}
    del files["stock.parquet"]
    write_manifest(folder / "manifest.json", KIND, files, manifest, manifest["cut"])
    with serving(folder) as bare:
        assert {row["stock"] for row in got(bare, f"{API}/items/popular")["items"]} == {"unknown"}
        assert {row["stock"] for row in rec(bare, "nobody")["recommendations"]} == {"unknown"}
        answer = bare.get(f"{API}/recommendations/nobody", params={"in_stock_only": True})
        assert answer.status_code == 422
        assert "no stock" in answer.text.replace("have none", "no stock")


@pytest.mark.spec("S1-25")
def test_stock_and_category_wherever_items_are_shown(client: TestClient, art: Artifacts) -> None:
    """Similar and popular items, by any country's stock.

    What a queue shows, by the shopper's country, unknown products too.
    """
    item = art.items["lines"].idxmax()
    rows = [
        *got(client, f"{API}/items/{item}/similar", n=20)["similar_items"],
        *got(client, f"{API}/items/popular", n=100)["items"],
    ]
    listed = {row["item_id"]: row for row in got(client, f"{API}/items", limit=100)["items"]}
    both = [(row, listed[row["item_id"]]) for row in rows if row["item_id"] in listed]
    assert both
    assert all(
        (row[key] == known[key])
        for row, known in both
        for key in ("category", "stock", "item_price", "item_name")
    )
    assert all(row["category"] == art.items["category"][row["item_id"]] for row in rows)
    who = str(art.hybrid.user_ids_[0])
    sent(
        client,
        f"{API}/events",
        events=[event(who, name, "cart") for name in ("no such product", *art.items.index[:19])],
    )
    shown = {row["item_id"]: row for row in sent(client, f"{API}/queue/{who}/next?n=20")["shown"]}
    stock = art.stock_of(who)
    for name, row in shown.items():
        code = art.items.index.get_indexer([name])[0]
        assert (row["item_price"], row["stock"]) == (
            (None, "unknown") if code < 0 else (art.hybrid.price_[code], STOCK[stock[code]])
        )
    assert "no such product" in shown
    assert shown["no such product"]["item_name"] == "no such product"
    assert len({r["stock"] for r in shown.values()}) > 1


@pytest.mark.spec("S5-46")
def test_reasons_are_recomputed_from_the_receipts(
    client: TestClient, base: Path, art: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """n of "Similar to n items", n of "Popular with n shoppers", d of "usual cycle d days".

    By pandas, without any of the models.
    """
    monkeypatch.setenv("RECSYS_HOME", str(base))
    rows = tables.load(str(base / "small.toml")).purchases.astype({"user_id": str, "item_id": str})
    near = _alike(rows)
    buyers = rows.groupby("item_id")["user_id"].nunique()
    gaps = _cycles(rows)
    seen = set()
    for who in [*art.hybrid.user_ids_[:60].astype(str), "nobody"]:
        mine = rows[rows["user_id"] == who]
        for row in rec(client, who, n=20)["recommendations"]:
            item = row["item_id"]
            first, *_ = row["recommendation_reason"].split()
            text = row["recommendation_reason"]
            if first == "Similar":
                n = int(near.loc[sorted(set(mine["item_id"]) - {item}), item].sum())
                assert text == f"Similar to {n} item{'s' * (n != 1)} in your purchase history"
                assert n
            elif first == "Popular":
                assert text == f"Popular with {buyers[item]} shopper{'s' * int(buyers[item] != 1)}"
            elif first == "Time":
                days = (
                    art.hybrid.as_of - mine.loc[mine["item_id"] == item, "ts"].max()
                ) / pd.Timedelta(days=1)
                assert text == f"Time to restock: usual cycle {round(gaps[item])} days"
                assert days >= gaps[item]
            seen.add(first)
    assert seen == {"Similar", "Popular", "Time", "Matches"}


def _alike(rows: pd.DataFrame) -> pd.DataFrame:
    """Which items are neighbours.

    Cosines of √signal over baskets, from 0.01, the nearest 100 of each.
    """
    ratio = {
        name: (rows[name] / rows.groupby(by)[name].transform("mean")).fillna(1)
        for name, by in (("price", "user_id"), ("quantity", "item_id"))
    }
    signal = np.sqrt(
        np.log1p(ratio["price"]).clip(0.1, 5) * np.log1p(ratio["quantity"]).clip(0.1, 5)
    )
    table = pd.DataFrame(
        {
            "item": rows["item_id"],
            "basket": rows["user_id"] + "|" + rows["basket_id"].astype(str),
            "x": np.sqrt(signal),
        }
    )
    matrix = table.pivot_table(
        index="item", columns="basket", values="x", aggfunc="sum", fill_value=0
    )
    unit = matrix.div(np.sqrt((matrix**2).sum(axis=1)), axis=0)
    cosine = unit @ unit.T
    return (cosine >= 0.01) & (cosine.rank(axis=1, ascending=False) <= 100)


def _cycles(rows: pd.DataFrame) -> pd.Series:
    """Each item's median over its shoppers of their median days between two days of purchase."""
    days = (
        rows.assign(day=rows["ts"].dt.normalize())
        .drop_duplicates(["user_id", "item_id", "day"])
        .sort_values("day")
    )
    gap = days.groupby(["item_id", "user_id"])["day"].diff().dt.days
    return gap.groupby([days["item_id"], days["user_id"]]).median().groupby(level=0).median()


@pytest.mark.parametrize("model", [*LIVE, *MODELS])
def test_explain_agrees_with_the_list(client: TestClient, user: str, model: str) -> None:
    for row in rec(client, user, n=3, model=model)["recommendations"]:
        have = got(
            client, f"{API}/recommendations/{user}/explain", item_id=row["item_id"], model=model
        )
        assert all(
            have[key] == row[key] for key in ("rank", "relevance_score", "recommendation_reason")
        )
        if model in LIVE:
            assert sum(part["weight"] for part in have["parts"]) == pytest.approx(1, abs=1e-6)
            assert not [r for r in have["rules"] if "left out" in r["effect"]]
            best = max(have["parts"], key=lambda part: (part["weight"] > 0, part["contribution"]))
            assert best["model"] == row["model_source"]
        if row["recommendation_reason"].startswith("Similar to"):
            assert len(have["neighbours"]) == min(5, int(row["recommendation_reason"].split()[2]))


def test_explain_says_why_an_item_is_left_out(
    client: TestClient, art: Artifacts, user: str
) -> None:
    code = art.hybrid.user_ids_.get_loc(user)
    row = art.hybrid.last_[code]
    item = art.hybrid.item_ids_[row.indices[row.data.argmin()]]
    have = got(client, f"{API}/recommendations/{user}/explain", item_id=item)
    assert have["rank"] is None
    assert have["recommendation_reason"].startswith("Left out: bought")
    dear = art.hybrid.item_ids_[np.nanargmax(art.hybrid.price_)]
    assert "above the limit" in str(
        got(client, f"{API}/recommendations/{user}/explain", item_id=dear)["rules"]
    )
    assert (
        client.get(
            f"{API}/recommendations/{user}/explain", params={"item_id": "nothing"}
        ).status_code
        == 404
    )
