"""How fast events are applied, model update included, and how memory and database grow: python benchmarks/online.py [events]."""

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from recsys_utils.data.registry import EVENT_TYPES
from recsys_utils.online.events import write_csv
from recsys_utils.online.queue import Queue
from recsys_utils.online.update import DATABASE, apply_folder, train_cold

USERS, ITEMS, FILE = 100_000, 10_000, 50_000
ITEM = pd.DataFrame(
    {
        "item_id": np.char.mod("I%05d", np.arange(ITEMS)),
        "category": np.char.mod("c%d", np.arange(ITEMS) % 40),
    }
).astype(object)


def events(n: int, day: str, rng: np.random.Generator) -> pd.DataFrame:
    """Random events of a day: a few shoppers and products have most of them."""
    user, item = ((rng.random(n) ** 2 * size).astype(int) for size in (USERS, ITEMS))
    ts = pd.Timestamp(day) + pd.to_timedelta(np.sort(rng.integers(0, 86_400, n)), unit="s")
    return pd.DataFrame(
        {
            "user_id": np.char.mod("U%06d", user),
            "item_id": ITEM["item_id"].to_numpy()[item],
            "event_type": rng.choice(EVENT_TYPES, n, p=[0.6, 0.22, 0.06, 0.12]),
            "ts": ts.astype("datetime64[us]"),
        }
    ).astype({"user_id": object})


def main(total: int) -> None:
    """Train on 100,000 events, then apply the rest file by file; a line per file."""
    rng, now = np.random.default_rng(0), pd.Timestamp("2031-01-01")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_csv(events(100_000, "2020-01-01", rng), ITEM, root / "history")
        train_cold(root / "history", root / "state", now=now)
        spent, applied = 0.0, 0
        print("events     events/s  so far/s  peak MiB  database MB")
        for n, day in enumerate(
            pd.date_range("2020-01-02", periods=total // FILE).strftime("%Y-%m-%d")
        ):
            inbox = write_csv(events(FILE, day, rng), ITEM, root / f"inbox{n}")[0].parent
            clock = time.perf_counter()
            applied += apply_folder(inbox, root / "state", now=now).counts.new
            seconds = time.perf_counter() - clock
            spent += seconds
            with Queue(root / "state" / DATABASE, read_only=True) as queue:
                size = queue.size() / 1e6
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(
                f"{applied:9,}  {FILE / seconds:8,.0f}  {applied / spent:8,.0f}  {peak:8,.0f}  {size:11,.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
