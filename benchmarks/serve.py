"""A shop's load on a running service: `python benchmarks/serve.py --db FILE [--dataset NAME] [--seconds 120] [--rate 50]`.

Uncached requests of every kind come at a fixed rate, events among them; halfway the service is killed and started again. Milliseconds count
from the time at which a request was due, so a service that falls behind shows it. Then every acknowledged event is posted once more: what is
new to the service now was lost. After that, as many requests as it takes from some clients, without the cache and with it.
"""

import argparse
import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import psutil

from recsys_utils.datasets import spec
from recsys_utils.store import data_dir

API = "/api/v1"
Request = tuple[str, str, dict | None]


@dataclass
class Server:
    """The service as a process that can be killed and started again."""

    command: list[str]
    url: str
    cached: bool = False

    def start(self) -> None:
        """Start it and wait until it is ready."""
        env = os.environ | {"CACHE_TTL_SECONDS": "3600" if self.cached else "0"}
        self.process = subprocess.Popen(self.command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not self._ready():
            if self.process.poll() is not None:
                sys.exit("the service ended: run python -m recsys_utils.serving train --dataset NAME first")
            time.sleep(0.1)

    def memory(self) -> float:
        """Resident MiB."""
        return psutil.Process(self.process.pid).memory_info().rss / 2**20

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}{API}/health/ready").status_code == 200
        except httpx.TransportError:
            return False

    @contextmanager
    def running(self, cached: bool) -> Iterator[None]:
        """The service for a while."""
        self.cached = cached
        self.start()
        try:
            yield
        finally:
            self.process.terminate()
            self.process.wait()


