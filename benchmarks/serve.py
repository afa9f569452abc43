"""A shop's load on a running service.

`python benchmarks/serve.py [--dataset NAME] [--seconds 120] [--rate 50]`.

Uncached requests of every kind come at a fixed rate, events among them; halfway the service is
killed and started again. Milliseconds count from the time at which a request was due, so a service
that falls behind shows it. Then every acknowledged event is posted once more: what is new to the
service now was lost. After that, as many requests as it takes from some clients, without the cache
and with it. `serve_load.load_table` comes first: what the service bears, beside the same load on a
plain route that returns a constant list. `--load` makes that table alone.
"""

import argparse
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import psutil
from lab.serving_tour import API, Server
from serve_load import load_table

from recsys_utils.data.registry import spec
from recsys_utils.store import data_dir

Request = tuple[str, str, dict | None]


@dataclass
class Load:
    """What several clients asked and got.

    rows: (kind, milliseconds, status), status 503 where nobody answered. kept: the events that were
    acknowledged.
    """

    server: Server
    asks: dict[str, Callable[[np.random.Generator], Request]]
    rows: list[tuple[str, float, int]] = field(default_factory=list)
    kept: list[dict] = field(default_factory=list)

    def run(self, clients: int, seconds: float, rate: float | None = None) -> None:
        """Ask for some seconds, at a rate or as fast as answers come.

        rate: requests per second of all clients together.
        """
        due = itertools.count()
        threads = [
            threading.Thread(
                target=self._client, args=(seed, time.perf_counter(), seconds, rate, due)
            )
            for seed in range(clients)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _client(
        self, seed: int, began: float, seconds: float, rate: float | None, due: Iterator[int]
    ) -> None:
        rng = np.random.default_rng(seed)
        with self.server.connect() as client:
            while (
                at := began + next(due) / rate if rate else time.perf_counter()
            ) < began + seconds:
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
    """What it bears; a fixed rate with a kill in the middle; full speed without and with cache."""
    folder = options.artifacts or data_dir(spec(options.dataset).name, "serving")
    table = load_table(folder, options.seconds / 8, options.clients)
    print(table.round(2).to_string(na_rep="–"))
    if options.load:
        return
    with Server(folder, cache_seconds=0) as server:
        _steady(server, options)
    for cached in (False, True):
        with Server(folder, 3600 * cached) as server:
            load = Load(server, _asks(server, cached))
            memory = _memory(server)
            load.run(options.clients, options.seconds / 8)
            _print(
                load.rows,
                f"full speed, {'cached' if cached else 'uncached'}",
                options.seconds / 8,
                memory,
                _memory(server),
            )


def _steady(server: Server, options: argparse.Namespace) -> None:
    load = Load(server, _asks(server, cached=False))
    work = threading.Thread(
        target=load.run, args=(options.clients * 4, options.seconds, options.rate)
    )
    work.start()
    memory = _watched(server, options.seconds / 2)
    server.process.kill()
    server.process.wait()
    server.start()
    memory += _watched(server, options.seconds / 2 - 5)
    work.join()
    _print(
        load.rows,
        f"{options.rate:g} requests per second, uncached, killed and started again",
        options.seconds,
        *memory,
    )
    lost = sum(
        server.client.post(f"{API}/events", json={"events": load.kept[n : n + 1000]}).json()[
            "accepted"
        ]
        for n in range(0, len(load.kept), 1000)
    )
    print(f"{len(load.kept):,} events acknowledged, {lost} of them lost")


def _watched(server: Server, seconds: float) -> list[float]:
    """The memory now and after each quarter of some seconds."""
    found = [_memory(server)]
    for _ in range(4):
        time.sleep(seconds / 4)
        found.append(_memory(server))
    return found


def _memory(server: Server) -> float:
    return psutil.Process(server.process.pid).memory_info().rss / 2**20


def _asks(server: Server, cached: bool) -> dict[str, Callable[[np.random.Generator], Request]]:
    """One request of each kind; with the cache, of ten users only."""
    models = [model["name"] for model in server.json(f"{API}/models")["models"]]
    groups = server.json(f"{API}/users")["users"]
    items = [item["item_id"] for item in server.json(f"{API}/items/popular", n=100)["items"]]
    everybody = np.array(groups["loyal"] + groups["new"] + ["a stranger"])
    serial = itertools.count()
    name = f"{time.time():.0f}"
    users = everybody[:10] if cached else everybody
    items = np.array(items)
    result = {
        model: lambda rng, model=model: (
            "GET",
            (
                f"{API}/recommendations/{rng.choice(users)}?model={model}"
                f"&n={5 if cached else rng.integers(1, 21)}"
            ),
            None,
        )
        for model in models
    }
    return (
        result
        if cached
        else result
        | {
            "filtered": lambda rng: (
                "GET",
                (
                    f"{API}/recommendations/{rng.choice(users)}?price_max={rng.uniform(2, 9):.2f}"
                    "&exclude_purchased=true"
                ),
                None,
            ),
            "similar": lambda rng: ("GET", f"{API}/items/{rng.choice(items)}/similar", None),
            "profile": lambda rng: ("GET", f"{API}/users/{rng.choice(users)}/profile", None),
            "event": lambda rng: (
                "POST",
                f"{API}/events",
                {
                    "events": [
                        {
                            "user_id": f"bench{rng.integers(100)}",
                            "item_id": str(rng.choice(items)),
                            "event_type": "view",
                            "event_id": f"{name}-{next(serial)}",
                        }
                    ]
                },
            ),
            "queue": lambda rng: ("GET", f"{API}/queue/bench{rng.integers(100)}", None),
        }
    )


def _print(rows: list[tuple], title: str, seconds: float, *memory: float) -> None:
    table = pd.DataFrame(rows, columns=["what", "ms", "status"])
    good = table[table["status"] == 200]
    points = {"percentiles": [0.5, 0.95, 0.99]}
    shown = good.groupby("what", sort=False)["ms"].describe(**points)
    shown.loc["all"] = good["ms"].describe(**points)
    down = int((table["status"] == 503).sum())
    print(
        f"\n{title}: {len(good) / seconds:,.0f} answers per second, {len(table) - len(good) - down}"
        f" refused, {down} while it was down, memory"
        f" {' → '.join(f'{mib:,.0f}' for mib in memory)} MiB"
    )
    names = {"count": "answers", "50%": "p50 ms", "95%": "p95 ms", "99%": "p99 ms"}
    print(shown[list(names)].rename(columns=names).astype({"answers": int}).round(2).to_string())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="synthetic", metavar="NAME|FILE.toml")
    parser.add_argument(
        "--artifacts", type=Path, metavar="FOLDER", help="default: data/<dataset>/serving"
    )
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument(
        "--rate", type=float, default=50, help="requests per second of the first part"
    )
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--load", action="store_true", help="the table of loads alone")
    main(parser.parse_args())
