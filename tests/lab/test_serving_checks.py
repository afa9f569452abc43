"""The tour of notebook 16 on a small shop.

The real service as a process, what it is asked, and what the tour refuses to overlook.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest
from lab import serving_checks as study
from lab.serving_tour import API, Server, Tour, refusals, shown

from recsys_utils import LabError
from recsys_utils.data import tables
from recsys_utils.ensembles.hybrid import Hybrid
from recsys_utils.online.queue import Queue
from recsys_utils.online.update import DATABASE
from recsys_utils.serving import train as training
from recsys_utils.serving.artifacts import Artifacts


@pytest.fixture(scope="module")
def folder(base: Path) -> Path:
    return base / "data" / "small" / "serving"


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with Server(folder) as result:
        yield result


@pytest.fixture(scope="module")
def art(folder: Path) -> Artifacts:
    return Artifacts.load(folder)


def answer(body: object) -> httpx.Response:
    return httpx.Response(200, json=body)


def test_the_server_has_a_copy_of_the_queue_and_settings_of_its_own(
    folder: Path, art: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that is posted to it reaches the shop's database, whatever another service's settings
    say.
    """
    monkeypatch.setenv("CACHE_TTL_SECONDS", "soon")
    monkeypatch.setenv("ENVIRONMENT", "production")
    monkeypatch.setenv("API_KEY", "another")
    before = (folder / "online" / DATABASE).read_bytes()
    with Server(folder, cache_seconds=0) as mine:
        tour = Tour(mine)
        assert (
            tour.ask(
                f"POST {API}/events", {"events": [study.event("newcomer", "I00001", "cart", 0)] * 2}
            ).json()["accepted"]
            == 1
        )
        assert mine.json(f"{API}/queue/newcomer")["pool"] == [["I00001", 0, 3]]
        late = {
            "user_id": "U000003",
            "item_id": "I00001",
            "event_type": "purchase",
        }  # now: after the models' cut, which they cannot know
        assert tour.ask(f"POST {API}/events", {"events": [late]}).json()["purchases"] == 1
        assert set(study.shoppers(mine, art.users.index, 10_000, 0)) == {
            *art.users.index,
            "a stranger",
        } - {"U000003"}
        assert mine.json(f"{API}/config")["config"]["service"]["cache_ttl_seconds"] == 0
        assert "Small shop (synthetic data)" in mine.said
        assert mine.listens
        assert httpx.post(f"{mine.url}{API}/reload").status_code == 401
    assert mine.process.returncode == 0
    assert not mine.listens
    assert all(line.startswith('{"time":') for line in mine.log)
    assert any(f'"path": "{API}/events"' in line for line in mine.log)
    assert (folder / "online" / DATABASE).read_bytes() == before
    with Queue(folder / "online" / DATABASE, read_only=True) as queue:
        assert queue.pool("newcomer") == {"pool": []}


