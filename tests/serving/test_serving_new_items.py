"""A promise over HTTP: so many items of a list are new to the shopper, and who chose them."""

from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from shops import ranked, receipts
from test_serving_shop import NOW, current, serving

from recsys_utils.data.interactions import Interactions
from recsys_utils.ensembles import new_for_you
from recsys_utils.serving.arrange import RankedList, with_new
from recsys_utils.serving.artifacts import KIND, Artifacts, service_manifest
from recsys_utils.store import write_manifest

API = "/api/v1/recommendations"
MODELS = ("hybrid", "als", "two_stage", "own_decayed", "preference_pairs", "two_stage_new")


def asked(client: TestClient, user: str, **params: object) -> dict:
    answer = client.get(f"{API}/{user}", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def ids(answer: dict) -> list[str]:
    return [row["item_id"] for row in answer["recommendations"]]


def new(answer: dict) -> list[str]:
    rows = answer["recommendations"]
    return [row["item_id"] for row in rows if row["last_purchase_date"] is None]


def made_of(codes: list[int]) -> RankedList:
    numbers = [np.arange(len(codes), dtype=float) for _ in range(3)]
    told = [""] * len(codes)
    return RankedList(np.array(codes, int), *numbers, told, told, "hybrid", False)


@given(
    best=st.permutations(range(10)),
    others=st.permutations(range(10)),
    length=st.integers(0, 10),
    bought=st.sets(st.integers(0, 9), min_size=1),
    promise=st.tuples(st.integers(0, 6), st.integers(1, 6)).filter(lambda pair: pair[0] <= pair[1]),
)
def test_the_service_and_the_mailing_mix_by_one_rule(
    best: list[int],
    others: list[int],
    length: int,
    bought: set[int],
    promise: tuple[int, int],
) -> None:
    new, n = promise
    best = best[:length]
    is_bought = np.isin(np.arange(10), list(bought))
    served = with_new(made_of(best), made_of(others), is_bought, new, n).item.tolist()
    history = Interactions.of(receipts("\n".join(f"u {i} b 2024-01-01 1 1" for i in bought)))
    tables = [ranked([("u", str(i)) for i in codes]) for codes in (best, others)]
    mailed = new_for_you.with_new(*tables, history, new, n)["item_id"].astype(int).tolist()
    assert served == mailed or not best  # the mailing lists for those only who have a list


@pytest.fixture
def without(folder: Path) -> Path:
    """The same shop, trained without the model for what is new."""
    manifest = service_manifest(folder)
    files = {name: current(folder) / name for name in manifest["sha256"]}
    del files["lists/two_stage_new.parquet"], manifest["lists"]["two_stage_new"]
    write_manifest(folder / "manifest.json", KIND, files, manifest, manifest["cut"])
    return folder


@pytest.mark.parametrize("model", MODELS)
def test_the_promise_is_kept_for_every_shopper(
    client: TestClient, art: Artifacts, model: str
) -> None:
    for user in art.hybrid.user_ids_:
        answer = asked(client, user, model=model, n=5, new_items=3)
        assert len(set(ids(answer))) == 5
        assert len(new(answer)) >= 3
        assert [row["rank"] for row in answer["recommendations"]] == [1, 2, 3, 4, 5]


def test_what_was_bought_and_stands_lowest_makes_room_for_the_first_new_items(
    client: TestClient, user: str
) -> None:
    before = asked(client, user, model="own_decayed")
    discoveries = ids(asked(client, user, model="two_stage_new", n=20))
    assert new(before) == []
    for n in range(6):
        answer = asked(client, user, model="own_decayed", new_items=n)
        assert ids(answer) == ids(before)[: 5 - n] + discoveries[:n]
        rows = answer["recommendations"][5 - n :]
        assert {row["model_source"] for row in rows} <= {"two_stage_new"}
        assert all(row["recommendation_reason"].startswith("New for you: ") for row in rows)
        assert all(0 <= row["confidence_score"] <= 1 for row in rows)
        assert answer["notes"] == []


def test_a_list_that_is_new_enough_stays_as_it_is(client: TestClient, user: str) -> None:
    for more in ({"exclude_purchased": True}, {"model": "two_stage_new"}):
        plain = asked(client, user, n=6, **more)
        assert len(new(plain)) == 6
        assert ids(asked(client, user, n=6, new_items=6, **more)) == ids(plain)
    stranger = asked(client, "a stranger", new_items=5)
    assert ids(stranger) == ids(asked(client, "a stranger"))
    assert len(stranger["notes"]) == 1


def test_the_reason_is_the_item_of_the_history_that_goes_best_with_it(
    client: TestClient, art: Artifacts, user: str
) -> None:
    row = asked(client, user, model="two_stage_new")["recommendations"][0]
    answer = client.get(
        f"{API}/{user}/explain", params={"item_id": row["item_id"], "model": "two_stage_new"}
    ).json()
    assert row["recommendation_reason"] == answer["recommendation_reason"]
    best = answer["neighbours"][0]["item_name"]
    assert row["recommendation_reason"] == f"New for you: goes with {best}"


def test_filters_hold_for_the_promised_items_and_a_shortage_is_told(
    client: TestClient, art: Artifacts, user: str
) -> None:
    plain = asked(client, user, model="two_stage", n=20, new_items=20)
    category = plain["recommendations"][0]["category"]
    price = float(np.nanmedian(art.hybrid.price_))
    filters = {"category": category, "price_max": price, "in_stock_only": True}
    left = {"exclude_items": ids(plain)[:5]}
    answer = asked(client, user, model="two_stage", n=20, new_items=20, **filters, **left)
    rows = answer["recommendations"]
    assert all(row["category"] == category and row["stock"] == "in_stock" for row in rows)
    assert all(row["item_price"] <= price for row in rows)
    assert not set(ids(answer)) & set(left["exclude_items"])
    assert 0 < len(rows) < 20
    told = f"Only {len(new(answer))} of the 20 new products asked for fit."
    assert answer["notes"] == [told]


def test_what_was_bought_since_training_is_not_new(folder: Path, user: str) -> None:
    with serving(folder, cache_ttl_seconds=0) as api:
        first = ids(asked(api, user, model="two_stage_new"))[0]
        event = {"user_id": user, "item_id": first, "event_type": "purchase"}
        sent = api.post("/api/v1/events", json={"events": [event | {"timestamp": str(NOW)}]})
        assert sent.status_code == 200
        assert first not in ids(asked(api, user, model="two_stage_new"))
        answer = asked(api, user, model="own_decayed", new_items=5)
        assert first not in new(answer)
        assert len(new(answer)) == 5


def test_pins_stay_in_front_of_the_promise(client: TestClient, user: str) -> None:
    bought = ids(asked(client, user, model="own_decayed"))[4]
    answer = asked(client, user, model="own_decayed", pin_items=[bought], new_items=4)
    assert ids(answer)[0] == bought
    assert len(new(answer)) == 4


def test_without_the_model_the_asked_one_chooses_and_it_is_told(without: Path, user: str) -> None:
    with serving(without) as api:
        answer = asked(api, user, model="own_decayed", new_items=3)
    assert len(new(answer)) == 3
    note = "New for you (two-stage) was not trained for this shop: Own purchases chose what is new."
    assert answer["notes"] == [note]


def test_a_made_up_history_is_told_too(client: TestClient, user: str) -> None:
    items = ids(asked(client, user, n=3))
    answer = client.post(f"{API}/custom", json={"items": items, "n": 5, "new_items": 5}).json()
    assert not set(items) & set(ids(answer))
    told = "New for you (two-stage) has no list for this shopper: Hybrid chose what is new."
    assert told in answer["notes"]


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"new_items": 6}, "new_items is 6, and the list has 5 items: promise at most 5 new ones"),
        ({"new_items": -1}, "new_items is '-1': it takes a number of at least 0"),
        ({"new_items": 21, "n": 20}, "new_items is '21': it takes a number of at most 20"),
        ({"new_items": "some"}, "new_items is 'some': it takes a whole number"),
    ],
)
def test_an_impossible_promise_is_refused(
    client: TestClient, user: str, params: dict, words: str
) -> None:
    answer = client.get(f"{API}/{user}", params=params)
    assert answer.status_code == 422
    assert answer.json()["error"] == words


def test_get_and_post_promise_the_same(client: TestClient, user: str) -> None:
    body = {"user_id": user, "num_recommendations": 7, "model_type": "two_stage", "new_items": 4}
    post = client.post(API, json=body).json()
    get = asked(client, user, n=7, model="two_stage", new_items=4)
    assert post["recommendations"] == get["recommendations"]
