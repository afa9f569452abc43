"""The service's answers, row by row: all five systems over HTTP, on a real app with real models."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from test_purchase_probability import older
from test_serving_shop import MODELS, NOW, Clock, current, serving

from recsys_utils.data import tables
from recsys_utils.ensembles.hybrid import Hybrid
from recsys_utils.online.queue import DATABASE, Queue
from recsys_utils.online.update import load_net
from recsys_utils.serving.answers import RecommendationResponse
from recsys_utils.serving.app import THREADS
from recsys_utils.serving.artifacts import KIND, Artifacts, service_manifest
from recsys_utils.serving.lists import STOCK
from recsys_utils.serving.many import predict_many
from recsys_utils.serving.settings import Settings
from recsys_utils.store import read_parquet, write_manifest

API = "/api/v1"
USER = "U000003"
LIVE = ("als", "item_cf", "popularity", "hybrid")


def got(client: TestClient, path: str, **params: object) -> dict:
    answer = client.get(path, params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def sent(client: TestClient, path: str, **body: object) -> dict:
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def rec(client: TestClient, user: str, **params: object) -> dict:
    return got(client, f"{API}/recommendations/{user}", **params)


def ids(answer: dict) -> list[str]:
    return [row["item_id"] for row in answer["recommendations"]]


def event(user: str, item: str, kind: str, **more: object) -> dict:
    return {"user_id": user, "item_id": item, "event_type": kind, **more}


@pytest.fixture(scope="module")
def user(art: Artifacts) -> str:
    """The shopper with the longest history."""
    return str(art.hybrid.user_ids_[np.diff(art.hybrid.line_start_).argmax()])


def same(a: dict, b: dict) -> bool:
    varies = {"processing_time_ms", "generated_at", "cached"}
    return {k: v for k, v in a.items() if k not in varies} == {
        k: v for k, v in b.items() if k not in varies
    }


@pytest.mark.spec("S5-27")
def test_n_and_the_default_model(client: TestClient, user: str) -> None:
    assert len(ids(rec(client, user))) == 5
    assert rec(client, user)["primary_model"] == "hybrid"
    for n in (1, 7, 20):
        assert ids(rec(client, user, n=n)) == ids(rec(client, user, n=20))[:n]
        assert len(ids(rec(client, user, n=n))) == n


@pytest.mark.spec("S1-22")
@pytest.mark.spec("S5-27")
@pytest.mark.parametrize("model", LIVE)
def test_live_models_are_the_hybrids_own_lists(
    client: TestClient, art: Artifacts, user: str, model: str
) -> None:
    """API score = notebook score to 1e-6."""
    for who in (user, str(art.hybrid.user_ids_[0]), "a stranger"):
        want = art.hybrid.explain_list(who, 7, model)
        have = rec(client, who, n=7, model=model)
        assert ids(have) == want.rows["item_id"].tolist()
        np.testing.assert_allclose(
            [row["relevance_score"] for row in have["recommendations"]],
            want.rows["relevance"],
            rtol=0,
            atol=1e-6,
        )
        assert [row["recommendation_reason"] for row in have["recommendations"]] == want.rows[
            "reason"
        ].tolist()
        assert [row["model_source"] for row in have["recommendations"]] == want.rows[
            "source"
        ].tolist()
        assert (have["primary_model"], have["fallback_used"]) == (
            want.primary_model,
            want.fallback_used,
        )


@pytest.mark.spec("S1-22", "S1-23")
@pytest.mark.parametrize("model", MODELS)
def test_lists_are_the_tables_to_1e_6(
    client: TestClient, base: Path, art: Artifacts, user: str, model: str
) -> None:
    table = read_parquet(
        current(base / "data" / "small" / "serving") / "lists" / f"{model}.parquet"
    )
    rows = table[table["user_id"] == user].sort_values("rank")
    have = rec(client, user, n=20, model=model)
    assert ids(have) == rows["item_id"].astype(str).tolist()[:20]
    assert have["primary_model"] == model
    assert not have["fallback_used"]
    np.testing.assert_allclose(
        [row["score"] for row in have["recommendations"]], rows["score"][:20], rtol=0, atol=1e-6
    )
    assert {row["relevance_score"] for row in have["recommendations"]} == {None}
    mine = set(art.hybrid.item_ids_[art.hybrid.seen_[art.hybrid.user_ids_.get_loc(user)].indices])
    assert all(
        (row["recommendation_reason"] == "You bought it before") == (row["item_id"] in mine)
        for row in have["recommendations"]
    )


@pytest.mark.spec("S5-28")
@pytest.mark.parametrize("model", [*LIVE, *MODELS])
def test_post_answers_as_get(client: TestClient, user: str, model: str) -> None:
    get = rec(
        client,
        user,
        n=4,
        model=model,
        exclude_purchased=True,
        price_min=1,
        price_max=9.5,
        timestamp="2025-06-01T00:00:00",
        exclude_items=["I00001", "I00002"],
    )
    post = sent(
        client,
        f"{API}/recommendations",
        user_id=user,
        num_recommendations=4,
        model_type=model,
        exclude_purchased=True,
        price_range_min=1,
        price_range_max=9.5,
        timestamp="2025-06-01T00:00:00",
        exclude_items=["I00001", "I00002"],
    )
    assert same(get, post)
    assert get["recommendations"]


@pytest.mark.spec("S5-29")
@pytest.mark.parametrize("model", [*LIVE, *MODELS])
def test_exclude_purchased_and_its_default(
    client: TestClient, art: Artifacts, user: str, model: str
) -> None:
    mine = set(art.hybrid.item_ids_[art.hybrid.seen_[art.hybrid.user_ids_.get_loc(user)].indices])
    assert not mine & set(ids(rec(client, user, n=20, model=model, exclude_purchased=True)))
    assert same(
        rec(client, user, n=20, model=model),
        rec(client, user, n=20, model=model, exclude_purchased=False),
    )
    if model in ("two_stage", "own_decayed"):
        assert mine & set(ids(rec(client, user, n=20, model=model)))


@pytest.mark.spec("S5-30")
@pytest.mark.parametrize(
    "user_id",
    [
        "41786230378",
        "007",
        "1e5",
        "O'Neil; DROP TABLE users--",
        "<script>alert(1)</script>",
        "名前",
    ],
)
def test_ids_stay_text(client: TestClient, user_id: str) -> None:
    answer = sent(client, f"{API}/recommendations", user_id=user_id)
    assert answer["user_id"] == answer["user_info"]["user_id"] == user_id
    assert answer["fallback_used"]
    assert sent(client, "/predict", user_id=41786230378)["user_id"] == "41786230378"


@pytest.mark.spec("S5-31")
def test_the_moment_drives_the_repurchase_rule(client: TestClient, art: Artifacts) -> None:
    """The same item, the day after it was bought and long after."""
    model: Hybrid = art.hybrid
    for code in range(len(model.user_ids_)):
        who = str(model.user_ids_[code])
        rows = rec(client, who, n=20, timestamp="2025-12-30T00:00:00Z")["recommendations"]
        later = [row for row in rows if "restock" in row["recommendation_reason"]]
        if later:
            item = later[0]["item_id"]
            last = model.as_of - pd.Timedelta(
                days=float(model.last_[code, model.item_ids_.get_loc(item)])
            )
            assert item not in ids(
                rec(client, who, n=20, timestamp=(last + pd.Timedelta(days=1)).isoformat())
            )
            return
    pytest.fail("nobody is due to restock anything")


@pytest.mark.spec("S5-31")
def test_zones_are_converted_and_a_time_without_one_is_utc(client: TestClient, user: str) -> None:
    utc = rec(client, user, timestamp="2025-05-01T10:00:00Z")
    assert same(utc, rec(client, user, timestamp="2025-05-01T12:00:00+02:00"))
    assert same(utc, rec(client, user, timestamp="2025-05-01T10:00:00"))
    assert utc["user_info"]["total_purchases"] < rec(client, user)["user_info"]["total_purchases"]


@pytest.mark.parametrize("model", [*LIVE, *MODELS])
def test_before_the_first_purchase_nothing_is_personal(
    client: TestClient, art: Artifacts, user: str, model: str
) -> None:
    """What was learnt of a shopper later is not used, and what else was learnt later is told."""
    answer = rec(client, user, n=20, model=model, timestamp="1970-01-01T00:00:00Z")
    assert answer["user_info"]["total_purchases"] == 0
    assert answer["fallback_used"] == (model != "popularity")
    assert answer["primary_model"] == "popularity"
    stranger = rec(client, "a stranger", n=20, model=model, timestamp="1970-01-01T00:00:00Z")
    assert ids(answer) == ids(stranger)
    reasons = {row["recommendation_reason"] for row in answer["recommendations"]}
    assert all(reason.startswith(("Popular with", "Nobody bought")) for reason in reasons)
    assert all(reason.endswith(f"(learnt until {art.hybrid.as_of:%Y-%m-%d})") for reason in reasons)


@pytest.mark.parametrize("model", [*LIVE, *MODELS])
def test_between_purchases_the_reasons_say_until_when_the_models_have_learnt(
    client: TestClient, art: Artifacts, user: str, model: str
) -> None:
    cut = art.hybrid.as_of
    told = f"(learnt until {cut:%Y-%m-%d})"
    before, after = (
        rec(client, user, model=model, timestamp=(cut + pd.Timedelta(days=days)).isoformat())
        for days in (-30, 1)
    )
    assert not before["fallback_used"]
    assert before["user_info"]["total_purchases"] > 0
    assert all(told in row["recommendation_reason"] for row in before["recommendations"])
    assert not any("learnt" in row["recommendation_reason"] for row in after["recommendations"])


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


@pytest.mark.spec("S5-34", "S3-25")
def test_health_before_during_and_without(folder: Path, tmp_path: Path) -> None:
    from recsys_utils.serving.app import create_app

    waiting = TestClient(
        create_app(folder, clock=Clock()), "http://localhost"
    )  # not entered: nothing is loaded
    assert got(waiting, f"{API}/health")["status"] == "initializing"
    assert got(waiting, f"{API}/health/live")["models_loaded"] == []
    for path in (
        f"{API}/health/ready",
        f"{API}/recommendations/u",
        f"{API}/stats",
        f"{API}/models",
    ):
        answer = waiting.get(path)
        assert answer.status_code == 503
        assert "ask again" in answer.json()["error"]
        assert answer.headers["retry-after"]
    assert waiting.post("/predict", json={"user_id": "u"}).status_code == 503
    with serving(tmp_path / "empty") as client:
        assert got(client, f"{API}/health")["status"] == "not_trained"
        said = client.get(f"{API}/health/ready").json()["error"]
        assert "run python -m recsys_utils.serving train" in said
        assert str(tmp_path) not in said
    with serving(folder) as client:
        health = got(client, f"{API}/health/ready")
        assert health["status"] == "healthy"
        assert set(health["models_loaded"]) == {*LIVE, *MODELS}
        assert health["model_version"] == current(folder).name
        assert health["timestamp"] == "2025-07-02T12:00:00Z"
        assert health["version"] == "0.1.0"


@pytest.mark.spec("S5-35")
def test_models_and_the_weights_in_force(folder: Path) -> None:
    weights = {"als": 0.1, "item_cf": 0.2, "popularity": 0.7}
    with serving(folder, tuning={"model_weights": weights}) as client:
        have = got(client, f"{API}/models")
        assert [model["name"] for model in have["models"]] == [
            "hybrid",
            "als",
            "item_cf",
            "popularity",
            *MODELS,
        ]
        assert have["default"] == "hybrid"
        assert {
            m["name"]: m["weight"] for m in have["models"] if m["weight"] is not None
        } == weights
        assert (have["synthetic"], have["currency"], have["title"]) == (True, "€", "Small shop")
        assert have["architecture"]["level_2"]
        assert have["stocks"]


@pytest.mark.spec("S5-36")
def test_stats_count(folder: Path, user: str) -> None:
    with serving(folder) as client:
        for _ in range(3):
            rec(client, user)
        rec(client, "nobody")
        have = got(client, f"{API}/stats")
        assert (
            have["cache_hits"],
            have["cache_misses"],
            have["cache_size"],
            have["cache_max_size"],
        ) == (2, 2, 2, 1000)
        assert (have["recommendations"], have["fallbacks"], have["is_initialized"]) == (
            4,
            1,
            True,
        )
        assert have["requests"] >= 5
        assert have["latency_ms"]["p95"] >= have["latency_ms"]["p50"] > 0
        assert have["model_stats"]["users"] == 70
        assert have["model_load_time"] > 0
        assert have["config"] == got(client, f"{API}/config")["config"]


@pytest.mark.spec("S5-37")
def test_config_is_the_live_one(folder: Path) -> None:
    with serving(
        folder, tuning={"upsell": {"factor": 0.7}}, cache_ttl_seconds=11, api_key="hidden"
    ) as client:
        have = got(client, f"{API}/config")["config"]
        assert have["tuning"] == client.app.state.service.loaded.art.hybrid.knobs.to_dict()
        assert have["tuning"]["upsell"]["factor"] == 0.7
        assert have["service"] == {
            "debug": False,
            "environment": "development",
            "cors_origins": [],
            "cache_ttl_seconds": 11,
            "cache_max_size": 1000,
            "max_waiting": 8,
            "allowed_hosts": ["localhost", "127.0.0.1", "::1"],
            "model_path": None,
            "default_model": None,
            "api_key_set": True,
        }
        assert have["event_weights"] == {
            "view": 1,
            "cart": 3,
            "remove_from_cart": -1,
        }
        assert "hidden" not in str(have)


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


@pytest.mark.spec("S5-40")
def test_reference_and_openapi(client: TestClient) -> None:
    spec = got(client, "/openapi.json")
    for path in ("/docs", "/redoc"):
        page = client.get(path)
        assert page.status_code == 200
        assert all(route in page.text for route in spec["paths"])
        assert "http" not in page.text.replace("/openapi", "").split("<body", 1)[0][:200]
    for path, methods in spec["paths"].items():
        for call in methods.values():
            assert call["responses"]["200"]["content"], path
            assert call["summary"], path
            assert call["tags"], path
            if "requestBody" in call:
                name = call["requestBody"]["content"]["application/json"]["schema"]["$ref"].split(
                    "/"
                )[-1]
                assert spec["components"]["schemas"][name]["examples"], name
    assert {
        f"{API}/recommendations/anonymous",
        f"{API}/items/popular",
        "/predict",
        "/metrics",
        "/",
    } <= set(spec["paths"])


@pytest.mark.spec("S5-41", "S5-43")
def test_fields(client: TestClient, art: Artifacts, user: str) -> None:
    have = rec(client, user)
    assert set(have) == set(RecommendationResponse.model_fields)
    assert have["model_version"].startswith("v-")
    assert have["generated_at"] == "2025-07-02T12:00:00Z"
    info = have["user_info"]
    code = art.hybrid.user_ids_.get_loc(user)
    price = art.hybrid.line_price_[art.hybrid.line_start_[code] : art.hybrid.line_start_[code + 1]]
    assert info["total_purchases"] == len(price)
    assert info["avg_item_price"] == pytest.approx(price.mean(), abs=1e-6)
    assert have["processing_time_ms"] > 0
    assert [row["rank"] for row in have["recommendations"]] == [
        1,
        2,
        3,
        4,
        5,
    ]


@pytest.mark.spec("S5-42")
def test_user_types_and_the_knob(folder: Path, user: str) -> None:
    with serving(folder) as client:
        assert rec(client, user)["user_info"]["user_type"] == "loyal"
        assert rec(client, "nobody")["user_info"]["user_type"] == "unknown"
    with serving(folder, tuning={"loyal_purchases": 100_000}) as client:
        assert rec(client, user)["user_info"]["user_type"] == "new"
        assert got(client, f"{API}/users")["loyal_count"] == 0


@pytest.mark.spec("S5-44", "S5-45")
@pytest.mark.parametrize("model", [*LIVE, *MODELS])
def test_scores_are_shares_and_fall(client: TestClient, art: Artifacts, model: str) -> None:
    for who in [*art.hybrid.user_ids_[:10], "nobody"]:
        rows = rec(client, str(who), n=20, model=model)["recommendations"]
        relevance = [row["relevance_score"] for row in rows if row["model_source"] not in MODELS]
        assert len(relevance) in (0, len(rows))
        assert relevance == sorted(relevance, reverse=True)
        assert all(0 <= share <= 1 for share in relevance)
        sure = [
            row["confidence_score"]
            for row in rows
            if row["model_source"] == rows[0]["model_source"]
        ]
        assert all(0 <= x <= 1 for x in sure)
        assert (
            model in LIVE or rows[0]["model_source"] != model or sure == sorted(sure, reverse=True)
        )


@pytest.mark.spec("S5-47", "S5-48", "S1-24")
def test_a_stranger_gets_what_sells_and_is_told(client: TestClient, art: Artifacts) -> None:
    """By summed quantity, the same for all strangers."""
    units = art.items["units"].sort_values(ascending=False, kind="stable")[:5]
    best = units.index.tolist()
    for model in MODELS:
        for who in ("nobody", "somebody else"):
            have = rec(client, who, model=model)
            assert ids(have) == best
            assert (have["primary_model"], have["fallback_used"]) == (
                "popularity",
                True,
            )
            assert all(
                row["model_source"] == "popularity"
                and row["recommendation_reason"].startswith("Popular with")
                for row in have["recommendations"]
            )
            relevance = [row["relevance_score"] for row in have["recommendations"]]
            assert relevance == pytest.approx((units / units.iloc[0]).tolist())


@pytest.mark.spec("S5-19")
@pytest.mark.parametrize("model", [*LIVE, *MODELS])
def test_filters_act_before_the_cut(
    client: TestClient, art: Artifacts, user: str, model: str
) -> None:
    """A list is short only where the catalogue is.

    20 items of one category, of a narrow range of prices.
    """
    category = art.items["category"].value_counts().index[0]
    for who in (user, "nobody"):
        first = rec(client, who, n=3, model=model, category=category)
        rest = rec(client, who, n=17, model=model, category=category, exclude_items=ids(first))
        both = [*first["recommendations"], *rest["recommendations"]]
        assert len({row["item_id"] for row in both}) == 20
        assert {row["category"] for row in both} == {category}
        low, high = np.quantile(art.hybrid.price_[~np.isnan(art.hybrid.price_)], [0.2, 0.3])
        rows = rec(client, who, n=20, model=model, price_min=low, price_max=high)["recommendations"]
        assert len(rows) == 20
        assert all(low <= row["item_price"] <= high for row in rows)
        rows = rec(client, who, n=20, model=model, price_max=0)["recommendations"]
        assert all(row["item_price"] == 0 for row in rows)


@pytest.mark.spec("S5-11", "S5-19")
def test_a_range_of_prices_takes_the_place_of_the_rules_highest_price(
    folder: Path, art: Artifacts, user: str
) -> None:
    """Whoever asks for dear items gets them, as many as there are."""
    price = art.hybrid.price_
    low = float(np.nanquantile(price, 0.9))
    dear = int((price >= low).sum())
    with serving(folder, tuning={"repurchase_cycle": {"enabled": False}}) as client:
        usual = rec(client, user, n=20)["recommendations"]
        assert max(row["item_price"] for row in usual) < low
        rows = rec(client, user, n=20, price_min=low)["recommendations"]
        assert len(rows) == min(20, dear)
        assert all(row["item_price"] >= low for row in rows)


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


@pytest.mark.spec("S5-62")
def test_anonymous_is_reachable_and_custom_histories(client: TestClient, art: Artifacts) -> None:
    have = got(client, f"{API}/recommendations/anonymous", n=3, price_max=2.5)
    assert have["user_id"] == "anonymous"
    assert len(ids(have)) == 3
    assert all(row["item_price"] <= 2.5 for row in have["recommendations"])
    assert {row["model_source"] for row in have["recommendations"]} == {"popularity"}
    item = art.items["lines"].idxmax()
    have = sent(client, f"{API}/recommendations/custom", items=[item, "unheard of"], n=4)
    assert len(ids(have)) == 4
    assert item not in ids(have)
    assert have["user_info"]["total_purchases"] == 1
    assert any(
        row["recommendation_reason"] == "Similar to 1 item in your purchase history"
        for row in have["recommendations"]
    )
    nothing = sent(client, f"{API}/recommendations/custom", items=["unheard of"])
    assert nothing["fallback_used"]
    assert len(ids(nothing)) == 5


@pytest.mark.spec("S5-62", "S5-19")
def test_anonymous_lists_take_every_filter_before_the_cut(
    client: TestClient, art: Artifacts
) -> None:
    """The same as a stranger's by popularity; full while the catalogue has enough."""
    category = art.items["category"].value_counts().index[0]
    path = f"{API}/recommendations/anonymous"
    low, high = np.quantile(art.hybrid.price_[~np.isnan(art.hybrid.price_)], [0.2, 0.35])
    for filters in (
        {"category": category},
        {"price_min": low, "price_max": high},
        {"in_stock_only": True},
        {"price_min": 0, "price_max": 0},
        {"category": category, "in_stock_only": True, "price_min": low},
    ):
        have = got(client, path, n=20, **filters)["recommendations"]
        assert have == rec(client, "nobody", n=20, model="popularity", **filters)["recommendations"]
        assert all(row["category"] == category for row in have) or "category" not in filters
        assert all(row["stock"] == "in_stock" for row in have) or "in_stock_only" not in filters
        if "price_min" in filters:
            assert all(
                filters["price_min"] <= row["item_price"] <= filters.get("price_max", 1e9)
                for row in have
            )
        assert len(have) == 20 or len(filters) > 1
    first = ids(got(client, path, n=8))
    assert ids(got(client, path, n=5, exclude_items=first[:3])) == first[3:]


