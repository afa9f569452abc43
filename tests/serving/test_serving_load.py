"""The service under load: bounded waiting, deadlines, batches beside lists; a real server."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np
import pytest
import uvicorn

from recsys_utils.serving import telemetry
from recsys_utils.serving.app import create_app
from recsys_utils.serving.connections import Punctual
from recsys_utils.serving.lanes import SINGLES
from recsys_utils.serving.settings import Settings

API = "/api/v1"


class Impatient(Punctual):
    """The protocol with a short deadline."""

    seconds = 0.5


@contextmanager
def server(folder: Path, **config: object) -> Iterator[tuple[uvicorn.Server, int]]:
    """A server of a folder on a free port."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        app = create_app(folder, config=Settings(**config))
        made = uvicorn.Server(uvicorn.Config(app, log_level="error", http=Impatient))
        thread = threading.Thread(target=made.run, args=([listening],))
        thread.start()
        port = listening.getsockname()[1]
        try:
            while not made.started or app.state.service.status == "initializing":
                time.sleep(0.01)
            yield made, port
        finally:
            made.should_exit = True
            thread.join()


def said(connection: socket.socket) -> bytes:
    """All that is answered until the connection is closed."""
    result = b""
    while part := connection.recv(65536):
        result += part
    return result


@pytest.mark.parametrize("first", [b"", b"G", b"GET / HTTP/1.1\r\nHost: loc"])
def test_a_connection_that_drips_its_headers_is_closed(folder: Path, first: bytes) -> None:
    with server(folder) as (made, port):
        connections = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(50)]
        start = time.perf_counter()
        dripping = first
        while time.perf_counter() - start < 1.5:
            for connection in connections:
                with suppress(OSError):
                    connection.sendall(dripping)
            dripping = first and b"x"
            time.sleep(0.1)
        end = time.perf_counter() + 5
        while made.server_state.connections and time.perf_counter() < end:
            time.sleep(0.01)
        assert not made.server_state.connections
        for connection in connections:
            connection.close()
        assert httpx.get(f"http://127.0.0.1:{port}{API}/health").status_code == 200


def test_a_second_request_on_a_connection_may_not_drip_either(folder: Path) -> None:
    with server(folder) as (made, port):
        with socket.create_connection(("127.0.0.1", port), 10) as connection:
            connection.sendall(f"GET {API}/health HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert b"200 OK" in connection.recv(65536)
            start = time.perf_counter()
            connection.sendall(b"GET / HTTP/1.1\r\n")
            said(connection)
            assert 0.3 < time.perf_counter() - start < 3
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            for _ in range(4):
                assert client.get(f"{API}/health").status_code == 200
                time.sleep(0.3)  # longer in all than a request's headers may take


def test_a_body_that_drips_is_refused_and_holds_no_place(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telemetry, "BODY_SECONDS", 0.5)
    head = (
        f"POST {API}/recommendations HTTP/1.1\r\nHost: localhost\r\n"
        "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    )
    with server(folder, max_waiting=0) as (_, port):
        connections = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(30)]
        for connection in connections:
            connection.sendall(head.encode())
        time.sleep(0.1)
        body = {"user_id": "somebody"}
        answer = httpx.post(f"http://127.0.0.1:{port}{API}/recommendations", json=body)
        assert answer.status_code == 200
        for connection in connections:
            answer = said(connection)
            assert answer.startswith(b"HTTP/1.1 408")
            assert "took more than 0.5 s" in json.loads(answer.split(b"\r\n\r\n")[1])["error"]
            connection.close()


def test_more_than_may_wait_are_refused_at_once_and_told_when_to_come_back(folder: Path) -> None:
    with server(folder, max_waiting=2, cache_ttl_seconds=0) as (_, port):
        url = f"http://127.0.0.1:{port}{API}"
        users = httpx.get(f"{url}/users").json()["users"]["loyal"]

        def ask(n: int) -> httpx.Response:
            with httpx.Client(timeout=30) as client:
                return client.get(
                    f"{url}/recommendations/{users[n % len(users)]}", params={"n": 20}
                )

        with ThreadPoolExecutor(64) as pool:
            answers = list(pool.map(ask, range(400)))
        statuses = [answer.status_code for answer in answers]
        assert set(statuses) == {200, 503}
        assert statuses.count(200) > SINGLES
        for answer in answers:
            if answer.status_code == 503:
                assert answer.headers["retry-after"] == "1"
                assert "ask again in a second" in answer.json()["error"]
        assert httpx.get(f"{url}/health/ready").status_code == 200
        text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
        assert f"refused_total {float(statuses.count(503))}" in text
        assert ask(0).status_code == 200


def test_batches_leave_single_lists_their_threads(folder: Path) -> None:
    """Eight lists of a thousand users at once, and one list after the other beside them."""
    with server(folder, cache_ttl_seconds=0) as (_, port):
        url = f"http://127.0.0.1:{port}"
        users = httpx.get(f"{url}{API}/users").json()["users"]["loyal"]
        many = {"user_ids": [users[n % len(users)] for n in range(1000)]}
        done = threading.Event()

        def batch(n: int) -> int:
            return httpx.post(f"{url}/predict_user_list", json=many, timeout=60).status_code

        def singles() -> list[float]:
            seconds = []
            with httpx.Client(base_url=url, timeout=30) as client:
                while not done.is_set():
                    start = time.perf_counter()
                    answer = client.get(f"{API}/recommendations/{users[len(seconds) % len(users)]}")
                    assert answer.status_code == 200
                    seconds.append(time.perf_counter() - start)
            return seconds

        with ThreadPoolExecutor(9) as pool:
            beside = pool.submit(singles)
            statuses = list(pool.map(batch, range(8)))
            done.set()
            assert statuses == [200] * 8
            assert np.median(beside.result()) < 1
