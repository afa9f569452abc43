"""How fast events are applied, model update included: `python benchmarks/online.py [events]`.

Memory and the size of the database are printed too, since both could grow.
"""

import resource
import sys
import tempfile
import time
from pathlib import Path

import recsys_utils  # noqa: F401 - says how numpy computes, before it loads

# isort: split
import numpy as np
import pandas as pd

from recsys_utils.data.registry import EVENT_TYPES
from recsys_utils.online.events import write_csv
from recsys_utils.online.queue import Queue
from recsys_utils.online.update import DATABASE, apply_folder, train_cold

USERS = 100_000
ITEMS = 10_000
FILE = 50_000  # events
CATALOGUE = pd.DataFrame(
    {
        "item_id": np.char.mod("I%05d", np.arange(ITEMS)),
        "category": np.char.mod("c%d", np.arange(ITEMS) % 40),
    }
).astype(object)


def random_events(n: int, day: str, rng: np.random.Generator) -> pd.DataFrame:
    """Random events of a day: a few shoppers and products have most of them."""
    user = (rng.random(n) ** 2 * USERS).astype(int)
    item = (rng.random(n) ** 2 * ITEMS).astype(int)
    seconds = np.sort(rng.integers(0, 86_400, n))
    table = pd.DataFrame(
        {
            "user_id": np.char.mod("U%06d", user),
            "item_id": CATALOGUE["item_id"].to_numpy()[item],
            "event_type": rng.choice(EVENT_TYPES, n, p=[0.6, 0.22, 0.06, 0.12]),
            "ts": pd.Timestamp(day) + pd.to_timedelta(seconds, unit="s"),
        }
    )
    return table.astype({"user_id": object, "ts": "datetime64[us]"})


def main(total: int) -> None:
    """Train on 100,000 events, then apply the rest file by file; a line per file."""
    rng = np.random.default_rng(0)
    now = pd.Timestamp("2031-01-01")
    days = pd.date_range("2020-01-02", periods=total // FILE).strftime("%Y-%m-%d")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        state = root / "state"
        write_csv(random_events(100_000, "2020-01-01", rng), CATALOGUE, root / "history")
        train_cold(root / "history", state, now=now)
        seconds_so_far = 0.0
        applied = 0
        print("events     events/s  so far/s  peak MiB  database MB")
        for day in days:
            inbox = root / f"inbox-{day}"
            write_csv(random_events(FILE, day, rng), CATALOGUE, inbox)
            start = time.perf_counter()
            applied += apply_folder(inbox, state, now=now).counts.new
            seconds = time.perf_counter() - start
            seconds_so_far += seconds
            with Queue(state / DATABASE, read_only=True) as queue:
                megabytes = queue.size() / 1e6
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(
                f"{applied:9,}  {FILE / seconds:8,.0f}  {applied / seconds_so_far:8,.0f}  "
                f"{peak:8,.0f}  {megabytes:11,.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