@pytest.mark.spec("S5-62", "S5-19")
def test_custom_lists_take_every_filter_before_the_cut(folder: Path, art: Artifacts) -> None:
    """What is left of the whole order is the list: nothing is cut off before."""
    item = art.items["lines"].idxmax()
    wide = {
        "repurchase_cycle": {"enabled": False},
        "user_segments": {"enabled": False},
        "price_sensitivity": {"mode": "off"},
        "candidate_pool_size": len(art.items),
    }
    with serving(folder, tuning=wide) as client:

        def ask(**filters: object) -> list[dict]:
            return sent(client, f"{API}/recommendations/custom", items=[item], n=20, **filters)[
                "recommendations"
            ]

        order = []
        seen = 20
        while seen == 20:
            order += (more := ask(exclude_items=[row["item_id"] for row in order]))
            seen = len(more)
        low, high = np.quantile(
            [row["item_price"] for row in order if row["item_price"]], [0.2, 0.6]
        )
        category = pd.Series(
            [row["category"] for row in order if low <= (row["item_price"] or 0) <= high]
        ).mode()[0]
        keeps = {
            "category": (category, lambda row: row["category"] == category),
            "price_range_min": (low, lambda row: (row["item_price"] or 0) >= low),
            "price_range_max": (high, lambda row: (row["item_price"] or 1e9) <= high),
            "in_stock_only": (True, lambda row: row["stock"] == "in_stock"),
            "exclude_purchased": (True, lambda row: row["item_id"] != item),
        }
        assert item in [row["item_id"] for row in order[:20]]
        for names in [[name] for name in keeps] + [list(keeps)]:
            have = ask(**{name: keeps[name][0] for name in names})
            want = [row["item_id"] for row in order if all(keeps[name][1](row) for name in names)][
                :20
            ]
            assert [row["item_id"] for row in have] == want
            assert want


