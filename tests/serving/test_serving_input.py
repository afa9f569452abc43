"""Bad input in, a sentence out.

The table of the brief, the whole OpenAPI document, keys, origins and headers.
"""

import json
import logging
import re
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from test_serving_shop import Clock, serving

from recsys_utils.serving.app import create_app
from recsys_utils.serving.settings import BODY, Settings

API = "/api/v1"
RECS = f"{API}/recommendations"
EVENT = {"user_id": "u", "item_id": "I1", "event_type": "view"}


def problem(answer: object, status: int, words: str) -> None:
    """One sentence that names the field, and the id that the log has too."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert set(body) == {"error", "request_id"}
    assert body["request_id"] == answer.headers["x-request-id"]
    assert words in body["error"]
    assert "Traceback" not in answer.text
    assert 'File "' not in answer.text
    assert "\n" not in body["error"]


@pytest.mark.spec("S5-27")
@pytest.mark.parametrize("n", ["0", "-1", "21", "1e9", "1000000000", "five", "2.5", "", "NaN"])
def test_a_bad_n_is_422(client: TestClient, n: str) -> None:
    problem(client.get(f"{RECS}/u", params={"n": n}), 422, "n is")
    problem(client.get(f"{RECS}/anonymous", params={"n": n}), 422, "n is")
    problem(client.get(f"{API}/items/I00001/similar", params={"n": n}), 422, "n is")


@pytest.mark.spec("S5-33")
@pytest.mark.parametrize("n", ["0", "101"])
def test_a_bad_n_of_popular_items(client: TestClient, n: str) -> None:
    problem(client.get(f"{API}/items/popular", params={"n": n}), 422, f"n is '{n}'")


@pytest.mark.spec("S5-08", "S5-19")
@pytest.mark.parametrize(
    ("params", "words"),
    [
        (
            {"model": "magic"},
            "model 'magic' is unknown: choose als, item_cf, popularity, hybrid, own_decayed",
        ),
        ({"model": "<script>"}, "<script>"),
        ({"price_min": "nan"}, "price_min"),
        ({"price_max": "inf"}, "price_max"),
        ({"price_min": "-1"}, "price_min is '-1'"),
        ({"price_min": "1e300"}, "price_min"),
        ({"price_min": 9, "price_max": 2}, "price_min is 9, above price_max, 2: swap them"),
        ({"timestamp": "yesterday"}, "timestamp is 'yesterday'"),
        ({"timestamp": "9999-12-31T23:59:59Z"}, "the years 1970 to 2199"),
        ({"timestamp": "0001-01-01T00:00:00"}, "the years 1970 to 2199"),
        ({"timestamp": "2025-13-01"}, "timestamp"),
        ({"timestamp": "20250115"}, "timestamp is '20250115': it takes a time like 2025-01-15T"),
        ({"timestamp": "2025"}, "it takes a time like"),
        ({"timestamp": "1.7e9"}, "it takes a time like"),
        ({"model_type": "als"}, "model_type is no parameter here: it takes"),
        ({"exclude_purchase": "true"}, "exclude_purchase is no parameter here"),
        ({"category": "Nowhere"}, "category 'Nowhere' is unknown"),
        ({"exclude_items": "no-such-item"}, "exclude_items names 'no-such-item'"),
        ({"exclude_purchased": "perhaps"}, "exclude_purchased is 'perhaps'"),
        ({"exclude_items": "\x07"}, "exclude_items"),
        ({"category": "a\nb"}, "category"),
    ],
)
def test_bad_queries_are_422(client: TestClient, params: dict, words: str) -> None:
    problem(client.get(f"{RECS}/u", params=params), 422, words)


@pytest.mark.parametrize("path", ["queue/u", "new-customer/fields", "items", "models", "health"])
def test_no_route_passes_over_a_key_that_it_does_not_know(client: TestClient, path: str) -> None:
    problem(client.get(f"{API}/{path}", params={"typo": "1"}), 422, "typo is no parameter here")


@pytest.mark.spec("S5-28")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"user_id": ""}, "user_id"),
        ({"user_id": None}, "user_id"),
        ({"user_id": "x" * 201}, "user_id"),
        ({"user_id": "a\x00b"}, "user_id"),
        ({"user_id": 1.5}, "user_id"),
        ({"user_id": True}, "user_id"),
        ({"user_id": ["a"]}, "user_id"),
        ({"num_recommendations": 0}, "num_recommendations"),
        ({"num_recommendations": 21}, "num_recommendations is 21"),
        ({"num_recommendations": True}, "num_recommendations is true: it takes a number"),
        ({"price_range_max": False}, "price_range_max is false: it takes a number"),
        ({"num_recommendations": 1e9}, "num_recommendations"),
        ({"model_type": "magic"}, "model 'magic' is unknown"),
        ({"price_range_min": -0.1}, "price_range_min"),
        ({"price_range_min": 5, "price_range_max": 1}, "price_min is 5, above price_max, 1"),
        ({"exclude_items": ["x"] * 1001}, "exclude_items"),
        ({"typo": 1}, "typo"),
        ({"timestamp": "9999-01-01T00:00:00+14:00"}, "the years 1970 to 2199"),
        ({"timestamp": {}}, "timestamp"),
        ({"timestamp": 20250115}, "it takes a time like 2025-01-15T10:00:00Z"),
        ({"timestamp": "1736899200"}, "it takes a time like"),
    ],
)
def test_bad_bodies_are_422(client: TestClient, change: dict, words: str) -> None:
    problem(client.post(RECS, json={"user_id": "u"} | change), 422, words)


LONG = "x" * 201
CUT = f"'{'x' * 59}…"
SENTENCES = [
    ("recommendations/u?n=0", None, "n is '0': it takes a number of at least 1"),
    ("recommendations/u?n=21", None, "n is '21': it takes a number of at most 20"),
    ("recommendations/u?n=five", None, "n is 'five': it takes a whole number"),
    ("recommendations/u?n=2.5", None, "n is '2.5': it takes a whole number"),
    ("recommendations/u?price_min=nan", None, "price_min is 'nan': it takes a finite number"),
    ("recommendations/u?price_min=cheap", None, "price_min is 'cheap': it takes a number"),
    (
        "recommendations/u?price_max=1e300",
        None,
        "price_max is '1e300': it takes a number of at most 1,000,000,000",
    ),
    (
        "recommendations/u?price_min=9&price_max=2",
        None,
        "price_min is 9, above price_max, 2: swap them",
    ),
    (
        "recommendations/u?model=magic",
        None,
        (
            "model 'magic' is unknown: choose als, item_cf, popularity, hybrid, own_decayed,"
            " preference_pairs, two_stage, two_stage_new"
        ),
    ),
    (
        "recommendations/u?timestamp=2025-02-30",
        None,
        "timestamp is '2025-02-30': it takes a time like 2025-01-15T10:00:00Z",
    ),
    (
        "recommendations/u?timestamp=9999-12-31",
        None,
        "timestamp is '9999-12-31': it takes a time of the years 1970 to 2199",
    ),
    (
        "recommendations/u?in_stock_only=perhaps",
        None,
        "in_stock_only is 'perhaps': it takes true or false",
    ),
    (
        "recommendations/u?exclude_items=a&exclude_items=",
        None,
        "exclude_items.1 is '': it takes at least 1 character",
    ),
    (
        f"recommendations/u?{'&'.join(['exclude_items=a'] * 1001)}",
        None,
        "exclude_items is a list of 1,001: it takes at most 1,000 entries",
    ),
    (
        f"recommendations/u?category={LONG}",
        None,
        f"category is {CUT}: it takes at most 200 characters",
    ),
    (
        "recommendations/u?category=a%0Ab",
        None,
        "category is 'a\\nb': it takes text without control characters",
    ),
    (
        "recommendations/a%00b",
        None,
        "user_id is 'a\\x00b': it takes text without control characters",
    ),
    (f"recommendations/{LONG}", None, f"user_id is {CUT}: it takes at most 200 characters"),
    ("recommendations/u/explain", None, "item_id is missing: add it"),
    ("users?offset=-1", None, "offset is '-1': it takes a number of at least 0"),
    ("recommendations", {}, "user_id is missing: add it"),
    ("recommendations", {"user_id": ""}, "user_id is '': it takes at least 1 character"),
    ("recommendations", {"user_id": None}, "user_id is null: it takes text"),
    ("recommendations", {"user_id": True}, "user_id is true: it takes text"),
    ("recommendations", {"user_id": ["a"]}, "user_id is a list of 1: it takes text"),
    ("recommendations", {"user_id": "\ud800"}, "user_id is '\\ud800': it takes text in UTF-8"),
    (
        "recommendations",
        {"user_id": "u", "num_recommendations": 2.5},
        "num_recommendations is 2.5: it takes a whole number",
    ),
    (
        "recommendations",
        {"user_id": "u", "num_recommendations": 21},
        "num_recommendations is 21: it takes a number of at most 20",
    ),
    ("recommendations", {"user_id": "u", "model_type": 5}, "model_type is 5: it takes text"),
    (
        "recommendations",
        {"user_id": "u", "exclude_items": "a"},
        "exclude_items is 'a': it takes a list",
    ),
    (
        "recommendations",
        {"user_id": "u", "exclude_items": ["x"] * 1001},
        "exclude_items is a list of 1,001: it takes at most 1,000 entries",
    ),
    (
        "recommendations",
        {"user_id": "u", "exclude_purchased": 2},
        "exclude_purchased is 2: it takes true or false",
    ),
    (
        "recommendations",
        {"user_id": "u", "price_range_min": float("nan")},
        "price_range_min is nan: it takes a finite number",
    ),
    (
        "recommendations",
        {"user_id": "u", "price_range_min": []},
        "price_range_min is an empty list: it takes a number",
    ),
    (
        "recommendations",
        {"user_id": "u", "timestamp": {}},
        "timestamp is an object: it takes a time like 2025-01-15T10:00:00Z",
    ),
    ("recommendations", {"user_id": "u", "typo": 1}, "typo is no field here: leave it out"),
    ("recommendations", {"user_id": "u", "ty\npo": 1}, "ty\\npo is no field here: leave it out"),
    (
        "recommendations",
        [],
        "the body is an empty list: it takes a JSON object, sent as application/json",
    ),
    (
        "recommendations",
        "text",
        "the body is 'text': it takes a JSON object, sent as application/json",
    ),
    ("recommendations/custom", {"items": ["a", {}]}, "items.1 is an object: it takes text"),
    ("recommendations/custom", {"items": []}, "items is an empty list: it takes at least 1 entry"),
    (
        "events",
        {"events": [EVENT, EVENT | {"event_type": "stare"}]},
        "events.1.event_type is 'stare': it takes 'view', 'cart', 'remove_from_cart' or 'purchase'",
    ),
    (
        "events",
        {"events": [{"user_id": "u", "event_type": "view"}]},
        "events.0.item_id is missing: add it",
    ),
    ("events", {"events": [5]}, "events.0 is 5: it takes a JSON object"),
    (
        "new-customer/recommendations",
        {"profile": {"Age": True}},
        "profile.Age is true: it takes text or a number",
    ),
    (
        "new-customer/recommendations",
        {"profile": {"Age": 1e13}},
        "profile.Age is 10000000000000.0: it takes text or a number of at most 1,000,000,000,000",
    ),
    (
        "new-customer/recommendations",
        {"profile": {str(n): 1 for n in range(51)}},
        "profile is an object: it takes at most 50 entries",
    ),
    (
        "new-customer/recommendations",
        {"profile": []},
        "profile is an empty list: it takes a JSON object",
    ),
    (
        "new-customer/rating",
        {"profile": {}, "item": 5},
        "item is 5: it takes text or a JSON object",
    ),
    (
        "new-customer/rating",
        {"profile": {}, "item": {"a": True}},
        "item.a is true: it takes text or a number",
    ),
    (
        "new-customer/rating",
        {"item": "x"},
        "give either profile or customer_id, not both and not neither",
    ),
]


@pytest.mark.parametrize(("path", "body", "text"), SENTENCES, ids=range(len(SENTENCES)))
def test_every_refusal_names_the_field_what_was_given_and_what_it_takes(
    client: TestClient, path: str, body: object, text: str
) -> None:
    """In our own words, to the letter."""
    head = {"content-type": "application/json"}
    answer = (
        client.get(f"{API}/{path}")
        if body is None
        else client.post(f"{API}/{path}", content=json.dumps(body), headers=head)
    )
    problem(answer, 422, "")
    assert answer.json()["error"] == text


ODD = [
    None,
    True,
    0,
    -1,
    2.5,
    1e300,
    float("nan"),
    10**30,
    "",
    "x" * 300,
    "\x00",
    "NaN",
    "2025-99-01",
    [],
    [[]],
    {},
    {"a": {}},
    ["a"] * 1001,
]
OURS = re.compile(
    r".+ (is .+: it takes .+|is missing: add it|is no field here: leave it out)|model '.*' is"
    r" unknown: .+|give either .+|category '.*' is unknown: .+|exclude_items names .+|tuning: .+|"
    r".* is no .+|price_min is .+: swap them|profile: .+|item .+ is unknown in .+",
    re.DOTALL,
)


def test_no_refusal_speaks_pydantic(client: TestClient) -> None:
    """Every field of the document with every odd value: what is refused is refused in our words."""
    spec = client.get("/openapi.json").json()
    refused = 0
    for path, methods in spec["paths"].items():
        for method, call in methods.items():
            for send in _odd(spec, path, call):
                answer = client.request(method, **send)
                if answer.status_code == 422:
                    text = answer.json()["error"]
                    refused = refused + 1
                    assert OURS.fullmatch(text), (send, text)
                    assert not re.search(
                        r"Input|should|valid|pars|constrained|something else|<class", text
                    ), (send, text)
    assert refused > 500


def _odd(spec: dict, path: str, call: dict) -> Iterator[dict]:
    """Requests with one odd value each."""
    path = re.sub(r"{\w+}", "u", path)
    for parameter in call.get("parameters", []):
        if parameter["in"] == "query":
            yield from (
                {"url": path, "params": {"item_id": "I00001"} | {parameter["name"]: value}}
                for value in ODD
                if not isinstance(value, dict | list) or value == ["a"] * 1001
            )
    if "requestBody" in call:
        schema = spec["components"]["schemas"][
            call["requestBody"]["content"]["application/json"]["schema"]["$ref"].split("/")[-1]
        ]
        good = schema["examples"][0]
        head = {"content-type": "application/json"}
        bodies = [
            good | {name: value} for name in [*schema["properties"], "else"] for value in ODD
        ] + [good | {"profile": {"Age": v}} for v in ODD]
        bodies += [
            {"events": [EVENT | {name: value}]}
            for name in (*EVENT, "timestamp", "event_id")
            for value in ODD
        ] * ("events" in good)
        yield from (
            {"url": path, "content": json.dumps(body), "headers": head} for body in [*bodies, *ODD]
        )


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 422, "not valid JSON"),
        (b"", 422, "body"),
        (b"[]", 422, "body"),
        (b'"text"', 422, "body"),
        (b"\xff\xfe", 400, "body"),
        (b'{"user_id": "\xe9"}', 400, "send JSON in UTF-8"),
        (b'{"user_id": NaN}', 422, "user_id"),
        (b'{"user_id": "u", "price_range_min": NaN}', 422, "price_range_min"),
        (b'{"user_id": "u", "price_range_max": Infinity}', 422, "price_range_max"),
        (b'{"user_id": "\\ud800"}', 422, "user_id"),
        (b"[" * 100_000, 400, "the body is nested too deeply: send flatter JSON"),
        (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, 400, "nested too deeply"),
        (b'{"user_id": ' + b"9" * 5000 + b"}", 422, ""),
    ],
)
def test_broken_json_is_refused(client: TestClient, body: bytes, status: int, words: str) -> None:
    answer = client.post(RECS, content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (status, 400, 422)
    problem(answer, answer.status_code, words)


def test_a_body_of_one_megabyte_is_413_whether_it_says_so_or_not(client: TestClient) -> None:
    large = json.dumps({"user_id": "u", "exclude_items": ["x" * 100] * 11_000}).encode()
    assert len(large) > 1 << 20
    for content in (large, (large[n : n + 1000] for n in range(0, len(large), 1000))):
        problem(
            client.post(RECS, content=content, headers={"content-type": "application/json"}),
            413,
            "larger than 256 KiB",
        )
    fits = json.dumps({"user_id": "u"}).encode().ljust(BODY)
    assert (
        client.post(RECS, content=fits, headers={"content-type": "application/json"}).status_code
        == 200
    )
    assert (
        client.post(
            RECS, content=fits + b" ", headers={"content-type": "application/json"}
        ).status_code
        == 413
    )


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/nowhere", "there is no /nowhere"),
        (f"{API}/recommendations/", "there is no"),
        (f"{RECS}/a%00b", "user_id"),
        (f"{RECS}/a%0Ab", "user_id"),
        (f"{RECS}/{'x' * 201}", "user_id"),
        ("/static/../app.py", "there is no"),
        ("/static/%2e%2e/app.py", ""),
        (f"{API}/items/%FF/similar", ""),
    ],
)
def test_bad_paths(client: TestClient, path: str, words: str) -> None:
    answer = client.get(path)
    assert answer.status_code in (404, 405, 422)
    problem(answer, answer.status_code, "" if answer.status_code == 405 else words)


def test_a_wrong_method_is_405(client: TestClient) -> None:
    problem(client.delete(f"{RECS}/u"), 405, "DELETE is not allowed here")


@pytest.mark.parametrize("path", ["/", "/docs", f"{API}/health", f"{RECS}/u", f"{RECS}/u?n=0"])
def test_head_is_get_without_its_body(client: TestClient, path: str) -> None:
    full = client.get(path)
    bare = client.head(path)
    assert (bare.status_code, bare.content) == (full.status_code, b"")
    assert bare.headers["content-type"] == full.headers["content-type"]
    problem(client.get(f"{API}/reload"), 405, "GET is not allowed here")
    assert client.head(f"{API}/reload").status_code == 405


def test_unknown_users_and_items(client: TestClient) -> None:
    assert client.get(f"{RECS}/nobody").json()["fallback_used"]
    assert not client.get(f"{API}/users/nobody/profile").json()["is_known_user"]
    problem(
        client.get(f"{API}/items/nothing/similar"), 404, "item 'nothing' is not in the catalogue"
    )
    problem(
        client.get(f"{RECS}/nobody", params={"exclude_items": "nothing"}),
        422,
        "exclude_items names 'nothing', which is not in the catalogue",
    )


@pytest.mark.parametrize(
    "text",
    [
        "'; DROP TABLE events; --",
        "<img src=x onerror=alert(1)>",
        "{{7*7}}",
        "../../etc/passwd"[-200:].replace("/", "%"),
        "a\u202eb",
    ],
)
def test_sql_and_html_in_ids_are_text(client: TestClient, text: str) -> None:
    posted = client.post(
        f"{API}/events", json={"events": [EVENT | {"user_id": text, "item_id": text}]}
    )
    assert posted.status_code == 200
    assert posted.json()["accepted"] == 1
    have = client.post(f"{API}/recommendations", json={"user_id": text})
    assert have.json()["user_id"] == text
    assert have.headers["content-type"] == "application/json"
    assert client.get(f"{API}/users", params={"q": text}).json()["loyal_count"] == 0
    pool = client.get(f"{API}/queue/{text}").json()
    assert pool["pool"] == [[text, 0, 1]]
    assert client.app.state.service.online.queue.check() == []


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"events": []}, "events"),
        ({"events": [EVENT] * 1001}, "events"),
        (
            {"events": [EVENT | {"event_type": "stare"}]},
            "'view', 'cart', 'remove_from_cart' or 'purchase'",
        ),
        (
            {"events": [EVENT | {"timestamp": "2025-07-05T00:00:00"}]},
            "events.0.timestamp is 2025-07-05 00:00:00, from the future",
        ),
        ({"events": [EVENT, EVENT | {"timestamp": "9999-01-01T00:00:00"}]}, "events.1.timestamp"),
        (
            {"events": [EVENT, EVENT | {"timestamp": "1970-01-01T00:00:00"}]},
            "events.1.timestamp is 1970-01-01 00:00:00, before the shop's first day, 20",
        ),
        ({"events": [EVENT | {"timestamp": "1.7e9"}]}, "events.0.timestamp is '1.7e9'"),
        ({"events": [{"user_id": "u"}]}, "item_id"),
        ({"events": [EVENT | {"item_id": "a\tb"}]}, "item_id"),
        ({"events": [EVENT | {"event_id": ""}]}, "event_id"),
        ({"events": EVENT}, "events"),
        ({}, "events"),
    ],
)
def test_bad_events_are_refused_all_together(client: TestClient, body: dict, words: str) -> None:
    queue = client.app.state.service.online.queue
    before = queue.read("SELECT COUNT(*) AS n FROM events")["n"][0]
    problem(client.post(f"{API}/events", json=body), 422, words)
    assert queue.read("SELECT COUNT(*) AS n FROM events")["n"][0] == before


@pytest.mark.spec("S2-25", "S5-62")
@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("new-customer/recommendations", {"profile": {"Height": 3}}, "'Height' is no field"),
        ("new-customer/recommendations", {"profile": {"Age": "old"}}, "Age"),
        ("new-customer/recommendations", {"profile": {"Age": 10**400}}, "Age"),
        ("new-customer/recommendations", {"profile": {"Age": True}}, "Age"),
        ("new-customer/recommendations", {"profile": {}, "top_k": 0}, "top_k is 0"),
        ("new-customer/recommendations", {"profile": {}, "top_k": 101}, "top_k is 101"),
        ("new-customer/recommendations", {"profile": []}, "profile"),
        ("new-customer/rating", {"item": "x"}, "either profile or customer_id"),
        (
            "new-customer/rating",
            {"profile": {}, "customer_id": "a", "item": "x"},
            "either profile or customer_id",
        ),
        ("new-customer/rating", {"profile": {}}, "item"),
        (
            "new-customer/rating",
            {"profile": {}, "item": {"Colour": "red"}},
            "'Colour' is no attribute",
        ),
        ("new-customer/rating", {"profile": {}, "item": "no such product"}, "unknown"),
        ("recommendations/custom", {"items": []}, "items"),
        ("recommendations/custom", {"items": ["a"], "timestamp": "9999-01-01"}, "9999"),
    ],
)
def test_bad_profiles_ratings_and_histories(
    client: TestClient, path: str, body: dict, words: str
) -> None:
    problem(client.post(f"{API}/{path}", json=body), 422, words)


def test_predictions_of_nothing_or_too_many(client: TestClient) -> None:
    problem(client.post("/predict_user_list", json={"user_ids": []}), 422, "user_ids")
    problem(client.post("/predict_user_list", json={"user_ids": ["u"] * 1001}), 422, "user_ids")
    problem(client.post("/predict", json={}), 422, "user_id")


def test_writing_needs_the_key_where_there_is_one(folder: Path) -> None:
    with serving(folder, api_key="s3cret-ü") as client:
        for answer in (
            client.post(f"{API}/events", json={"events": [EVENT]}),
            client.post(f"{API}/reload"),
            client.post(f"{API}/queue/u/next"),
            client.post(f"{API}/reload", headers={"X-API-Key": "wrong"}),
            client.post(f"{API}/reload", headers={"X-API-Key": ""}),
            client.post(f"{API}/reload", headers={"X-API-Key": "s3cret"}),
        ):
            problem(answer, 401, "X-API-Key")
        assert (
            client.app.state.service.online.queue.read("SELECT COUNT(*) AS n FROM log")["n"][0] == 0
        )
        for path in (f"{RECS}/u", f"{API}/queue/u", f"{API}/health", "/metrics"):
            assert client.get(path).status_code == 200
    with serving(folder, api_key="s3cret") as client:
        key = {"X-API-Key": "s3cret"}
        assert (
            client.post(f"{API}/events", json={"events": [EVENT]}, headers=key).json()["accepted"]
            == 1
        )
        assert client.post(f"{API}/queue/u/next", headers=key).json()["shown"]
        assert client.post(f"{API}/reload", headers=key).status_code == 200


def test_cors_is_closed_unless_configured(folder: Path, client: TestClient) -> None:
    origin = {"Origin": "https://evil.example"}
    assert not [
        name
        for name in client.get(f"{RECS}/u", headers=origin).headers
        if name.startswith("access-control")
    ]
    with serving(folder, cors_origins=("https://shop.example",)) as opened:
        assert (
            opened.get(f"{RECS}/u", headers={"Origin": "https://shop.example"}).headers[
                "access-control-allow-origin"
            ]
            == "https://shop.example"
        )
        assert "access-control-allow-origin" not in opened.get(f"{RECS}/u", headers=origin).headers
        asked = {
            "Origin": "https://shop.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "X-API-Key",
        }
        assert opened.options(f"{API}/events", headers=asked).status_code == 200


def test_every_answer_has_the_headers_that_protect(client: TestClient) -> None:
    for path in ("/", "/docs", f"{RECS}/u", f"{RECS}/u?n=0", "/nowhere", "/metrics"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert "http" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers.get_list("cache-control") == ["no-cache"]
        assert headers["x-frame-options"] == "DENY"


def test_request_ids_are_taken_over_where_they_are_sane(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "recsys_utils.serving"):
        assert (
            client.get(f"{RECS}/u", headers={"X-Request-ID": "abc-1.2_3"}).headers["x-request-id"]
            == "abc-1.2_3"
        )
        for odd in ("a b", "x" * 65, '"{}', "ü".encode("latin-1")):
            assert re.fullmatch(
                r"[0-9a-f]{32}",
                client.get(f"{RECS}/u", headers={"X-Request-ID": odd}).headers["x-request-id"],
            )
    fields = caplog.records[0].fields
    assert fields["request_id"] == "abc-1.2_3"
    assert fields["route"] == f"{RECS}/{{user_id}}"
    assert fields["status"] == 200
    assert fields["ms"] > 0


def test_our_own_mistakes_are_500_without_a_trace(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(folder, raises=False, debug=True) as client:
        client.app.state.service.loaded.art.by_units = None
        answer = client.get(f"{RECS}/nobody", params={"model": "two_stage"})
        problem(answer, 500, "something went wrong")
        assert "NoneType" not in answer.text
    record = next(record for record in caplog.records if record.getMessage() == "failed")
    assert record.exc_info
    assert record.fields["request_id"] == answer.json()["request_id"]


def test_a_database_that_cannot_be_used_is_503_and_says_not_where_it_lies(folder: Path) -> None:
    with serving(folder) as client:
        while not client.app.state.loading.done():  # it reads by the queue that is closed here
            time.sleep(0.01)
        queue = client.app.state.service.online.queue
        queue.close()
        queue.timeout = 0.05
        with sqlite3.connect(queue.path, isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            answer = client.post(f"{API}/events", json={"events": [EVENT]})
            problem(answer, 503, "ask again")
            assert "recommendation.db" not in answer.text
            other.execute("ROLLBACK")
        other.close()
        assert client.post(f"{API}/events", json={"events": [EVENT]}).json()["accepted"] == 1


DATABASE = "online/recommendation.db"


def test_a_damaged_database_leaves_lists_alone_and_ready_says_what_brings_it_back(
    folder: Path,
) -> None:
    whole = (folder / DATABASE).read_bytes()
    (folder / DATABASE).write_bytes(b"no database " * 1000)
    with serving(folder, cache_ttl_seconds=0) as client:
        ready = client.get(f"{API}/health/ready")
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        parts = ready.json()["parts"]
        assert parts["lists"] == "ready"
        told = "recommendation.db is no SQLite database: name another file, or move it away"
        assert told in parts["queue"]
        assert str(folder) not in ready.text
        user = client.get(f"{API}/users").json()["users"]["loyal"][0]
        before = client.get(f"{RECS}/{user}")
        assert before.status_code == 200
        for model in ("als", "two_stage", "popularity"):
            assert client.get(f"{RECS}/{user}", params={"model": model}).status_code == 200
        for path in ("config", "stats", "models", f"users/{user}/profile"):
            assert client.get(f"{API}/{path}").status_code == 200
        for answer in (
            client.post(f"{API}/events", json={"events": [EVENT]}),
            client.get(f"{API}/queue/u"),
            client.post(f"{API}/queue/u/next"),
        ):
            problem(answer, 503, "POST /api/v1/reload")
        for leftover in (folder / "online").glob("recommendation.db*"):
            leftover.unlink()
        (folder / DATABASE).write_bytes(whole)
        assert client.post(f"{API}/reload").status_code == 200
        assert client.get(f"{API}/health/ready").json()["status"] == "healthy"
        assert client.post(f"{API}/events", json={"events": [EVENT]}).json()["accepted"] == 1
        assert (
            client.get(f"{RECS}/{user}").json()["recommendations"]
            == before.json()["recommendations"]
        )


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_without_its_model_the_queue_goes_on_and_ready_says_so(folder: Path, damage: str) -> None:
    (model,) = (folder / "online").glob("model-*.npz")
    whole = model.read_bytes()
    if damage == "missing":
        model.unlink()
    else:
        model.write_bytes(whole[:-1] + b"x")
    with serving(folder) as client:
        ready = client.get(f"{API}/health/ready").json()
        assert (ready["status"], ready["parts"]["queue"]) == ("degraded", "ready")
        assert "run python -m recsys_utils.online train again" in ready["parts"]["queue_model"]
        client.post(f"{API}/events", json={"events": [EVENT]})
        shown = client.post(f"{API}/queue/{EVENT['user_id']}/next").json()["shown"]
        assert shown[0]["item_id"] == EVENT["item_id"]
        assert "cf" not in {row["source"] for row in shown}
        model.write_bytes(whole)
        assert client.get(f"{API}/health/ready").json()["status"] == "healthy"
        rows = client.post(f"{API}/queue/somebody/next").json()["shown"]
        assert {row["source"] for row in rows} == {"cf"}


APP = create_app("nowhere", config=Settings(allowed_hosts=("*",)), clock=Clock())


async def started(scope: dict, receive: object, send: object) -> None:
    """The app without its start and end, which each request would bring."""
    if scope["type"] == "http":
        await APP(scope, receive, send)


@pytest.fixture(scope="module")
def document(base: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The app of the document has loaded a copy."""
    mine = APP.state.service
    mine.folder = shutil.copytree(
        base / "data" / "small" / "serving", tmp_path_factory.mktemp("fuzzed") / "serving"
    )
    mine.db_path = mine.folder / "online" / "recommendation.db"
    mine.load()
    yield
    mine.close()


@pytest.mark.spec("S5-40")
@schemathesis.openapi.from_asgi("/openapi.json", started).parametrize()
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_undocumented_answer_to_anything(case: schemathesis.Case, document: None) -> None:
    """Schemathesis over the whole document.

    No 5xx, only documented status codes, types and bodies.
    """
    case.call_and_validate(
        checks=[
            not_a_server_error,
            status_code_conformance,
            content_type_conformance,
            response_schema_conformance,
        ]
    )