def test_a_service_that_cannot_start_is_an_error_with_its_log(folder: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(folder, tmp_path / "serving")
    (broken / "manifest.json").unlink()
    with pytest.raises(LabError, match="did not start.*holds nothing to serve"):
        Server(broken)


def test_the_tour_names_what_it_left_out(server: Server, capsys: pytest.CaptureFixture) -> None:
    tour = Tour(server)
    paths = server.json("/openapi.json")["paths"]
    routes = [f"{method.upper()} {path}" for path, methods in paths.items() for method in methods]
    tour.book = dict.fromkeys(routes, 200)
    assert list(tour.walked().index) == routes
    assert (tour.walked()["answered"] == 200).all()
    assert tour.walked()["what for"].str.len().min() > 5
    del tour.book[f"GET {API}/stats"]
    with pytest.raises(LabError, match=f"differ in GET {API}/stats$"):
        tour.walked()
    tour.show(f"GET {API}/stats", deep=1)
    said = capsys.readouterr().out
    assert said.startswith(f"GET {API}/stats\n→ 200 {{")
    assert '"config": "…"' in said
    assert tour.book[f"GET {API}/stats"] == 200
    tour.book["GET /gone"] = 200
    with pytest.raises(LabError, match="differ in GET /gone$"):
        tour.walked()


def test_an_answer_is_cut_to_what_people_read() -> None:
    body = {
        "model_version": "v-1",
        "score": 0.123456,
        "ids": list("abcdefg"),
        "rows": [{"a": 1}] * 4,
        "previous_version": None,
        "name": "x" * 30,
    }
    lines = shown(answer(body), few=1).splitlines()
    assert lines[1] == '  "model_version": "…", "score": 0.123,'
    assert lines[2] == '  "ids": ["a", "b", "c", "d", "… 3 more"],'
    assert lines[3:] == [
        '  "rows": [{"a": 1}, "… 3 more"],',
        '  "previous_version": null, "name": "' + "x" * 30 + '"',
        "}",
    ]
    assert shown(answer({"deep": {"er": [1]}}), deep=1) == '{"deep": "…"}'
    wide = shown(answer({f"field {n}": "x" * 20 for n in range(9)}))
    assert max(map(len, wide.splitlines())) <= 104
    assert wide.startswith("{\n")
    assert len(wide.splitlines()) > 3
    assert (
        shown(httpx.Response(200, text='a 1\nrecommendations_total{model="als"} 2.0'))
        == 'recommendations_total{model="als"} 2.0'
    )


def test_what_is_refused_is_refused_with_a_sentence(server: Server) -> None:
    table = refusals(server, "U000001")
    assert set(table["status"]) == {400, 401, 403, 404, 422}
    assert (table["status"] >= 400).all()
    assert table["error"].str.len().between(15, 300).all()
    assert table["error"].is_unique
    assert table.loc["POST /api/v1/events without its key", "status"] == 401
    assert table.loc["POST /api/v1/events from another site's page", "status"] == 403


def own_tables(base: Path, art: Artifacts, users: list[str]) -> tuple[Hybrid, dict]:
    receipts = tables.load(str(base / "small.toml")).interactions()
    fitted = training.chosen_model("own_decayed", "small").fit(receipts).recommend(users[:-1], 20)
    return Hybrid().fit(receipts), {
        "own_decayed": ("fitted here", fitted),
        "two_stage": (
            "its table",
            study.saved(base / "data" / "small" / "serving", art.manifest, "two_stage"),
        ),
    }


@pytest.mark.spec("S1-22")
def test_api_scores_are_the_notebooks_to_1e_6_or_it_fails(
    server: Server, base: Path, art: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSYS_HOME", str(base))
    users = study.shoppers(server, art.users.index, 6, 1)
    assert len(users) == 7
    assert users[-1] == "a stranger"
    assert study.shoppers(server, art.users.index, 6, 1) == users
    hybrid, own = own_tables(base, art, users)
    table = study.agreement(server, users, art, hybrid, own)
    assert list(table.index[:6]) == [
        "hybrid",
        "als",
        "item_cf",
        "popularity",
        "own_decayed",
        "two_stage",
    ]
    assert "ratings of new customers" in table.index
    assert (table["largest difference"] <= 1e-6).all()
    assert table["same items"].all()
    assert table.loc["hybrid", ["users", "places"]].tolist() == [7, 140]
    assert table.loc["two_stage", ["users", "places"]].tolist() == [6, 120]
    worse = own["own_decayed"][1].assign(
        score=lambda rows: rows["score"] + 1e-4 * (rows["rank"] == 20)
    )
    with pytest.raises(LabError, match="differ:\n(.|\n)*own_decayed"):
        study.agreement(server, users, art, hybrid, {"own_decayed": ("fitted here", worse)})
    swapped = own["two_stage"][1].assign(
        item_id=lambda rows: rows["item_id"].astype(str).where(rows["rank"] != 3, "I00000")
    )
    with pytest.raises(LabError, match="differ:\n(.|\n)*two_stage"):
        study.agreement(server, users, art, hybrid, {"two_stage": ("its table", swapped)})


@pytest.mark.spec("S5-31")
def test_what_was_bought_is_away_a_day_later_and_back_after_sixty(
    server: Server, art: Artifacts
) -> None:
    table = study.restocked(server, art.users.index).reset_index()
    assert table["days after"].tolist() == [1, 60]
    assert table["place"][0] == "not listed"
    assert 1 <= table["place"][1] <= 20
    assert table["what the rule knows"][0].startswith("bought 1 days ago, back ")
    assert study.restocked(server, ["a stranger"]).empty


def test_filters_fit_the_shop_and_a_newcomer_its_form(server: Server, art: Artifacts) -> None:
    user = art.users.index[0]
    asked = {"user_id": user, "num_recommendations": 3} | study.filters(server, user)
    assert {"exclude_purchased", "category", "price_range_max", "in_stock_only"} <= set(asked)
    rows = server.client.post(f"{API}/recommendations", json=asked).json()["recommendations"]
    assert rows
    assert {row["category"] for row in rows} == {asked["category"]}
    profile, product = study.newcomer(server)
    assert (
        server.client.post(
            f"{API}/new-customer/rating", json={"profile": profile, "item": product}
        ).status_code
        == 200
    )


@pytest.mark.spec("S5-52")
def test_latency_is_measured_without_and_with_the_cache(
    server: Server, folder: Path, art: Artifacts
) -> None:
    hits = server.json(f"{API}/stats")["cache_hits"]
    frame = study.latency(server, folder, 40, 1)
    assert frame.groupby("cache").size().to_dict() == {"off": 40, "on": 40}
    assert frame["ms"].between(0.05, 5_000).all()
    lists = int(
        frame[frame["cache"] == "on"]["kind"]
        .isin(
            [
                *art.manifest["lists"],
                "hybrid",
                "als",
                "item_cf",
                "popularity",
                "new items only",
                "custom history",
            ]
        )
        .sum()
    )
    assert server.json(f"{API}/stats")["cache_hits"] - hits >= lists > 10
    table = study.percentiles(frame)
    assert table.index[-1] == "all"
    assert table.loc["all", ("", "calls")] == 40
    assert table[("cache off", "p95")].iloc[:-1].is_monotonic_increasing
    assert table.loc["all", ("cache off", "p95")] == pytest.approx(
        np.quantile(frame.loc[frame["cache"] == "off", "ms"], 0.95), abs=0.06
    )
    ax = study.strips(frame)
    assert [t.get_text() for t in ax.get_yticklabels()] == list(table.index[:-1])
    assert ax.get_xscale() == "log"


@pytest.mark.spec("S5-52")
def test_more_than_twice_the_goal_fails() -> None:
    study._check(pd.Series([199.0] * 96 + [900.0] * 4))
    with pytest.raises(LabError, match="95 % of 100 answers took up to 900 ms, the goal is 100"):
        study._check(pd.Series([10.0] * 94 + [900.0] * 6))


def test_without_a_browser_there_is_no_picture_and_no_error(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    assert study.pictures(server, [("#shopper", 390, 600)]) is None


@pytest.mark.skipif(
    not any(map(shutil.which, study.CHROMIUM)), reason="pictures need Chromium on the PATH"
)
def test_pictures_stand_side_by_side_and_stay_small(server: Server) -> None:
    result = study.pictures(
        server, [("#analyst?user=U000001", 1000, 800), ("#shopper", 400, 800)], height=400
    )
    assert result.data.startswith(b"\x89PNG")
    assert len(result.data) < 150_000
    assert int.from_bytes(result.data[16:20]) == 500 + 24 + 200
    assert int.from_bytes(result.data[20:24]) == 400


def test_training_fast_serves_less_and_waits_for_its_queue(
    base: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSYS_HOME", str(base))
    lines: list[str] = []
    manifest = training.train(
        str(base / "small.toml"), tmp_path, ["own_decayed"], say=lines.append, fast=True
    )
    assert list(manifest["lists"]) == ["own_decayed"]
    steps = [line.split()[0] for line in lines if not line.startswith("confidence:")]
    assert steps == [
        "hybrid",
        "own_decayed",
        "confidence",
        "towers",
        "online",
    ]
    with (
        Queue(tmp_path / "online" / DATABASE, read_only=True) as queue,
        Queue(folder / "online" / DATABASE, read_only=True) as full,
    ):
        events = [each.read("SELECT COUNT(*) AS n FROM events")["n"][0] for each in (queue, full)]
        assert queue.get("model") != full.get("model")
        assert events[0] == events[1]


def test_a_queue_that_cannot_be_trained_is_the_trainings_error(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSYS_HOME", str(base))
    (tmp_path / DATABASE).write_text("no database")
    with pytest.raises(LabError, match="recommendation.db is no SQLite database"):
        training._online(
            tables.load(str(base / "small.toml")), tmp_path, pd.Timestamp("2026-01-01"), True
        )