@pytest.mark.spec("S5-62")
def test_one_item_brings_its_neighbours_before_what_sells(
    client: TestClient, art: Artifacts
) -> None:
    nearest = []
    popular = set(art.items.index[np.argsort(-art.hybrid.popularity)[:5]])
    for item in art.items.index[::9]:
        have = sent(client, f"{API}/recommendations/custom", items=[item])
        near = {
            row["item_id"]
            for row in got(client, f"{API}/items/{item}/similar", n=20)["similar_items"]
        }
        nearest.append(len(near & set(ids(have))) - len(popular & set(ids(have)) - near))
    assert np.mean(nearest) > 2.5


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


KNOBS = [
    {"candidate_pool_size": 3},
    {"loyal_purchases": 100_000},
    {"model_weights": {"als": 1.0, "item_cf": 0.0, "popularity": 0.0}},
    {"upsell": {"enabled": False}},
    {"upsell": {"factor": 1.0}},
    {"upsell": {"price_boost_weight": 1.0}},
    {"user_segments": {"default": "small"}},
    {"user_segments": {"small": 0.05, "low_average": 0.1, "average": 0.2}},
    {"user_segments": {"enabled": False}, "price_sensitivity": {"mode": "off"}},
    {"repurchase_cycle": {"enabled": False}},
    {"repurchase_cycle": {"default_cycle_days": 1000}},
    {"repurchase_cycle": {"exclusion_factor": 0.0}},
    {"price_sensitivity": {"budget_tolerance": 1.1}},
    {"price_sensitivity": {"mode": "off"}},
    {"price_sensitivity": {"mode": "penalty"}},
    {"price_sensitivity": {"mode": "penalty", "full_penalty_at": 1.6}},
    {"price_sensitivity": {"mode": "penalty", "max_penalty": 0.9}},
    {"merchandising": {"pin": ["I00001"]}},
    {"merchandising": {"exclude": ["I00083"]}},
    {"merchandising": {"boost": ["I00135"]}},
    {"merchandising": {"diversity": 0.5}},
    {"merchandising": {"min_relevance": 0.5}},
]


