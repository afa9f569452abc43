"""A shop's load on a running service: `python benchmarks/serve.py [--dataset NAME] [--seconds 120] [--clients 4]`.

It starts the service of what was trained, asks it from several clients, and prints answers per second, milliseconds (p50, p95, p99) for
each model and kind of request, uncached and cached, and the service's memory before and after.
"""

import argparse
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import psutil

from recsys_utils.datasets import spec
from recsys_utils.store import data_dir

API = "/api/v1"


def main(options: argparse.Namespace) -> None:
    """Measure without the cache, then with it."""
    folder = options.artifacts or data_dir(spec(options.dataset).name, "serving")
    for cached, seconds in ((False, options.seconds * 0.75), (True, options.seconds * 0.25)):
        ttl = "3600" if cached else "0"
        command = [sys.executable, "-m", "recsys_utils.serving", "--artifacts", str(folder), "--db", str(options.db), "--port", str(options.port)]
        with subprocess.Popen(command, env=os.environ | {"CACHE_TTL_SECONDS": ttl}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
            try:
                _measured(server, f"http://127.0.0.1:{options.port}", seconds, options.clients, cached)
            finally:
                server.terminate()


def _measured(server: subprocess.Popen, url: str, seconds: float, clients: int, cached: bool) -> None:
    with httpx.Client(base_url=url) as client:
        _wait(client, server)
        models = [model["name"] for model in client.get(f"{API}/models").json()["models"]]
        groups = client.get(f"{API}/users").json()["users"]
        items = [item["item_id"] for item in client.get(f"{API}/items/popular", params={"n": 100}).json()["items"]]
    asks = _asks(models, groups["loyal"] + groups["new"], items, cached)
    memory, rows = [_memory(server)], []
    threads = [threading.Thread(target=_ask, args=(url, asks, seconds, rows, seed)) for seed in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    memory.append(_memory(server))
    _print(pd.DataFrame(rows, columns=["what", "ms", "status"]), seconds, "cached" if cached else "uncached", memory)


def _asks(models: list[str], users: list[str], items: list[str], cached: bool) -> dict[str, Callable[[np.random.Generator], tuple]]:
    """One request of each kind; with the cache, of ten users only."""
    users = users[:10] if cached else [*users, "a stranger"]
    made = {model: lambda rng, model=model: (
        "GET", f"{API}/recommendations/{rng.choice(users)}?model={model}&n={5 if cached else rng.integers(1, 21)}", None)
            for model in models}
    return made if cached else made | {
        "filtered": lambda rng: ("GET", f"{API}/recommendations/{rng.choice(users)}?price_max={rng.uniform(2, 9):.2f}&exclude_purchased=true", None),
        "similar": lambda rng: ("GET", f"{API}/items/{rng.choice(items)}/similar", None),
        "profile": lambda rng: ("GET", f"{API}/users/{rng.choice(users)}/profile", None),
        "event": lambda rng: ("POST", f"{API}/events", {"events": [
            {"user_id": f"bench{rng.integers(100)}", "item_id": str(rng.choice(items)), "event_type": "view"}]}),
        "queue": lambda rng: ("GET", f"{API}/queue/bench{rng.integers(100)}", None)}


def _ask(url: str, asks: dict, seconds: float, rows: list, seed: int) -> None:
    rng, names, end = np.random.default_rng(seed), list(asks), time.perf_counter() + seconds
    with httpx.Client(base_url=url, timeout=30) as client:
        while (start := time.perf_counter()) < end:
            name = names[rng.integers(len(names))]
            method, path, body = asks[name](rng)
            start = time.perf_counter()
            answer = client.request(method, path, json=body)
            rows.append((name, (time.perf_counter() - start) * 1e3, answer.status_code))


def _print(rows: pd.DataFrame, seconds: float, title: str, memory: list[float]) -> None:
    table = rows.groupby("what", sort=False)["ms"].describe(percentiles=[0.5, 0.95, 0.99])[["count", "50%", "95%", "99%"]]
    table.loc["all"] = rows["ms"].describe(percentiles=[0.5, 0.95, 0.99])[["count", "50%", "95%", "99%"]]
    failed = int((rows["status"] != 200).sum())
    print(f"\n{title}: {len(rows) / seconds:,.0f} answers per second, {failed} failed, memory {memory[0]:,.0f} → {memory[1]:,.0f} MiB")
    print(table.rename(columns={"count": "answers", "50%": "p50 ms", "95%": "p95 ms", "99%": "p99 ms"}).round(2).to_string())


def _wait(client: httpx.Client, server: subprocess.Popen) -> None:
    while server.poll() is None:
        try:
            if client.get(f"{API}/health/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    sys.exit("the service ended: run python -m recsys_utils.serving train --dataset NAME first")


def _memory(server: subprocess.Popen) -> float:
    return psutil.Process(server.pid).memory_info().rss / 2**20


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="synthetic", metavar="NAME|FILE.toml")
    parser.add_argument("--artifacts", type=Path, metavar="FOLDER", help="default: data/<dataset>/serving")
    parser.add_argument("--db", type=Path, required=True, metavar="FILE", help="a database for the events that it posts, not the shop's own")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--port", type=int, default=8123)
    main(parser.parse_args())
