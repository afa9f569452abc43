"""The service as a process.

It says where it is, stops in peace, reloads under load, and loses no event when it is killed.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import httpx
import psutil
import pytest
from test_serving_shop import current

from recsys_utils.online.queue import Queue
from recsys_utils.online.update import DATABASE
from recsys_utils.serving.__main__ import main
from recsys_utils.serving.artifacts import KIND, service_manifest
from recsys_utils.store import write_manifest

API = "/api/v1"


@contextmanager
def process(
    folder: Path, *arguments: str, **env: str
) -> Iterator[tuple[subprocess.Popen, httpx.Client]]:
    """A server of a folder on a free port, ready to be asked.

    Its logs are in `folder`/../stderr.
    """
    port = str(free_port())
    command = [
        sys.executable,
        "-m",
        "recsys_utils.serving",
        "--artifacts",
        str(folder),
        "--port",
        port,
        *arguments,
    ]
    with (
        (folder.parent / "stderr").open("w") as log,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env=os.environ | env
        ) as server,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client,
    ):
        try:
            wait(client, server)
            yield server, client
        finally:
            server.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait(client: httpx.Client, server: subprocess.Popen) -> None:
    for _ in range(600):
        assert server.poll() is None, "the server ended"
        try:
            if client.get(f"{API}/health/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise TimeoutError


def event(n: int, user: str = "u", kind: str = "view") -> dict:
    return {
        "user_id": user,
        "item_id": f"I{n % 50:05d}",
        "event_type": kind,
        "event_id": f"{user}-{n}",
    }


def test_it_says_where_it_is_binds_to_this_machine_logs_json_and_stops_in_peace(
    folder: Path,
) -> None:
    with process(
        folder,
        ENVIRONMENT="test",
        CACHE_TTL_SECONDS="7",
        MODEL_PATH="ignored: --artifacts is given",
    ) as (server, client):
        said = server.stdout.readline() + server.stdout.readline()
        assert "Small shop (synthetic data)" in said
        assert "two_stage" in said
        assert str(client.base_url).rstrip("/") in said
        listening = [
            c.laddr.ip
            for c in psutil.Process(server.pid).net_connections()
            if c.status == psutil.CONN_LISTEN
        ]
        assert listening == ["127.0.0.1"]
        live = client.get(f"{API}/config").json()["config"]["service"]
        assert (live["environment"], live["cache_ttl_seconds"], live["model_path"]) == (
            "test",
            7,
            str(folder),
        )
        assert (
            client.get(f"{API}/recommendations/x", headers={"X-Request-ID": "find-me"}).status_code
            == 200
        )
        for odd in ("a/b", "a%2Fb", "a%b", "..", "a?b#c", "a b"):  # decoded once, by a real server
            assert (
                client.get(f"{API}/users/{quote(odd, safe='').replace('.', '%2E')}/profile").json()[
                    "user_id"
                ]
                == odd
            )
        answers = []
        asked = threading.Thread(
            target=lambda: answers.append(
                client.post("/predict_user_list", json={"user_ids": [f"s{n}" for n in range(1000)]})
            )
        )
        asked.start()
        time.sleep(0.3)
        server.send_signal(signal.SIGTERM)
        asked.join()
        assert len(answers) == 1
        assert answers[0].status_code == 200
        # what was begun is finished
        assert len(answers[0].json()) == 1000
        assert server.wait(15) == 0
    lines = [json.loads(line) for line in (folder.parent / "stderr").read_text().splitlines()]
    mine = next(line for line in lines if line.get("request_id") == "find-me")
    assert not [line for line in lines if line["event"] == "list"]  # DEBUG is off
    assert (mine["event"], mine["status"], mine["route"], mine["level"]) == (
        "request",
        200,
        f"{API}/recommendations/{{user_id}}",
        "info",
    )
    assert mine["ms"] > 0


@pytest.mark.spec("S5-50")
def test_every_variable_is_effective_and_shown(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tuning.toml").write_text("loyal_purchases = 77\n")
    env = {
        "MODEL_PATH": str(folder),
        "DEBUG": "true",
        "ENVIRONMENT": "production",
        "API_KEY": "s3cret",
        "CORS_ORIGINS": "https://shop.example",
        "ALLOWED_HOSTS": "127.0.0.1,shop.example",
        "CACHE_TTL_SECONDS": "0",
        "CACHE_MAX_SIZE": "3",
        "MAX_WAITING": "5",
        "DEFAULT_MODEL": "popularity",
        "TUNING_PATH": str(tmp_path / "tuning.toml"),
    }
    port = str(free_port())
    command = [sys.executable, "-m", "recsys_utils.serving", "--port", port]
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(command, env=os.environ | env, stderr=log, stdout=log) as server,
        httpx.Client(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        try:
            wait(client, server)
            config = client.get(f"{API}/config").json()["config"]
            assert config["service"] == {
                "debug": True,
                "environment": "production",
                "cors_origins": ["https://shop.example"],
                "cache_ttl_seconds": 0,
                "allowed_hosts": ["127.0.0.1", "shop.example"],
                "cache_max_size": 3,
                "max_waiting": 5,
                "model_path": str(folder),
                "default_model": "popularity",
                "api_key_set": True,
            }
            about = client.get(f"{API}/models").json()
            assert (about["default"], about["page"]) == ("popularity", "popularity")
            assert config["tuning"]["loyal_purchases"] == 77
            assert client.get(f"{API}/models").json()["title"] == "Small shop"
            assert (
                client.get(f"{API}/models", headers={"Origin": "https://shop.example"}).headers[
                    "access-control-allow-origin"
                ]
                == "https://shop.example"
            )
            assert client.get(f"{API}/models", headers={"Host": "shop.example"}).status_code == 200
            assert client.get(f"{API}/models", headers={"Host": "localhost"}).status_code == 400
            assert [
                client.post(f"{API}/reload", headers={"X-API-Key": key}).status_code
                for key in ("", "s3cret")
            ] == [401, 200]
            assert [client.get(f"{API}/recommendations/u").json()["cached"] for _ in range(2)] == [
                False,
                False,
            ]
            assert client.get(f"{API}/stats").json()["cache_max_size"] == 3
        finally:
            server.kill()
    assert '"event": "list"' in (tmp_path / "log").read_text()


def test_bad_settings_end_the_command_with_a_sentence(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "recsys_utils.serving", "--artifacts", str(folder)],
        env=os.environ | {"CACHE_TTL_SECONDS": "soon"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: CACHE_TTL_SECONDS is 'soon'")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("change", [["--port", "99999"], ["--host", "nowhere.invalid"], []])
def test_an_address_that_cannot_be_opened_is_told_before_anything_is_loaded(
    folder: Path, capsys: pytest.CaptureFixture, change: list[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["--artifacts", str(folder), "--port", port, *change]) == 2
    assert "choose another --port or --host" in capsys.readouterr().err


def test_a_database_that_is_not_there_is_not_made_without_being_asked(
    folder: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "recsys_utils.serving", "--artifacts", str(folder)]
    done = subprocess.run(
        [*command, "--db", str(tmp_path / "typo.db")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "typo.db does not exist: correct --db, or add --new-db" in done.stderr
    assert not (tmp_path / "typo.db").exists()


@pytest.mark.spec("S4-28")
@pytest.mark.parametrize("after", [21, 90])
def test_a_killed_server_loses_no_acknowledged_event(folder: Path, after: int) -> None:
    """kill -9 while four shoppers post.

    All that was acknowledged is there, once, and the queues agree with the logs.
    """
    acknowledged: list[str] = []
    with process(folder) as (server, client):
        threads = [
            threading.Thread(
                target=_post_until_dead, args=(str(client.base_url), f"shopper{n}", acknowledged)
            )
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        while len(acknowledged) < after and server.poll() is None:
            time.sleep(0.001)
        server.send_signal(signal.SIGKILL)
        for thread in threads:
            thread.join()
    assert len(acknowledged) >= after
    by_user = {
        f"shopper{n}": sorted(
            int(name.split("-")[1]) for name in acknowledged if name.startswith(f"shopper{n}-")
        )
        for n in range(4)
    }
    with Queue(folder / "online" / DATABASE) as queue:
        assert queue.check() == []
        for user, posted in by_user.items():
            kept = queue.read("SELECT COUNT(*) AS n FROM events WHERE user_id = ?", (user,))["n"][0]
            # One more may have been written and not answered.
            assert len(posted) <= kept <= len(posted) + 1
    with process(folder) as (_, client):
        again = client.post(
            f"{API}/events",
            json={
                "events": [
                    event(int(name.split("-")[1]), name.split("-")[0])
                    for name in acknowledged[:1000]
                ]
            },
        ).json()
        assert again["accepted"] == 0


def _post_until_dead(url: str, user: str, acknowledged: list[str]) -> None:
    with httpx.Client(base_url=url, timeout=10) as client:
        for n in range(100_000):
            try:
                answer = client.post(f"{API}/events", json={"events": [event(n, user)]})
            except httpx.TransportError:
                return
            assert answer.status_code == 200
            assert answer.json()["accepted"] == 1
            acknowledged.append(f"{user}-{n}")


def test_reload_under_load_answers_everybody(folder: Path) -> None:
    """Two versions in turn, twenty reloads, six clients.

    Every answer is whole and of one version, and memory does not pile up.
    """
    first = service_manifest(folder)
    second = _other(folder, first)
    done = threading.Event()
    answers = []
    with process(folder, CACHE_TTL_SECONDS="0") as (server, client):
        threads = [
            threading.Thread(target=_ask_until, args=(str(client.base_url), done, answers, n))
            for n in range(6)
        ]
        for thread in threads:
            thread.start()
        memory = []
        for n in range(20):
            publish(folder, second if n % 2 == 0 else first)
            answer = client.post(f"{API}/reload")
            assert answer.status_code == 200
            assert answer.json()["model_version"] == (second if n % 2 == 0 else first)["folder"]
            memory.append(psutil.Process(server.pid).memory_info().rss)
        done.set()
        for thread in threads:
            thread.join()
    assert len(answers) > 50
    assert {status for status, _, _ in answers} == {200}
    assert {n for _, n, _ in answers} == {5}
    assert {version for _, _, version in answers} == {first["folder"], second["folder"]}
    assert memory[-1] < memory[4] * 1.25


def publish(folder: Path, manifest: dict) -> None:
    """Let the service's manifest name a version."""
    version = folder / manifest["folder"]
    files = {name: version / name for name in manifest["sha256"]}
    write_manifest(folder / "manifest.json", KIND, files, manifest, manifest["cut"])


