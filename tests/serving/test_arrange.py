"""What people decide of lists: pins, boosts, exclusions, variety, relevance; and its preview."""

import copy
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from test_serving_shop import MODELS, serving

from recsys_utils.ensembles.business_rules import arranged
from recsys_utils.ensembles.rule_settings import tuned
from recsys_utils.serving.artifacts import IN, OUT, Artifacts
from recsys_utils.serving.preview import as_toml, expected
from recsys_utils.serving.views import similar

API = "/api/v1"
EVERY = ("hybrid", "als", "item_cf", "popularity", *MODELS)


def listed(client: TestClient, user: str, **body: object) -> dict:
    answer = client.post(f"{API}/recommendations", json={"user_id": user} | body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def ids(answer: dict) -> list[str]:
    return [row["item_id"] for row in answer["recommendations"]]


@pytest.fixture(scope="module")
def user(art: Artifacts) -> str:
    return str(art.hybrid.user_ids_[np.diff(art.hybrid.line_start_).argmax()])


@pytest.fixture(scope="module")
def best(art: Artifacts) -> str:
    """What sells most."""
    return str(art.items["units"].idxmax())


@pytest.fixture(scope="module")
def tuned_client(
    base: Path, best: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TestClient]:
    """A service whose knobs pin one product and never show another."""
    folder = tmp_path_factory.mktemp("arranged") / "serving"
    shutil.copytree(base / "data" / "small" / "serving", folder)
    knobs = {"merchandising": {"pin": ["I00010"], "exclude": [best], "diversity": 0.3}}
    with serving(folder, cache_ttl_seconds=0, tuning=knobs) as client:
        yield client


@pytest.mark.parametrize("model", EVERY)
def test_pinned_products_come_first_whatever_the_model_says(
    client: TestClient, user: str, model: str
) -> None:
    plain = listed(client, user, model_type=model, num_recommendations=10)
    pins = [ids(plain)[6], "I00010"]
    answer = listed(client, user, model_type=model, num_recommendations=10, pin_items=pins)
    rest = [item for item in ids(plain) if item not in pins]
    assert ids(answer) == [*pins, *rest][:10]
    first = answer["recommendations"][0]
    assert first["recommendation_reason"] == "Picked by the shop"
    assert first["score"] == pytest.approx(plain["recommendations"][6]["score"])
    assert answer["notes"] == ["2 of 10 were picked by the shop."]


@pytest.mark.parametrize("model", EVERY)
def test_a_filter_leaves_out_a_pinned_product_too(
    client: TestClient, user: str, model: str
) -> None:
    pin = ids(listed(client, user, model_type=model))[0]
    assert pin not in ids(
        listed(client, user, model_type=model, pin_items=[pin], exclude_items=[pin])
    )


@pytest.mark.parametrize("model", EVERY)
def test_a_boost_moves_a_product_up(client: TestClient, user: str, model: str) -> None:
    plain = ids(listed(client, user, model_type=model, num_recommendations=20))
    boosted = plain[15]
    answer = listed(client, user, model_type=model, num_recommendations=20, boost_items=[boosted])
    assert ids(answer).index(boosted) < 15
    assert [item for item in ids(answer) if item != boosted][:10] == [
        item for item in plain if item != boosted
    ][:10]


@pytest.mark.parametrize("model", EVERY)
def test_variety_makes_the_products_less_alike(
    client: TestClient, art: Artifacts, user: str, model: str
) -> None:
    def likeness(answer: dict) -> float:
        alike = art.hybrid.alike(art.items.index.get_indexer(ids(answer)))
        return float(alike[np.triu_indices(len(alike), 1)].mean())

    plain = listed(client, user, model_type=model, num_recommendations=10)
    same = listed(client, user, model_type=model, num_recommendations=10, diversity=0)
    varied = listed(client, user, model_type=model, num_recommendations=10, diversity=0.9)
    assert ids(same) == ids(plain)
    assert ids(varied)[0] == ids(plain)[0]
    assert likeness(varied) < likeness(plain)


def test_mmr_is_the_textbooks_greedy_choice() -> None:
    rng = np.random.default_rng(3)
    points = rng.random((12, 4))
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    alike = unit @ unit.T
    worth = np.sort(rng.random(12))[::-1]
    chosen = []
    while len(chosen) < 6:
        gains = {
            item: 0.6 * worth[item] - 0.4 * max((alike[item, one] for one in chosen), default=0)
            for item in range(12)
            if item not in chosen
        }
        chosen.append(max(gains, key=gains.get))
    assert arranged(worth, alike, 6, 0.4).tolist() == chosen


def test_a_minimum_of_relevance_shortens_the_list(client: TestClient, user: str) -> None:
    plain = listed(client, user, num_recommendations=10)["recommendations"]
    least = plain[4]["relevance_score"]
    answer = listed(client, user, num_recommendations=10, min_relevance=least)
    assert ids(answer) == [row["item_id"] for row in plain if row["relevance_score"] >= least]


def test_a_minimum_of_relevance_is_refused_where_scores_have_no_scale(
    client: TestClient, user: str
) -> None:
    body = {"user_id": user, "model_type": "own_decayed", "min_relevance": 0.5}
    answer = client.post(f"{API}/recommendations", json=body)
    assert answer.status_code == 422
    assert "min_relevance needs scores with a scale" in answer.json()["error"]


@pytest.mark.parametrize("field", ["pin_items", "boost_items", "exclude_items"])
def test_an_unknown_product_is_named(client: TestClient, user: str, field: str) -> None:
    answer = client.post(f"{API}/recommendations", json={"user_id": user, field: ["nothing"]})
    assert answer.status_code == 422
    assert f"{field} names 'nothing'" in answer.json()["error"]


def test_get_takes_the_same_wishes_as_post(client: TestClient, user: str) -> None:
    wishes = {"pin_items": ["I00010", "I00011"], "boost_items": ["I00012"], "diversity": 0.5}
    got = client.get(f"{API}/recommendations/{user}", params=wishes | {"min_relevance": 0.1})
    assert ids(got.json()) == ids(listed(client, user, **wishes, min_relevance=0.1))


def test_the_knobs_hold_for_every_list_and_predictions_agree(
    tuned_client: TestClient, user: str, best: str
) -> None:
    for model in EVERY:
        found = ids(listed(tuned_client, user, model_type=model, num_recommendations=20))
        assert found[0] == "I00010"
        assert best not in found
    one = tuned_client.post("/predict", json={"user_id": user}).json()
    many = tuned_client.post("/predict_user_list", json={"user_ids": [user, "nobody"]}).json()
    assert many[0] == one
    assert many[1]["recommendations"][0] == "I00010"


def test_knobs_that_name_an_unknown_product_are_refused_at_the_start(folder: Path) -> None:
    with serving(folder, tuning={"merchandising": {"pin": ["nothing"]}}) as client:
        assert client.get(f"{API}/health").json()["status"] == "failed"
        said = client.get(f"{API}/health/ready").json()["error"]
        assert "merchandising.pin names 'nothing'" in said


def test_one_setting_chooses_who_answers_and_what_the_page_opens_with(folder: Path) -> None:
    with serving(folder, default_model="own_decayed") as client:
        about = client.get(f"{API}/models").json()
        assert (about["default"], about["page"]) == ("own_decayed", "own_decayed")
        user = client.get(f"{API}/users?limit=1").json()["users"]["loyal"][0]
        assert listed(client, user)["primary_model"] == "own_decayed"
        got = client.get(f"{API}/recommendations/{user}").json()
        assert got["primary_model"] == "own_decayed"
        assert listed(client, user, model_type="hybrid")["primary_model"] == "hybrid"
    with serving(folder, default_model="nothing") as client:
        assert client.get(f"{API}/health").json()["status"] == "failed"


def test_the_fallback_names_the_models_that_were_tried_and_why(
    client: TestClient, user: str
) -> None:
    def told(**body: object) -> list[tuple[str, str]]:
        steps = listed(client, **body)["fallback"]
        return [(step["model"], step["outcome"]) for step in steps]

    unknown = "this shopper is unknown"
    last = ("popularity", "made the list: what sells most, for everybody")
    assert told(user="nobody") == [("als", unknown), ("item_cf", unknown), last]
    assert told(user="nobody", model_type="two_stage") == [("two_stage", unknown), last]
    assert told(user=user) == []
    assert told(user=user, model_type="two_stage") == []
    short = told(user=user, model_type="own_decayed", num_recommendations=20, price_range_max=0.9)
    assert [model for model, _ in short] == ["own_decayed", "popularity"]
    assert short[1][1].startswith("filled")


def test_when_a_product_was_bought_last_is_told(
    client: TestClient, art: Artifacts, user: str
) -> None:
    code = art.hybrid.user_ids_.get_loc(user)
    last = art.hybrid.last_[code].toarray().ravel()
    bought = art.hybrid.seen_[code].toarray().ravel() > 0
    for row in listed(client, user, model_type="own_decayed", num_recommendations=20)[
        "recommendations"
    ]:
        item = art.items.index.get_loc(row["item_id"])
        if not bought[item]:
            assert row["last_purchase_date"] is None
            continue
        moment = art.hybrid.as_of - pd.Timedelta(days=last[item])
        assert abs(pd.Timestamp(row["last_purchase_date"]) - moment) < pd.Timedelta(seconds=1)


def test_near_ids_are_one_slip_away_and_only_of_the_unknown(client: TestClient, user: str) -> None:
    def near(text: str) -> list[str]:
        return client.get(f"{API}/users/{text}/profile").json()["near"]

    swapped = user[:-2] + user[-1] + user[-2]
    for slip in (user[:-1], f"{user}7", user.lower(), f"{user[:-1]}x", f"  {user}"):
        assert user in near(slip), slip
    if swapped != user and not client.get(f"{API}/users/{swapped}/profile").json()["is_known_user"]:
        assert user in near(swapped)
    assert near(user) == []
    assert near("somebody else") == []


def test_similar_products_without_what_is_sold_out(art: Artifacts) -> None:
    item = int(art.items["lines"].to_numpy().argmax())
    every = [row.item_id for row in similar(art, item, 20)]
    gone = every[::2]
    other = copy.copy(art)
    other.stocks = {None: np.where(art.items.index.isin(gone), OUT, IN)}
    there = [row.item_id for row in similar(other, item, 10, in_stock_only=True)]
    assert there[: len(every[1::2])] == every[1::2][:10]
    assert not set(there) & set(gone)


def test_confidence_falls_down_the_list_and_a_filter_lends_none(
    client: TestClient, user: str
) -> None:
    for model in EVERY:
        rows = listed(client, user, model_type=model, num_recommendations=20)["recommendations"]
        sure = [row["confidence_score"] for row in rows]
        assert sure == sorted(sure, reverse=True)
        deep = [row["item_id"] for row in rows[:8]]
        rest = listed(client, user, model_type=model, num_recommendations=5, exclude_items=deep)[
            "recommendations"
        ]
        by_id = {row["item_id"]: row["confidence_score"] for row in rows}
        for row in rest:
            if row["item_id"] in by_id:
                assert row["confidence_score"] == by_id[row["item_id"]]


def test_the_cart_holds_what_was_put_in_and_neither_taken_out_nor_bought(
    client: TestClient,
) -> None:
    def post(item: str, kind: str, n: int) -> list[str]:
        event = {"user_id": "carter", "item_id": item, "event_type": kind, "event_id": f"c{n}"}
        client.post(f"{API}/events", json={"events": [event]})
        answer = client.get(f"{API}/queue/carter").json()
        assert set(answer["cart"]) <= set(answer["names"])
        return answer["cart"]

    assert post("I00001", "view", 1) == []
    assert post("I00001", "cart", 2) == ["I00001"]
    assert post("I00002", "cart", 3) == ["I00001", "I00002"]
    assert post("I00001", "remove_from_cart", 4) == ["I00002"]
    assert post("I00002", "purchase", 5) == []


def test_a_preview_shows_both_lists_and_changes_nothing(client: TestClient, user: str) -> None:
    body = {"user_id": user, "tuning": {"repurchase_cycle": {"enabled": False}}}
    before = client.get(f"{API}/config").json()
    answer = client.post(f"{API}/preview", json=body)
    assert answer.status_code == 200, answer.text
    have = answer.json()
    assert ids(have["before"]) == ids(listed(client, user))
    assert ids(have["after"]) != ids(have["before"])
    assert tomllib.loads(have["toml"]) == {"repurchase_cycle": {"enabled": False}}
    assert have["changes"][0]["knob"] == "Repurchase, × cycle"
    assert client.get(f"{API}/config").json() == before
    assert ids(listed(client, user)) == ids(have["before"])


def test_a_preview_is_the_list_of_a_service_with_that_file(
    client: TestClient, folder: Path, user: str
) -> None:
    tuning = {"model_weights": {"als": 0.1, "item_cf": 0.8, "popularity": 0.1}}
    body = {"user_id": user, "n": 10, "tuning": tuning}
    have = client.post(f"{API}/preview", json=body).json()
    with serving(folder, tuning=tomllib.loads(have["toml"])) as other:
        assert ids(have["after"]) == ids(listed(other, user, num_recommendations=10))


@pytest.mark.parametrize(
    ("tuning", "said"),
    [
        ({"upsell": {"faktor": 1}}, "'upsell.faktor' is an unknown key"),
        ({"upsell": 1}, "it takes a table"),
        ({"model_weights": {"als": 0.9}}, "they must sum to 1"),
        ({"merchandising": {"pin": "I1"}}, "it takes a list of ids"),
        ({"merchandising": {"pin": ["nothing"]}}, "names 'nothing'"),
        ({"popularity_days": 3}, "fit a new Hybrid"),
    ],
)
def test_knobs_that_are_no_good_are_refused(
    client: TestClient, user: str, tuning: dict, said: str
) -> None:
    answer = client.post(f"{API}/preview", json={"user_id": user, "tuning": tuning})
    assert answer.status_code == 422
    assert said in answer.json()["error"]


def test_the_expected_cost_is_the_studys_and_on_the_line_between_two_of_its_values() -> None:
    costs = pd.DataFrame(
        {
            "knob": ["Repurchase, × cycle"] * 3 + ["Price cap, × mean price"] * 2,
            "value": ["off", "0.2", "0.4", "off", "2"],
            "precision": [0.26, 0.22, 0.18, 0.26, 0.24],
            "revenue_share": [0.2, 0.18, 0.1, 0.2, 0.15],
        }
    )
    assert expected(costs, "Repurchase, × cycle", "off").tolist() == [0.26, 0.2]
    assert expected(costs, "Repurchase, × cycle", 0.4).tolist() == [0.18, 0.1]
    assert expected(costs, "Repurchase, × cycle", 0.3) == pytest.approx([0.2, 0.14])
    assert expected(costs, "Repurchase, × cycle", 0.1) == pytest.approx([0.24, 0.19])
    assert expected(costs, "Repurchase, × cycle", 9.0) == pytest.approx([0.18, 0.1])
    assert expected(costs, "Price cap, × mean price", 5.0) == pytest.approx([0.24, 0.15])
    assert expected(costs, "Upsell factor", 0.1) is None
    assert expected(costs, "Price cap, × mean price", "on") is None


def test_the_file_holds_what_differs_and_reads_back() -> None:
    knobs = tuned(
        {
            "loyal_purchases": 5,
            "price_sensitivity": {"mode": "penalty", "budget_tolerance": 2.0},
            "merchandising": {"pin": ['a "quoted" id', "b\\c"], "diversity": 0.25},
        }
    )
    assert tuned(tomllib.loads(as_toml(knobs))) == knobs
    assert as_toml(tuned({})) == ""


def test_a_new_customer_is_asked_what_matters_and_told_price_stock_and_why(
    client: TestClient, art: Artifacts
) -> None:
    fields = client.get(f"{API}/new-customer/fields").json()["fields"]
    assert sum(one["weight"] for one in fields) == pytest.approx(1, abs=0.01)
    asked = [one["weight"] for one in fields if one["asked"]]
    assert 3 <= len(asked) <= 4
    assert min(asked) >= max(one["weight"] for one in fields if not one["asked"])
    choice = next(one for one in fields if one["kind"] == "choice")
    profile = {choice["field"]: choice["options"][0]}
    body = {"profile": profile, "top_k": 10}
    rows = client.post(f"{API}/new-customer/recommendations", json=body).json()["recommendations"]
    suits = f"Suits {choice['field'].replace('_', ' ').lower()} {choice['options'][0]}"
    assert {row["reason"] for row in rows} <= {suits, "Liked by most customers"}
    for row in rows:
        code = art.items.index.get_loc(row["item_id"])
        assert row["item_name"] == art.names[code]
        assert row["item_price"] == pytest.approx(art.hybrid.price_[code])
    body = {"profile": {}, "top_k": 3}
    rows = client.post(f"{API}/new-customer/recommendations", json=body).json()["recommendations"]
    assert {row["reason"] for row in rows} == {"Liked by most customers"}