@pytest.fixture(scope="module")
def answers(
    base: Path, art: Artifacts, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list]:
    """What everybody is told under the trained knobs and under each change of one."""
    copy = shutil.copytree(
        base / "data" / "small" / "serving", tmp_path_factory.mktemp("knobs") / "serving"
    )
    result = {}
    with serving(copy) as client:
        for knobs in [{}, *KNOBS]:
            client.app.state.service.config = Settings(tuning=knobs)
            client.app.state.service.load()
            told = [rec(client, str(who), n=20) for who in [*art.hybrid.user_ids_[:25], "nobody"]]
            result[str(knobs)] = [
                (answer["recommendations"], answer["user_info"]) for answer in told
            ]
    return result


@pytest.mark.spec("S5-49")
@pytest.mark.parametrize("knobs", KNOBS, ids=str)
def test_every_knob_changes_the_answers(answers: dict[str, list], knobs: dict) -> None:
    other = (
        knobs.get("price_sensitivity", {})
        if len(knobs) > 1 or len(knobs.get("price_sensitivity", {})) > 1
        else {}
    )
    before = (
        {"price_sensitivity": {"mode": other["mode"]}} if other else {}
    )  # what else had to change for the knob to matter
    assert answers[str(knobs)] != answers[str(before)]


@pytest.mark.spec("S5-49")
def test_popularity_days_needs_training(folder: Path) -> None:
    with serving(folder, tuning={"popularity_days": 28}) as client:
        assert client.get(f"{API}/health/ready").status_code == 503


