"""The service itself: health, models, counts, configuration, knobs, cache, speed, reference."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from asking import API, LIVE, event, got, ids, rec, same, sent
from fastapi.testclient import TestClient
from test_serving_shop import MODELS, Clock, current, serving

from recsys_utils.serving.answers import RecommendationResponse
from recsys_utils.serving.app import THREADS
from recsys_utils.serving.artifacts import Artifacts
from recsys_utils.serving.settings import Settings


@pytest.mark.spec("S5-34", "S3-25")
def test_health_before_during_and_without(folder: Path, tmp_path: Path) -> None:
    from recsys_utils.serving.app import create_app

    # Not entered: nothing is loaded.
    waiting = TestClient(create_app(folder, clock=Clock()), "http://localhost")
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
    # What else had to change for the knob to matter.
    before = {"price_sensitivity": {"mode": other["mode"]}} if other else {}
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


def test_the_cache_does_not_go_by_the_clock_on_the_wall(folder: Path, user: str) -> None:
    clock = Clock()
    with serving(folder, clock, cache_ttl_seconds=60) as client:
        rec(client, user)
        clock.now += timedelta(days=1)
        assert rec(client, user)["cached"]
        clock.now -= timedelta(days=2)
        clock.move(61)
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
        got(client, f"{API}/new-customer/fields")  # loaded last: by now nothing is left to read
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


def test_many_at_once_are_answered_by_a_few_threads(folder: Path) -> None:
    """Each thread keeps a connection with megabytes of pages.

    As many as there may be requests would be a gigabyte.
    """
    with serving(folder, max_waiting=100) as client, ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda n: client.get(f"{API}/queue/shopper{n}"), range(200)))
        assert {answer.status_code for answer in answers} == {200}
        # And the threads that load and test.
        assert len(client.app.state.service.online.queue.connections) <= THREADS + 2


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
