"""The service's lists, row by row: every model over HTTP, moments, filters, made-up histories."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from asking import API, LIVE, got, ids, rec, same, sent
from fastapi.testclient import TestClient
from test_serving_shop import MODELS, current, serving

from recsys_utils.ensembles.hybrid import Hybrid
from recsys_utils.serving.artifacts import Artifacts
from recsys_utils.store import read_parquet


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