@pytest.mark.spec("S5-51")
def test_the_cache(folder: Path, user: str) -> None:
    clock = Clock()
    with serving(folder, clock, cache_ttl_seconds=60, cache_max_size=2) as client:
        first = rec(client, user)
        second = rec(client, user)
        assert (first["cached"], second["cached"]) == (False, True)
        assert same(first, second)
        assert not rec(client, user, n=4)["cached"]
        assert not rec(client, user, exclude_items=["I00001"])["cached"]
        assert not rec(client, user)["cached"]  # the size is bounded: it was the oldest of three
        clock.move(59)
        assert rec(client, user)["cached"]
        assert rec(client, user)["generated_at"] == "2025-07-02T12:00:59Z"
        clock.move(2)
        assert not rec(client, user)["cached"]
        assert rec(client, user)["cached"]
        sent(client, f"{API}/events", events=[event("another", "I00001", "view")])
        assert rec(client, user)["cached"]
        sent(client, f"{API}/events", events=[event(user, "I00001", "view")])
        assert not rec(client, user)["cached"]
        assert rec(client, user)["cached"]
        sent(client, f"{API}/reload")
        assert not rec(client, user)["cached"]
    with serving(folder, cache_ttl_seconds=0) as client:
        assert not rec(client, user)["cached"]
        assert not rec(client, user)["cached"]


@pytest.mark.spec("S5-51")
def test_an_answer_is_a_copy(folder: Path, user: str) -> None:
    with serving(folder) as client:
        from recsys_utils.serving.lists import Query

        mine = client.app.state.service
        first = mine.recommend(Query(user))
        first.user_id = "spoilt"
        assert mine.recommend(Query(user)).user_id == user


@pytest.mark.spec("S5-53")
def test_no_file_is_read_by_a_request(folder: Path, user: str) -> None:
    with serving(folder, cache_ttl_seconds=0) as client:
        shutil.rmtree(current(folder))
        (folder / "manifest.json").unlink()
        for model in (*LIVE, *MODELS):
            assert len(ids(rec(client, user, model=model))) == 5
        item = ids(rec(client, user))[0]
        (
            got(client, f"{API}/items/{item}/similar"),
            got(client, f"{API}/users/{user}/profile"),
            got(client, f"{API}/items", q="a"),
        )
        sent(client, f"{API}/new-customer/recommendations", profile={"Age": 30})
        assert client.post(f"{API}/reload").status_code == 503
        # what was served stays
        assert len(ids(rec(client, user))) == 5


