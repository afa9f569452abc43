"""What the service bears, beside the same load on a route that returns a constant list (floor.py).

Lists as fast as answers come; twice as many lists as that, with batches beside them; connections
that send nothing; one shopper with a long history; a cold start. `serve.py` runs it.
"""

import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import pandas as pd
from lab.serving_tour import API, Server

LIST = 5  # products of a list
BATCH = 1_000  # users of a batch
SILENT = 300  # connections that send nothing
EVENTS = 50_000  # of the shopper with a long history
SOON = 100  # events after which a history is short


def load_table(folder: Path, seconds: float, clients: int) -> pd.DataFrame:
    """Every measure with the service's value, the floor's and their ratio; milliseconds, rates."""
    rows = []
    start = time.perf_counter()
    with Server(folder, cache_seconds=0) as server:
        rows.append(("start to ready, s", time.perf_counter() - start, None))
        users = _users(server)
        with _floor(server, users[0]) as floor:
            for model in _one_of_each(server):
                rows += _full_speed(server, floor, users, model, seconds, clients)
            mine, least = (
                _full_speed_of(port, users, None, seconds, clients)
                for port in (_port(server.url), floor)
            )
            rows += _overloaded(server, floor, users, (mine[0], least[0]), seconds)
        rows += _silent(server, users)
        rows += _long_history(server)
    table = pd.DataFrame(rows, columns=["measure", "service", "floor"]).set_index("measure")
    return table.assign(ratio=table["service"] / table["floor"])


def _full_speed(
    server: Server, floor: int, users: list[str], model: str, seconds: float, clients: int
) -> list[tuple]:
    """Lists per second and their times, from a few clients without a pause."""
    name = f"lists of {model}, full speed"
    mine = _full_speed_of(_port(server.url), users, model, seconds, clients)
    least = _full_speed_of(floor, users, None, seconds, clients)
    heads = ("per second", "p50 ms", "p95 ms")
    return [(f"{name}, {head}", *pair) for head, pair in zip(heads, zip(mine, least))]


def _full_speed_of(
    port: int, users: list[str], model: str | None, seconds: float, clients: int
) -> tuple[float, float, float]:
    turns = itertools.cycle(users)
    ask = "" if model is None else f"&model={model}"
    end = time.perf_counter() + seconds
    found = _in_threads(
        clients, lambda: _asked(port, (f"{_path(next(turns))}{ask}" for _ in _until(end)))
    )
    times = [ms for ms, status in found if status == 200]
    return len(times) / seconds, *np.percentile(times, [50, 95])


def _overloaded(
    server: Server, floor: int, users: list[str], rates: tuple[float, float], seconds: float
) -> list[tuple]:
    """Twice as many lists as answers come at full speed, with batches beside them."""
    port = _port(server.url)
    stop = threading.Event()
    batches: list[float] = []
    beside = threading.Thread(target=_batches, args=(server, users, stop, batches))
    beside.start()
    mine = _at_rate(port, users, 2 * rates[0], seconds)
    stop.set()
    beside.join()
    least = _at_rate(floor, users, 2 * rates[1], seconds)
    rows = [("twice the capacity: lists due per second", 2 * rates[0], 2 * rates[1])]
    for name, q in (("p50", 50), ("p95", 95)):
        rows.append((f"twice the capacity: answered, {name} ms", *_both(mine, least, 200, q)))
    rows.append(("twice the capacity: refused, p95 ms", *_both(mine, least, 503, 95)))
    shares = [100 * np.mean([status == 503 for _, status in found]) for found in (mine, least)]
    rows.append(("twice the capacity: refused, %", *shares))
    failed = [sum(status not in (200, 503) for _, status in found) for found in (mine, least)]
    rows.append(("twice the capacity: neither answered nor refused", *failed))
    rows.append((f"a batch of {BATCH:,} users beside it, ms", np.mean(batches), None))
    return rows


def _at_rate(
    port: int, users: list[str], rate: float, seconds: float, most: int = 24
) -> list[tuple[float, int]]:
    """(milliseconds, status) of requests that are sent when they are due."""
    due = itertools.count()
    began = time.perf_counter()

    def paths() -> Iterator[str]:
        while (at := began + next(due) / rate) < began + seconds:
            time.sleep(max(0.0, at - time.perf_counter()))
            yield _path(users[int(at * 1e6) % len(users)])

    return _in_threads(most, lambda: _asked(port, paths()))