def _other(folder: Path, manifest: dict) -> dict:
    """The same files as another version."""
    import shutil

    shutil.copytree(current(folder), folder / "v-other")
    return manifest | {"folder": "v-other"}


def _ask_until(url: str, done: threading.Event, answers: list, n: int) -> None:
    with httpx.Client(base_url=url, timeout=30) as client:
        while not done.is_set():
            answer = client.get(
                f"{API}/recommendations/U00000{n}",
                params={"model": ("hybrid", "two_stage", "als")[n % 3]},
            )
            answers.append(
                (
                    answer.status_code,
                    len(answer.json().get("recommendations", [])),
                    answer.json().get("model_version"),
                )
            )


@pytest.mark.spec("S5-51", "S4-28")
def test_the_same_events_from_many_sides_count_once(folder: Path) -> None:
    with process(folder) as (_, client):
        rows = [event(n, "crowd", "cart") for n in range(40)]
        taken = []
        threads = [
            threading.Thread(
                target=lambda: taken.append(
                    client.post(f"{API}/events", json={"events": rows}).json()
                )
            )
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(answer["accepted"] for answer in taken) == 40
        assert sum(answer["duplicates"] for answer in taken) == 7 * 40
        assert (
            sorted(score for _, _, score in client.get(f"{API}/queue/crowd").json()["pool"])
            == [3] * 40
        )


def test_what_serving_never_calls_is_not_loaded(folder: Path) -> None:
    """Nor for lists, the calibrated confidence and the queue; seconds of a start."""
    script = f"""
import sys
from pathlib import Path
import recsys_utils.serving.__main__
from recsys_utils.evaluation.calibration import confidence
from recsys_utils.serving.artifacts import Artifacts
from recsys_utils.serving.online import Online
hybrid = Artifacts.load(Path({str(folder)!r})).hybrid
assert len(hybrid.explain_list(hybrid.user_ids_[0], 5).rows) == 5
online = Online(Path({str(folder / "online" / DATABASE)!r}))
online.refresh(hybrid)
assert online.parts() == {{"queue": "ready", "queue_model": "ready"}}
print([name for name in ("torch", "sklearn", "ibis", "lightfm", "lightgbm", "duckdb")
    if name in sys.modules])
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("[]\n", "")