@pytest.mark.spec("S5-52")
def test_p95_of_500_mixed_calls_without_cache(client: TestClient, art: Artifacts) -> None:
    """The row asks for 100 ms, we for 20; with slack for a busy machine."""
    users = art.hybrid.user_ids_.astype(str)
    models = (*LIVE, *MODELS)
    times = []
    for n in range(500):
        times.append(
            rec(client, users[n * 7 % len(users)], n=n % 20 + 1, model=models[n % len(models)])[
                "processing_time_ms"
            ]
        )
    print(f"p50 {np.median(times):.2f} ms, p95 {np.quantile(times, 0.95):.2f} ms")
    assert np.quantile(times, 0.95) < 60


def test_items_are_found_by_name_id_and_category(client: TestClient, art: Artifacts) -> None:
    item = art.items.iloc[3]
    for words in (item["name"], item.name, item["category"].upper()):
        have = got(client, f"{API}/items", q=words, limit=100)
        assert item.name in [row["item_id"] for row in have["items"]] or have["count"] > 100
    assert got(client, f"{API}/items", q="no such words")["count"] == 0
    assert got(client, f"{API}/items")["categories"] == sorted(art.items["category"].unique())


@pytest.mark.spec("S3-01", "S3-25")
def test_predictions_of_five(client: TestClient, art: Artifacts, user: str) -> None:
    for who, new in ((user, False), ("nobody", True)):
        have = sent(client, "/predict", user_id=who)
        assert set(have) == {"user_id", "recommendations", "new_user"}
        assert have["new_user"] == new
        assert len(set(have["recommendations"])) == 5
        assert set(have["recommendations"]) <= set(art.items.index)
        assert have["recommendations"] == ids(rec(client, who, model="two_stage"))
    assert sent(client, "/predict_user_list", user_ids=[user, "nobody"]) == [
        sent(client, "/predict", user_id=who) for who in (user, "nobody")
    ]
    assert client.get("/", headers={"accept": "application/json"}).json() == {
        "status": "Green",
        "version": "0.1.0",
    }


@pytest.mark.parametrize("repeats", [True, False])
@pytest.mark.parametrize("model", ["two_stage", "hybrid"])
def test_many_lists_are_those_made_one_by_one(
    folder: Path, art: Artifacts, model: str, repeats: bool
) -> None:
    """Buyers of the last days, strangers and people asked for twice among them."""
    with serving(folder) as client:
        now = client.app.state.service.loaded
        now.art.manifest["repeats"] = repeats
        users = [str(user) for user in art.hybrid.user_ids_]
        items = art.items.index[:3]
        rows = [event(who, item, "purchase") for who in (users[3], "fresh") for item in items]
        sent(client, f"{API}/events", events=rows)
        asked = [*users, "fresh", "nobody", "somebody", users[3], users[4]]
        many = predict_many(now, asked, model, 5)
        for who, answer in zip(asked, many, strict=True):
            one = rec(client, who, model=model)
            assert answer.items == ids(one)
            assert answer.new_user == (one["user_info"]["user_type"] == "unknown")
            assert answer.fallback_used == one["fallback_used"]


@pytest.mark.spec("S3-26")
def test_metrics_count(folder: Path, user: str) -> None:
    with serving(folder) as client:
        rec(client, user), rec(client, user), sent(client, "/predict", user_id="nobody")
        text = client.get("/metrics").text
        assert 'recommendations_total{model="hybrid"} 2.0' in text
        assert 'recommendations_total{model="two_stage"} 1.0' in text
        assert "new_clients_total 1.0" in text
        assert 'cache_lookups_total{outcome="hit"} 1.0' in text
        route = f'route="{API}/recommendations/{{user_id}}"'
        labels = f'method="GET",{route},status="200"'
        assert f"request_duration_seconds_count{{{labels}}} 2.0" in text
        client.request("BREW", "/x" * 50)
        assert "/x/x" not in client.get("/metrics").text
        # labels stay few
        assert "BREW" not in client.get("/metrics").text


@pytest.mark.spec("S2-24", "S2-25")
def test_new_customers(client: TestClient, art: Artifacts) -> None:
    form = got(client, f"{API}/new-customer/fields")
    assert form["available"]
    assert {f["field"] for f in form["fields"]} == set(art.tower.fields)
    assert len(form["fields"]) == 13
    choice, age = (
        next(f for f in form["fields"] if f["field"] == name) for name in ("Gender", "Age")
    )
    assert choice["kind"] == "choice"
    assert set(choice["options"]) <= {"F", "M", "U"}
    assert age["kind"] == "number"
    assert age["minimum"] < age["maximum"]
    profile = {"Age": 28, "Gender": "F", "Country": "never seen", "Income": None}
    have = sent(client, f"{API}/new-customer/recommendations", profile=profile, top_k=7)
    want = art.tower.recommend_for_new_user(profile, 7)
    assert [(row["item"], row["rating"]) for row in have["recommendations"]] == [
        (item, pytest.approx(rating)) for item, rating in want
    ]
    assert (
        len(sent(client, f"{API}/new-customer/recommendations", profile={})["recommendations"]) == 5
    )


@pytest.mark.spec("S2-26")
def test_ratings(client: TestClient, art: Artifacts) -> None:
    item = art.tower.names[0]
    customer = art.tower.profiles.index[0]
    have = sent(client, f"{API}/new-customer/rating", profile={"Age": 40}, item=item)
    assert have["rating"] == pytest.approx(art.tower.predict_rating({"Age": 40}, item))
    assert have["text"] == f"{have['rating']:.2f}/5.0"
    assert 1 <= have["rating"] <= 5
    brand = art.tower.catalog["Product_Brand"].iloc[0]
    assert sent(
        client, f"{API}/new-customer/rating", customer_id=customer, item={"Product_Brand": brand}
    )["rating"] == pytest.approx(art.tower.predict_rating(customer, {"Product_Brand": brand}))
    assert (
        client.post(
            f"{API}/new-customer/rating", json={"customer_id": "nobody", "item": item}
        ).status_code
        == 404
    )