def _both(mine: list, least: list, status: int, q: float) -> list[float]:
    return [
        float(np.percentile(times, q))
        if (times := [ms for ms, s in found if s == status])
        else np.nan
        for found in (mine, least)
    ]


def _batches(server: Server, users: list[str], stop: threading.Event, took: list[float]) -> None:
    asked = list(itertools.islice(itertools.cycle(users), BATCH))
    with server.connect() as client:
        while not stop.is_set():
            start = time.perf_counter()
            answer = client.post("/predict_user_list", json={"user_ids": asked})
            if answer.status_code == 200:
                took.append((time.perf_counter() - start) * 1e3)


def _silent(server: Server, users: list[str]) -> list[tuple]:
    """Lists while many connections send one byte and no more, and how long those are kept."""
    port = _port(server.url)
    start = time.perf_counter()
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(SILENT)]
    for one in silent:
        one.sendall(b"G")
    found = _asked(port, (_path(user) for user in users[:200]))
    for one in silent:
        one.settimeout(60)
        with suppress(OSError):
            one.recv(1)
        one.close()
    return [
        (
            f"a list beside {SILENT} silent connections, p95 ms",
            np.percentile(_times(found), 95),
            None,
        ),
        ("the silent ones are closed after, s", time.perf_counter() - start, None),
    ]


def _long_history(server: Server) -> list[tuple]:
    """An event and a showing of a shopper with few and with many events."""
    items = [one["item_id"] for one in server.json(f"{API}/items/popular", n=100)["items"]]
    serial = itertools.count()
    name = f"long-{time.time():.0f}"

    def post(n: int) -> None:
        events = [
            {
                "user_id": name,
                "item_id": items[at % len(items)],
                "event_type": "view",
                "event_id": f"{name}-{at}",
            }
            for at in itertools.islice(serial, n)
        ]
        server.client.post(f"{API}/events", json={"events": events}).raise_for_status()

    def show() -> None:
        server.client.post(f"{API}/queue/{name}/next").raise_for_status()

    rows = []
    for total in (SOON, EVENTS):
        for _ in range((total - SOON) // 1_000 or 1):
            post(min(total, 1_000))
        told = f"of a shopper with {total:,} events, p50 ms"
        rows.append((f"an event {told}", _median(lambda: post(1)), None))
        rows.append((f"a showing {told}", _median(show), None))
    return rows


def _median(work: Callable[[], object], tries: int = 30) -> float:
    times = []
    for _ in range(tries):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1e3)
    return float(np.median(times))


@contextmanager
def _floor(server: Server, user: str) -> Iterator[int]:
    """The port of the floor, which answers with one of the service's own lists."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as home:
        answer = Path(home, "answer.json")
        answer.write_text(json.dumps(server.json(_path(user))))
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "floor:app", "--port", str(port), "--no-access-log"],
            env=os.environ | {"FLOOR": str(answer)},
            cwd=Path(__file__).parent,
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait(port)
            yield port
        finally:
            process.terminate()
            process.wait()


def _wait(port: int) -> None:
    for _ in range(600):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.1)


def _asked(port: int, paths: Iterator[str]) -> list[tuple[float, int]]:
    """(milliseconds, status) of some GETs over one connection; 0 where nobody answered."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    found = []
    for path in paths:
        start = time.perf_counter()
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            status = answer.status
        except OSError:
            connection.close()
            status = 0
        found.append(((time.perf_counter() - start) * 1e3, status))
    connection.close()
    return found


def _in_threads(n: int, work: Callable[[], list]) -> list:
    results: list = []
    threads = [threading.Thread(target=lambda: results.extend(work())) for _ in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def _one_of_each(server: Server) -> list[str]:
    """The default model, which computes, and a model whose lists are looked up."""
    about = server.json(f"{API}/models")
    stored = [model["name"] for model in about["models"] if not model["live"]]
    return [about["default"], *stored[:1]]


def _users(server: Server) -> list[str]:
    groups = server.json(f"{API}/users")["users"]
    return groups["loyal"] + groups["new"]


def _path(user: str) -> str:
    return f"{API}/recommendations/{user}?n={LIST}"


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])


def _times(found: list[tuple[float, int]]) -> list[float]:
    return [ms for ms, _ in found]


def _until(end: float) -> Iterator[None]:
    while time.perf_counter() < end:
        yield
