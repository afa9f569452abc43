"""What shoppers do reaches the service: events, queues, new customers, ratings, predictions."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from asking import API, LIVE, USER, event, got, ids, rec, same, sent
from fastapi.testclient import TestClient
from test_purchase_probability import older
from test_serving_shop import MODELS, NOW, Clock, serving

from recsys_utils.online.queue import DATABASE, Queue
from recsys_utils.online.update import load_net
from recsys_utils.serving.artifacts import Artifacts
from recsys_utils.serving.many import predict_many


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


def test_two_services_on_one_database_take_an_event_once(folder: Path) -> None:
    """Sent without a time to both at once, it has that of the first; neither refuses it."""
    later = Clock()
    later.move(1)
    with serving(folder) as one, serving(folder, later) as two, ThreadPoolExecutor(4) as pool:
        asked = [
            (client, event("both", f"I{n:05d}", "view", event_id=f"both-{n}"))
            for n in range(40)
            for client in (one, two)
        ]
        answers = list(
            pool.map(lambda pair: sent(pair[0], f"{API}/events", events=[pair[1]]), asked)
        )
        assert sum(answer["accepted"] for answer in answers) == 40
        assert len(got(one, f"{API}/queue/both")["pool"]) == 40


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