@pytest.mark.spec("S4-14", "S4-15", "S4-16", "S4-17", "S4-18")
def test_the_worked_example(client: TestClient) -> None:
    """view, view, cart, remove → 4; purchase → absent; a later view → still absent."""
    steps = [("view", 1), ("view", 2), ("cart", 5), ("remove_from_cart", 4)]
    for n, (kind, score) in enumerate(steps):
        have = sent(
            client, f"{API}/events", events=[event("worked", "I00001", kind, event_id=f"w{n}")]
        )
        assert (have["accepted"], have["duplicates"], have["purchases"]) == (1, 0, 0)
        assert got(client, f"{API}/queue/worked")["pool"] == [["I00001", 0, score]]
    assert (
        sent(
            client, f"{API}/events", events=[event("worked", "I00001", "purchase", event_id="w9")]
        )["purchases"]
        == 1
    )
    sent(client, f"{API}/events", events=[event("worked", "I00001", "view", event_id="w10")])
    have = got(client, f"{API}/queue/worked")
    assert have["pool"] == []
    assert have["purchased"] == ["I00001"]
    for _ in range(5):
        assert "I00001" not in [
            row["item_id"] for row in sent(client, f"{API}/queue/worked/next?n=20")["shown"]
        ]


@pytest.mark.spec("S4-20", "S4-26")
def test_the_queue_rotates_and_counts(client: TestClient) -> None:
    sent(
        client,
        f"{API}/events",
        events=[event("rota", item, "cart") for item in ("I00001", "I00002", "I00003")],
    )
    before = got(client, f"{API}/queue/rota")
    assert before["pool"] == [["I00001", 0, 3], ["I00002", 0, 3], ["I00003", 0, 3]]
    assert before["shown"] == []
    assert before == got(client, f"{API}/queue/rota")
    shown = sent(client, f"{API}/queue/rota/next")
    assert {row["item_id"] for row in shown["shown"]} == {"I00001", "I00002", "I00003"}
    assert all(row["counter"] == 1 for row in shown["shown"])
    assert len(shown["pool"]) == 6
    assert [
        count for item, count, _ in shown["pool"] if item in ("I00001", "I00002", "I00003")
    ] == [1, 1, 1]
    again = sent(client, f"{API}/queue/rota/next?n=5")
    assert len(again["shown"]) == 5
    assert got(client, f"{API}/queue/rota") == again | {"shown": []}
    assert not {row["item_id"] for row in again["shown"][:3]} & {
        row["item_id"] for row in shown["shown"]
    }
    assert set(shown["names"]) == {item for item, _, _ in shown["pool"]}
    assert shown["weights"]["cart"] == 3


def test_the_queue_tells_the_calibrated_probability_of_purchase(
    client: TestClient, folder: Path
) -> None:
    shown = sent(client, f"{API}/queue/{USER}/next?n=5")["shown"]
    with Queue(folder / "online" / DATABASE, read_only=True) as queue:
        net = load_net(queue, folder / "online")
    wanted = net.purchase_probability([USER] * 5, [row["item_id"] for row in shown])
    np.testing.assert_allclose([row["purchase_probability"] for row in shown], wanted, atol=1e-6)
    assert ((wanted > 0) & (wanted < 1)).all()


def test_a_queue_s_model_of_an_older_version_is_told_with_the_cure(folder: Path) -> None:
    """Its output was no probability of purchase: queues go without it until it is trained again."""
    state = folder / "online"
    with Queue(state / DATABASE) as queue:
        queue.set("model", older(state, queue.get("model")))
    with serving(folder) as api:
        parts = got(api, f"{API}/health")["parts"]
        shown = sent(api, f"{API}/queue/{USER}/next")["shown"]
    assert "of an older version" in parts["queue_model"]
    assert "run python -m recsys_utils.online train again" in parts["queue_model"]
    assert [row["purchase_probability"] for row in shown] == [None] * 3


def test_the_purchases_of_a_queue_come_in_pages(client: TestClient) -> None:
    rows = [event("pages", f"p{n:03d}", "purchase") for n in range(25)]
    sent(client, f"{API}/events", events=rows)
    whole = got(client, f"{API}/queue/pages")
    assert whole["purchased"] == [row["item_id"] for row in rows]
    page = got(client, f"{API}/queue/pages", limit=10, offset=20)
    assert page["purchased"] == whole["purchased"][20:]
    assert page["purchased_count"] == whole["purchased_count"] == 25


@pytest.mark.spec("S4-28")
def test_the_same_event_twice_is_one(client: TestClient) -> None:
    rows = [
        event("twice", "I00002", "view", timestamp="2025-07-01T10:00:00"),
        event("twice", "I00002", "view", timestamp="2025-07-01T12:00:00+02:00"),
        event("twice", "I00002", "view", event_id="a"),
        event("twice", "I00002", "view", event_id="a"),
    ]
    assert sent(client, f"{API}/events", events=rows) == {
        "accepted": 2,
        "duplicates": 2,
        "late": pytest.approx(1, abs=1),
        "purchases": 0,
    }
    again = sent(client, f"{API}/events", events=rows)
    assert (again["accepted"], again["duplicates"]) == (0, 4)
    assert got(client, f"{API}/queue/twice")["pool"] == [["I00002", 0, 2]]


def test_a_receipt_that_the_models_learnt_from_is_not_counted_twice(
    folder: Path, art: Artifacts, user: str
) -> None:
    code = art.hybrid.user_ids_.get_loc(user)
    line = art.hybrid.line_start_[code]
    item = str(art.hybrid.item_ids_[art.hybrid.line_item_[line]])
    ts = art.hybrid.as_of - pd.Timedelta(days=float(art.hybrid.line_age_[line]))
    with serving(folder) as client:
        before = rec(client, user)["user_info"]["total_purchases"]
        again = event(user, item, "purchase", timestamp=str(ts.round("s")), event_id="other")
        assert sent(client, f"{API}/events", events=[again])["accepted"] == 1
        assert rec(client, user)["user_info"]["total_purchases"] == before