@dataclass
class Load:
    """What several clients asked and got: rows (kind, milliseconds, status; 503 where nobody answered), events that were acknowledged."""

    url: str
    asks: dict[str, Callable[[np.random.Generator], Request]]
    rows: list[tuple[str, float, int]] = field(default_factory=list)
    kept: list[dict] = field(default_factory=list)

    def run(self, clients: int, seconds: float, rate: float | None = None) -> None:
        """Ask for some seconds: at a rate (per second, all clients together), or as fast as answers come."""
        due = itertools.count()
        threads = [threading.Thread(target=self._client, args=(seed, time.perf_counter(), seconds, rate, due)) for seed in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _client(self, seed: int, began: float, seconds: float, rate: float | None, due: Iterator[int]) -> None:
        rng = np.random.default_rng(seed)
        with httpx.Client(base_url=self.url, timeout=30) as client:
            while (at := began + next(due) / rate if rate else time.perf_counter()) < began + seconds:
                time.sleep(max(0.0, at - time.perf_counter()))
                self._ask(client, rng, at)

    def _ask(self, client: httpx.Client, rng: np.random.Generator, at: float) -> None:
        kind = list(self.asks)[rng.integers(len(self.asks))]
        method, path, body = self.asks[kind](rng)
        try:
            status = client.request(method, path, json=body).status_code
        except httpx.TransportError:
            status = 503
        self.rows.append((kind, (time.perf_counter() - at) * 1e3, status))
        if kind == "event" and status == 200:
            self.kept.extend(body["events"])


def main(options: argparse.Namespace) -> None:
    """At a fixed rate with a kill in the middle; then at full speed without and with the cache."""
    folder = options.artifacts or data_dir(spec(options.dataset).name, "serving")
    command = [sys.executable, "-m", "recsys_utils.serving", "--artifacts", str(folder), "--db", str(options.db), "--port", str(options.port)]
    server = Server(command, f"http://127.0.0.1:{options.port}")
    with server.running(cached=False):
        _steady(server, options)
    for cached in (False, True):
        with server.running(cached):
            load, memory = Load(server.url, _asks(server.url, cached)), server.memory()
            load.run(options.clients, options.seconds / 8)
            _print(load.rows, f"full speed, {'cached' if cached else 'uncached'}", options.seconds / 8, memory, server.memory())


def _steady(server: Server, options: argparse.Namespace) -> None:
    load = Load(server.url, _asks(server.url, cached=False))
    work = threading.Thread(target=load.run, args=(options.clients * 4, options.seconds, options.rate))
    work.start()
    memory = _watched(server, options.seconds / 2)
    server.process.kill()
    server.process.wait()
    server.start()
    memory += _watched(server, options.seconds / 2 - 5)
    work.join()
    _print(load.rows, f"{options.rate:g} requests per second, uncached, killed and started again", options.seconds, *memory)
    lost = sum(httpx.post(f"{server.url}{API}/events", json={"events": load.kept[n:n + 1000]}, timeout=60).json()["accepted"]
               for n in range(0, len(load.kept), 1000))
    print(f"{len(load.kept):,} events acknowledged, {lost} of them lost")


def _watched(server: Server, seconds: float) -> list[float]:
    """The memory now and after each quarter of some seconds."""
    found = [server.memory()]
    for _ in range(4):
        time.sleep(seconds / 4)
        found.append(server.memory())
    return found


def _asks(url: str, cached: bool) -> dict[str, Callable[[np.random.Generator], Request]]:
    """One request of each kind; with the cache, of ten users only."""
    with httpx.Client(base_url=url) as client:
        models = [model["name"] for model in client.get(f"{API}/models").json()["models"]]
        groups = client.get(f"{API}/users").json()["users"]
        items = [item["item_id"] for item in client.get(f"{API}/items/popular", params={"n": 100}).json()["items"]]
    everybody, serial, name = np.array(groups["loyal"] + groups["new"] + ["a stranger"]), itertools.count(), f"{time.time():.0f}"
    users, items = everybody[:10] if cached else everybody, np.array(items)
    made = {model: lambda rng, model=model: (
        "GET", f"{API}/recommendations/{rng.choice(users)}?model={model}&n={5 if cached else rng.integers(1, 21)}", None)
            for model in models}
    return made if cached else made | {
        "filtered": lambda rng: ("GET", f"{API}/recommendations/{rng.choice(users)}?price_max={rng.uniform(2, 9):.2f}&exclude_purchased=true", None),
        "similar": lambda rng: ("GET", f"{API}/items/{rng.choice(items)}/similar", None),
        "profile": lambda rng: ("GET", f"{API}/users/{rng.choice(users)}/profile", None),
        "event": lambda rng: ("POST", f"{API}/events", {"events": [{
            "user_id": f"bench{rng.integers(100)}", "item_id": str(rng.choice(items)), "event_type": "view", "event_id": f"{name}-{next(serial)}"}]}),
        "queue": lambda rng: ("GET", f"{API}/queue/bench{rng.integers(100)}", None)}


def _print(rows: list[tuple], title: str, seconds: float, *memory: float) -> None:
    table = pd.DataFrame(rows, columns=["what", "ms", "status"])
    good, points = table[table["status"] == 200], {"percentiles": [0.5, 0.95, 0.99]}
    shown = good.groupby("what", sort=False)["ms"].describe(**points)
    shown.loc["all"] = good["ms"].describe(**points)
    down = int((table["status"] == 503).sum())
    print(f"\n{title}: {len(good) / seconds:,.0f} answers per second, {len(table) - len(good) - down} refused, {down} while it was down, "
          f"memory {' → '.join(f'{mib:,.0f}' for mib in memory)} MiB")
    names = {"count": "answers", "50%": "p50 ms", "95%": "p95 ms", "99%": "p99 ms"}
    print(shown[list(names)].rename(columns=names).astype({"answers": int}).round(2).to_string())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="synthetic", metavar="NAME|FILE.toml")
    parser.add_argument("--artifacts", type=Path, metavar="FOLDER", help="default: data/<dataset>/serving")
    parser.add_argument("--db", type=Path, required=True, metavar="FILE", help="a database for the events that it posts, not the shop's own")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--rate", type=float, default=50, help="requests per second of the first part")
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--port", type=int, default=8123)
    main(parser.parse_args())