def test_before_the_first_purchase_a_shopper_is_a_stranger(client: TestClient, user: str) -> None:
    """What the models learnt later is not used, and the answer says so."""
    stranger = rec(client, "nobody", timestamp="2010-01-01T00:00:00")
    early = rec(client, user, timestamp="2010-01-01T00:00:00")
    assert ids(early) == ids(stranger)
    assert early["user_info"]["total_purchases"] == 0
    assert early["fallback_used"]
    assert early["notes"] == ["Hybrid → Popularity: this shopper had bought nothing by then."]
    assert "preferences" not in str(early["recommendations"])
    assert stranger["notes"] == ["Hybrid → Popularity: this shopper is unknown."]


def test_an_event_id_is_its_shoppers_and_stands_for_one_content(client: TestClient) -> None:
    """The same content again is a duplicate; other content is refused and says so."""
    first = event("idann", "I00002", "view", event_id="same")
    assert sent(client, f"{API}/events", events=[first])["accepted"] == 1
    assert sent(client, f"{API}/events", events=[first, first])["duplicates"] == 2
    other = event("idbob", "I00003", "cart", event_id="same")
    assert sent(client, f"{API}/events", events=[other])["accepted"] == 1
    assert got(client, f"{API}/queue/idbob")["pool"] == [["I00003", 0, 3]]
    innocent = event("idann", "I00004", "view")
    for change in (
        {"item_id": "I00009"},
        {"event_type": "purchase"},
        {"timestamp": "2025-07-01T10:00:00"},
    ):
        answer = client.post(f"{API}/events", json={"events": [innocent, first | change]})
        assert answer.status_code == 409
        assert answer.json()["error"].startswith("events.1.event_id 'same' was given to another")
    twice = [event("idcat", "I00002", kind, event_id="new") for kind in ("view", "cart")]
    assert client.post(f"{API}/events", json={"events": twice}).status_code == 409
    assert got(client, f"{API}/queue/idann")["pool"] == [["I00002", 0, 1]]
    assert got(client, f"{API}/queue/idcat")["pool"] == []


def test_many_at_once_are_answered_by_a_few_threads(folder: Path) -> None:
    """Each thread keeps a connection with megabytes of pages.

    As many as there may be requests would be a gigabyte.
    """
    with serving(folder, max_waiting=100) as client, ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda n: client.get(f"{API}/queue/shopper{n}"), range(200)))
        assert {answer.status_code for answer in answers} == {200}
        assert (
            len(client.app.state.service.online.queue.connections) <= THREADS + 2
        )  # and the threads that load and test


def test_a_posted_purchase_counts_at_once_and_after_a_restart(folder: Path, user: str) -> None:
    """Repurchase rule, exclude_purchased, the user's facts.

    What was bought today is known today.
    """
    with serving(folder) as client:
        before = rec(client, user)
        item = ids(before)[0]
        assert (
            sent(
                client,
                f"{API}/events",
                events=[event(user, item, "purchase", timestamp="2025-07-02T11:00:00Z")],
            )["purchases"]
            == 1
        )
        after = rec(client, user)
        assert item not in ids(after)
        assert after["user_info"]["last_purchase_date"] == "2025-07-02T11:00:00"
        assert after["user_info"]["total_purchases"] == before["user_info"]["total_purchases"] + 1
        assert item not in ids(rec(client, user, n=20, model="two_stage", exclude_purchased=True))
        assert sent(client, f"{API}/events", events=[event("fresh face", item, "purchase")])
        assert not rec(client, "fresh face")["fallback_used"]
        assert got(client, f"{API}/users/fresh face/profile")["is_known_user"]
    with serving(folder) as client:
        assert same(rec(client, user), after)
        assert sent(client, f"{API}/reload")["previous_version"]
        assert same(rec(client, user), after)
    assert NOW


def test_a_purchase_before_the_models_cut_counts_whenever_it_comes(
    folder: Path, art: Artifacts, user: str
) -> None:
    """Exclusion, the repurchase cycle, counts and the last date see it; after a restart too."""
    stranger = "late face"
    moment = art.hybrid.as_of - pd.Timedelta(hours=30)
    with serving(folder, cache_ttl_seconds=0) as client:
        before = rec(client, user, n=20, exclude_purchased=True)
        item = ids(before)[0]
        rows = [event(who, item, "purchase", timestamp=str(moment)) for who in (user, stranger)]
        assert sent(client, f"{API}/events", events=rows)["purchases"] == 2
        for model in (*LIVE, *MODELS):
            assert item not in ids(rec(client, user, n=20, model=model, exclude_purchased=True))
        after = rec(client, user)
        assert item not in ids(after)
        known = got(client, f"{API}/users/{stranger}/profile")
        assert known["user_info"]["total_purchases"] == 1
        assert pd.Timestamp(known["user_info"]["last_purchase_date"]) == moment.floor("us")
        had = before["user_info"]["total_purchases"]
        assert after["user_info"]["total_purchases"] == had + 1
        told = got(client, f"{API}/recommendations/{user}/explain", item_id=item)
        assert told["recommendation_reason"].startswith("Left out: bought 1 days ago")
    with serving(folder, cache_ttl_seconds=0) as client:
        assert same(rec(client, user), after)


def test_what_training_posted_counts_once(client: TestClient, art: Artifacts) -> None:
    """The queue's purchases of the history are those of the receipts, not more."""
    lines = np.diff(art.hybrid.line_start_)
    for code in np.argsort(-lines)[::20]:
        info = rec(client, str(art.hybrid.user_ids_[code]))["user_info"]
        assert info["total_purchases"] == lines[code]
