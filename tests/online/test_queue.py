"""The queue: rules of score, rotation and fallback, in any order, from many hands, with crashes."""

import gc
import json
import random
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from recsys_utils import LabError
from recsys_utils.data.registry import EVENT_TYPES, EVENT_WEIGHTS
from recsys_utils.models.purchase_net import PurchaseNet, labels
from recsys_utils.online import schema
from recsys_utils.online.queue import Counts, Queue

T0 = pd.Timestamp("2024-03-01")
COLUMNS = ["event_id", "user_id", "item_id", "event_type", "ts", "category"]
STRANGE = [
    "a",
    "Z",
    "é",
    "日本",
    'q"uote',
    "back\\slash",
    "line\nbreak",
    "\x00nul",
    " ",
    "1",
    "01",
    "'; DROP TABLE events --",
    "🛒",
    "x" * 10_000,
]


def frame(rows: list[tuple]) -> pd.DataFrame:
    """Canonical events from (user, item, type, seconds[, category]); equal rows are one event."""
    events = pd.DataFrame(
        [(*row, "")[:5] for row in rows],
        columns=["user_id", "item_id", "event_type", "ts", "category"],
    )
    text = (
        events["user_id"]
        + "\x1f"
        + events["item_id"]
        + "\x1f"
        + events["event_type"]
        + "\x1f"
        + events["ts"].astype(str)
    )
    events["event_id"] = (pd.util.hash_array(text.to_numpy(object)) >> np.uint64(1)).astype("int64")
    return events.assign(
        ts=(T0 + pd.to_timedelta(events["ts"], unit="s")).astype("datetime64[us]")
    )[COLUMNS]


def shop_events(n: int, users: int = 60, items: int = 80) -> pd.DataFrame:
    """The first n events of an endless shop."""
    r = np.random.default_rng(0).random((n, 3))
    user = (users * r[:, 0]).astype(int)
    item = (items * r[:, 1] ** 2).astype(int)
    kind = np.searchsorted([0.6, 0.8, 0.9], r[:, 2])
    return frame(
        [
            (f"u{u}", f"i{i}", EVENT_TYPES[k], s, f"c{i % 5}")
            for s, (u, i, k) in enumerate(zip(user, item, kind))
        ]
    )


def content(queue: Queue) -> dict[str, list]:
    """Every table but the log of what was shown, as rows."""
    return {
        table: queue.read(f"SELECT * FROM {table} ORDER BY 1, 2").to_numpy(object).tolist()
        for table in ("queue", "events", "purchases", "items", "state")
    }


def shown(queue: Queue, user: str, n: int, net: PurchaseNet | None = None) -> list[str]:
    return queue.recommend([user], n, net, at=T0)["item_id"].tolist()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "recommendation.db"


@pytest.fixture
def queue(path: Path):
    with Queue(path) as queue:
        yield queue


@pytest.fixture(scope="module")
def net() -> PurchaseNet:
    return PurchaseNet.cold(labels(shop_events(1_500)), seed=1, epochs=2)


# rules of score


@pytest.mark.spec("S4-18")
def test_worked_example(queue: Queue) -> None:
    queue.post(
        frame(
            [
                ("ann", "soap", "view", 1),
                ("ann", "soap", "view", 2),
                ("ann", "soap", "cart", 3),
                ("ann", "soap", "remove_from_cart", 4),
            ]
        )
    )
    assert queue.pool("ann") == {"pool": [["soap", 0, 4]]}
    queue.post(frame([("ann", "soap", "purchase", 5)]))
    assert queue.pool("ann") == {"pool": []}
    assert queue.purchases("ann") == ["soap"]
    queue.post(frame([("ann", "soap", "view", 6), ("ann", "soap", "cart", 7)]))
    assert queue.pool("ann") == {"pool": []}
    assert shown(queue, "ann", 3) == []
    assert queue.check() == []


@pytest.mark.spec("S4-14", "S4-15", "S4-16")
@pytest.mark.parametrize(("kind", "step"), [("view", 1), ("cart", 3), ("remove_from_cart", -1)])
def test_every_event_counts_and_scores_add_up_over_batches(
    queue: Queue, kind: str, step: int
) -> None:
    for n in range(1, 4):
        queue.post(
            frame([("ann", "soap", kind, n), ("ann", "oil", kind, n), ("bob", "soap", kind, n)])
        )
        assert queue.pool("ann") == {"pool": [["oil", 0, step * n], ["soap", 0, step * n]]}
        assert queue.pool("bob") == {"pool": [["soap", 0, step * n]]}


@pytest.mark.spec("S4-17", "S4-24")
def test_a_purchase_removes_at_once_from_this_shopper_only_and_forever(path: Path) -> None:
    with Queue(path) as queue:
        queue.post(
            frame([(user, item, "cart", 1) for user in ("ann", "bob") for item in ("soap", "oil")])
        )
        assert queue.post(frame([("ann", "soap", "purchase", 2)])) == Counts(
            new=1, copies=0, late=0, purchases=1
        )
        assert queue.pool("ann") == {"pool": [["oil", 0, 3]]}
        assert queue.pool("bob") == {"pool": [["oil", 0, 3], ["soap", 0, 3]]}
    with Queue(path) as queue:
        assert queue.purchases("ann") == ["soap"]
        assert queue.purchases("bob") == []
        assert shown(queue, "ann", 9) == ["oil"]


@pytest.mark.spec("S4-17")
def test_a_purchase_that_arrives_before_its_views_absorbs_them(queue: Queue) -> None:
    queue.post(frame([("ann", "soap", "purchase", 9)]))
    assert queue.post(frame([("ann", "soap", "view", 1), ("ann", "oil", "view", 2)])) == Counts(
        2, 0, 2, 0
    )
    assert queue.pool("ann") == {"pool": [["oil", 0, 1]]}


# storage


@pytest.mark.spec("S4-19")
def test_the_database_its_tables_and_how_it_is_written(queue: Queue, path: Path) -> None:
    tables = set(queue.read("SELECT name FROM main.sqlite_master WHERE type = 'table'")["name"])
    assert tables == {"queue", "purchases", "events", "state", "items", "log", "sums"}
    pragmas = {
        name: queue.read(f"PRAGMA {name}").iloc[0, 0]
        for name in ("journal_mode", "synchronous", "busy_timeout", "user_version")
    }
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": 2,
        "busy_timeout": 30_000,
        "user_version": schema.SCHEMA,
    }
    for sql in (
        "INSERT INTO events VALUES (1, 'a', 'b', 'stare', 0, NULL)",
        "INSERT INTO queue VALUES ('a', '{pool')",
        "INSERT INTO log VALUES (1, 'a', 'b', 'oracle', 0, 0)",
    ):
        with pytest.raises(sqlite3.IntegrityError), queue.transaction() as con:
            con.execute(sql)
    assert path.name == "recommendation.db"
    assert content(queue)["state"] == [
        ["max_pool", "100"],
        ["weights", '{"view": 1, "cart": 3, "remove_from_cart": -1}'],
    ]


@pytest.mark.spec("S4-20")
@given(
    events=st.lists(
        st.tuples(
            st.sampled_from(STRANGE),
            st.sampled_from(STRANGE),
            st.sampled_from(EVENT_TYPES),
            st.integers(0, 5),
        ),
        max_size=30,
    )
)
def test_the_stored_json_has_exactly_this_shape_whatever_the_ids(
    tmp_path_factory: pytest.TempPathFactory, events: list
) -> None:
    with Queue(tmp_path_factory.mktemp("db") / "recommendation.db") as queue:
        queue.post(frame(events))
        if events:
            queue.recommend([events[0][0]], 2, at=T0)
        for user, text in queue.read("SELECT user_id, product_queue FROM queue").itertuples(
            index=False
        ):
            stored = json.loads(text)
            assert list(stored) == ["pool"]
            assert stored == queue.pool(user)
            assert text == json.dumps(stored, separators=(",", ":"), ensure_ascii=False)
            assert all([type(x) for x in entry] == [str, int, int] for entry in stored["pool"])
        assert queue.check() == []


@pytest.mark.spec("S4-21")
def test_a_restart_changes_no_byte_of_any_queue(path: Path, net: PurchaseNet) -> None:
    with Queue(path) as queue:
        queue.post(shop_events(800))
        queue.recommend(["u1", "u2", "stranger"], 3, net, at=T0)
        before = content(queue), queue.read("SELECT * FROM log").to_numpy(object).tolist()
    with Queue(path) as queue:
        assert (content(queue), queue.read("SELECT * FROM log").to_numpy(object).tolist()) == before
        assert shown(queue, "stranger", 3)
        assert queue.pool("u1")["pool"]


# any sequence of posts, recommendations and restarts

ROWS = st.tuples(
    st.sampled_from(["ann", "bob"]),
    st.sampled_from("abcdefgh"),
    st.sampled_from(EVENT_TYPES),
    st.integers(0, 6),
    st.sampled_from(["", "x", "y"]),
)


class Shop(RuleBasedStateMachine):
    """The database beside a few sets and sums that follow the rules one event at a time."""

    MIN = 3
    MAX = 5

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "recommendation.db"
        self.queue = Queue(self.path, self.MIN, self.MAX)
        self.seen = set()
        self.bought = set()
        self.items = {}
        self.score = defaultdict(int)
        self.counter = defaultdict(int)
        self.pooled = defaultdict(set)
        self.touches = defaultdict(int)
        self.sales = defaultdict(int)
        self.log = 0

    def teardown(self) -> None:
        assert self.queue.check() == []
        self.queue.close()
        self.folder.cleanup()

    def best(self, user: str) -> list[str]:
        """The pool as stored: the best MAX, in the order of their turns."""
        left = {item for item in self.pooled[user] if (user, item) not in self.bought}
        kept = sorted(left, key=lambda i: (-self.score[user, i], self.counter[user, i], i))
        return sorted(
            kept[: self.MAX], key=lambda i: (self.counter[user, i], -self.score[user, i], i)
        )

    def likes(self, user: str) -> str | None:
        """The category with the highest sum of positive scores, and 1 for each purchase."""
        sums = defaultdict(int)
        for item in self.items:
            sums[self.items[item]] += max(0, self.score[user, item]) + ((user, item) in self.bought)
        sums.pop("", None)
        return min((c for c in sums if sums[c]), key=lambda c: (-sums[c], c), default=None)

    @rule(rows=st.lists(ROWS, min_size=1, max_size=8))
    def post(self, rows: list) -> None:
        new = 0
        bought = 0
        for user, item, kind, second, category in rows:
            named = {self.items.get(item, ""), category} - {""}
            self.items[item] = min(named, default="")
            if (user, item, kind, second) in self.seen:
                continue
            self.seen.add((user, item, kind, second))
            new += 1
            bought += kind == "purchase"
            self.touches[item] += 1
            self.sales[item] += kind == "purchase"
            self.score[user, item] += EVENT_WEIGHTS.get(kind, 0)
            if kind == "purchase":
                self.bought.add((user, item))
            else:
                self.pooled[user].add(item)
        counts = self.queue.post(frame(rows))
        assert counts.new == new
        assert counts.copies == len(rows) - new
        assert counts.purchases == bought

    @rule(user=st.sampled_from(["ann", "bob", "cat"]), n=st.integers(1, 7))
    def recommend(self, user: str, n: int) -> None:
        n = min(n, self.MAX)
        popular = sorted(self.items, key=lambda i: (-self.sales[i], -self.touches[i], i))
        liked = self.likes(user)
        favourites = [item for item in popular if liked and self.items[item] == liked]
        chain = favourites + [item for item in popular if item not in favourites]
        unseen = [
            item
            for item in chain
            if (user, item) not in self.bought and item not in self.pooled[user]
        ]
        missing = max(self.MIN, n) - len(self.best(user))
        new = unseen[: max(0, missing)]
        self.pooled[user] |= set(new)
        want = self.best(user)[:n]
        got = self.queue.recommend([user], n, at=T0)
        assert got["item_id"].tolist() == want
        assert got["rank"].tolist() == list(range(1, len(want) + 1))
        # Never empty while anything is left.
        assert want or all((user, item) in self.bought for item in self.items)
        for item in want:
            self.counter[user, item] += 1
        assert got["counter"].tolist() == [self.counter[user, i] for i in want]
        assert got["score"].tolist() == [self.score[user, i] for i in want]
        log = self.queue.read("SELECT user_id, item_id, source FROM log ORDER BY n")[self.log :]
        assert len(log) == len(new) + len(want)
        assert not self.bought & set(zip(log["user_id"], log["item_id"]))
        fills = {i: "category" if liked and self.items[i] == liked else "popular" for i in new}
        assert dict(zip(log["item_id"][: len(new)], log["source"])) == fills
        self.log += len(log)

    @rule(max_pool=st.sampled_from([MAX, MAX, 3, 9]))
    def restart(self, max_pool: int) -> None:
        self.queue.close()
        self.MAX = max_pool
        self.queue = Queue(self.path, self.MIN, max_pool)

    @invariant()
    def what_is_stored_follows_the_rules(self) -> None:
        for user in ("ann", "bob"):
            assert self.queue.pool(user)["pool"] == [
                [i, self.counter[user, i], self.score[user, i]] for i in self.best(user)
            ]
            assert self.queue.purchases(user) == sorted(i for u, i in self.bought if u == user)
            assert not {entry[0] for entry in self.queue.pool(user)["pool"]} & set(
                self.queue.purchases(user)
            )


@pytest.mark.spec("S4-22", "S4-23", "S4-24", "S4-25", "S4-26", "S4-27")
def test_any_sequence_with_restarts_follows_the_rules() -> None:
    run_state_machine_as_test(
        Shop, settings=settings(max_examples=20, stateful_step_count=20, deadline=None)
    )


@pytest.mark.spec("S4-30")
@given(
    rows=st.lists(ROWS, min_size=5, max_size=40),
    cuts=st.lists(st.integers(0, 40), min_size=2, max_size=5),
    copies=st.lists(st.integers(0, 39), max_size=20),
    seed=st.integers(0, 99),
)
def test_no_order_of_arrival_and_no_copy_changes_the_result(
    rows: list, cuts: list, copies: list, seed: int
) -> None:
    again = rows + [rows[i] for i in copies if i < len(rows)]
    random.Random(seed).shuffle(again)
    edges = [0, *sorted(cuts), len(again)]
    with (
        tempfile.TemporaryDirectory() as folder,
        Queue(f"{folder}/a.db", 1, 3) as one,
        Queue(f"{folder}/b.db", 1, 3) as other,
    ):
        one.post(frame(rows))
        for start, end in zip(edges, edges[1:]):
            other.post(frame(again[start:end]))
        assert content(one) == content(other)
        assert other.check() == []
        assert one.watermark == other.watermark


@pytest.mark.spec("S4-30")
@pytest.mark.parametrize(
    "order",
    list(permutations([("view", "tea"), ("view", ""), ("cart", "coffee"), ("cart", "tea")])),
)
def test_a_product_named_with_several_categories_has_the_first_in_the_alphabet(
    queue: Queue, order: tuple
) -> None:
    for kind, category in order:  # copies with another category among them
        queue.post(frame([("ann", "soap", kind, 1, category)]))
    assert queue.read("SELECT * FROM items").to_numpy(object).tolist() == [["soap", "coffee", 0, 2]]


@pytest.mark.spec("S4-30")
def test_what_was_evicted_comes_back_with_its_score_when_there_is_room(path: Path) -> None:
    with Queue(path, 1, 2) as queue:
        queue.post(
            frame([("ann", "a", "cart", 1), ("ann", "b", "cart", 2), ("ann", "c", "view", 3)])
        )
        assert queue.pool("ann") == {"pool": [["a", 0, 3], ["b", 0, 3]]}
        queue.post(frame([("ann", "c", "cart", 4)]))
        assert queue.pool("ann") == {"pool": [["c", 0, 4], ["a", 0, 3]]}
        assert shown(queue, "ann", 1) == ["c"]
        assert queue.pool("ann") == {"pool": [["a", 0, 3], ["c", 1, 4]]}
        queue.post(frame([("ann", "a", "purchase", 5)]))
        assert queue.pool("ann") == {"pool": [["b", 0, 3], ["c", 1, 4]]}


@pytest.mark.spec("S4-27")
def test_evicted_are_the_lowest_score_then_the_most_shown_then_the_highest_id(
    path: Path,
) -> None:
    with Queue(path, 1, 3) as queue:
        queue.post(frame([("ann", item, "view", 1) for item in "bcd"]))
        assert shown(queue, "ann", 1) == ["b"]
        queue.post(frame([("ann", "e", "view", 2)]))
        assert queue.pool("ann") == {
            "pool": [["c", 0, 1], ["d", 0, 1], ["e", 0, 1]]
        }  # b has been shown
        queue.post(frame([("ann", "a", "view", 3)]))
        assert queue.pool("ann") == {
            "pool": [["a", 0, 1], ["c", 0, 1], ["d", 0, 1]]
        }  # e is the highest
        queue.post(frame([("ann", "b", "view", 4), ("ann", "a", "remove_from_cart", 5)]))
        assert queue.pool("ann") == {"pool": [["c", 0, 1], ["d", 0, 1], ["b", 1, 2]]}
        assert queue.check() == []


# the same events twice


@pytest.mark.spec("S4-28")
def test_the_same_events_twice_are_the_same_events_once(queue: Queue) -> None:
    events = shop_events(600)
    assert queue.post(events, learnt=1)[:3] == (600, 0, 0)
    before = content(queue)
    assert queue.post(events)[:3] == (0, 600, 0)
    assert queue.post(pd.concat([events, events[:7]]))[:3] == (0, 607, 0)
    assert content(queue) == before
    assert queue.post(events[:0]) == Counts(0, 0, 0, 0)


@pytest.mark.spec("S4-10")
def test_late_events_are_counted_and_the_watermark_never_goes_back(queue: Queue) -> None:
    assert queue.watermark is None
    events = shop_events(10)
    queue.post(events[5:])
    last = (events["ts"].iloc[-1], int(events["event_id"].iloc[-1]))
    assert queue.watermark == last
    assert queue.post(events) == Counts(5, 5, 5, (events["event_type"][:5] == "purchase").sum())
    assert queue.watermark == last
    same_time = (
        events[-1:].assign(event_id=[last[1] + 1]),
        events[-1:].assign(event_id=[last[1] - 1]),
    )
    assert [queue.post(row).late for row in same_time] == [0, 1]
    assert queue.watermark == (
        last[0],
        last[1] + 1,
    )


@pytest.mark.spec("S4-10")
def test_fresh_events_are_those_no_model_has_learnt(queue: Queue) -> None:
    events = shop_events(40).sample(frac=1, random_state=3)
    queue.post(events[:10], learnt=1)
    queue.post(events[10:])
    want = events[10:].sort_values(["ts", "event_id"]).reset_index(drop=True)[COLUMNS]
    pd.testing.assert_frame_equal(queue.fresh(100), want, check_dtype=True)
    pd.testing.assert_frame_equal(queue.fresh(7), want[:7])
    queue.mark_learnt(want["event_id"][:29], 2)
    assert queue.fresh(100)["event_id"].tolist() == want["event_id"].tolist()[29:]
    assert queue.read("SELECT learnt, COUNT(*) AS n FROM events GROUP BY learnt ORDER BY learnt")[
        "n"
    ].tolist() == [1, 10, 29]
    queue.mark_learnt(want["event_id"], 3)
    assert len(queue.fresh(9)) == 0
    assert queue.fresh(9).dtypes["ts"] == "datetime64[us]"


# rotation and fallback


@pytest.mark.spec("S4-26")
def test_rotation_shows_the_least_shown_then_the_best_and_begins_again(queue: Queue) -> None:
    queue.post(
        frame(
            [
                ("ann", item, kind, 1)
                for item, kind in zip(
                    "abcdef", ["view", "cart", "view", "remove_from_cart", "cart", "view"]
                )
            ]
        )
    )
    assert [shown(queue, "ann", 2) for _ in range(4)] == [
        ["b", "e"],
        ["a", "c"],
        ["f", "d"],
        ["b", "e"],
    ]
    assert queue.pool("ann")["pool"] == [
        ["a", 1, 1],
        ["c", 1, 1],
        ["f", 1, 1],
        ["d", 1, -1],
        ["b", 2, 3],
        ["e", 2, 3],
    ]


@pytest.mark.spec("S4-26")
def test_the_network_decides_between_equal_scores(queue: Queue, net: PurchaseNet) -> None:
    items = [f"i{i}" for i in range(20)]
    queue.post(frame([("u1", item, "view", 1) for item in items] + [("u1", "i19", "cart", 1)]))
    order = (
        pd.Series(net.pairs(["u1"] * 20, items), items)
        .drop("i19")
        .sort_values(ascending=False)
        .index.tolist()
    )
    assert order != sorted(order)
    assert shown(queue, "u1", 9, net) == ["i19", *order[:8]]


@pytest.mark.spec("S4-25")
def test_fallback_is_the_network_without_what_is_bought_or_pooled(
    queue: Queue, net: PurchaseNet
) -> None:
    queue.post(shop_events(1_500))
    best = (
        pd.Series(net.scores(["new"])[0], net.item_ids)
        .sort_values(ascending=False, kind="stable")
        .index.tolist()
    )
    queue.post(frame([("new", best[0], "purchase", 9), ("new", best[2], "view", 9)]))
    got = queue.recommend(["new"], 3, net, at=T0)
    assert got["item_id"].tolist() == [best[2], best[1], best[3]]
    assert got["source"].tolist() == [
        "events",
        "cf",
        "cf",
    ]
    log = queue.read("SELECT item_id, source, shown FROM log ORDER BY n")
    assert log[:5].to_numpy().tolist() == [[item, "cf", 0] for item in [best[1], *best[3:7]]]
    assert log["shown"][5:].tolist() == [1, 1, 1]
    assert len(queue.pool("new")["pool"]) == 6
    assert queue.check() == []


@pytest.mark.spec("S4-25")
def test_then_the_favourite_category_then_anything_popular(queue: Queue) -> None:
    queue.post(
        frame(
            [
                (f"x{k}", item, "purchase", k, item[0])
                for item, sold in (("a1", 1), ("a2", 2), ("b1", 9), ("b2", 4))
                for k in range(sold)
            ]
        )
    )
    queue.post(
        frame(
            [
                ("ann", "a3", "view", 1, "a"),
                ("bob", "c1", "view", 1, "c"),
                ("bob", "c1", "remove_from_cart", 2, "c"),
            ]
        )
    )
    queue.recommend(["ann", "bob", "cat"], 3, at=T0)
    fills = queue.read(
        "SELECT user_id, item_id, source FROM log WHERE shown = 0 ORDER BY n"
    ).groupby("user_id")
    assert fills["item_id"].agg(list).to_dict() == {
        "ann": ["a2", "a1", "b1", "b2", "c1"],
        "bob": ["b1", "b2", "a2", "a1", "a3"],
        "cat": ["b1", "b2", "a2", "a1", "c1", "a3"],
    }
    assert fills["source"].agg(list).to_dict() == {
        "ann": ["category"] * 2 + ["popular"] * 3,
        "bob": ["popular"] * 5,
        "cat": ["popular"] * 6,
    }


@pytest.mark.spec("S4-25")
@pytest.mark.parametrize(
    ("rows", "category"),
    [
        # 3 to 2: who dislikes one may like its kind.
        ([("b1", "cart")] + [("b2", "remove_from_cart")] * 5 + [("a1", "view")] * 2, "b"),
        # 1 to 1 + 1.
        ([("a1", "view"), ("b1", "view"), ("b2", "purchase")], "b"),
        # 1 to 1: the first in the alphabet.
        ([("a1", "view"), ("b1", "purchase")], "a"),
        # None that is known is liked.
        ([("a1", "remove_from_cart"), ("1", "cart")], None),
    ],
)
def test_the_favourite_category_has_the_highest_positive_scores_and_purchases(
    queue: Queue, rows: list, category: str | None
) -> None:
    queue.post(
        frame(
            [("bob", item, "purchase", 1, item[0]) for item in ("zz", "a9", "b9")]
            + [("eve", "zz", "purchase", 1, "z")]
        )
    )
    queue.post(
        frame(
            [
                ("ann", item, kind, k, item[0] if item != "1" else "")
                for k, (item, kind) in enumerate(rows)
            ]
        )
    )
    queue.recommend(["ann"], 1, at=T0)
    first = queue.read("SELECT item_id, source FROM log ORDER BY n LIMIT 1").to_numpy().tolist()
    assert first == [[f"{category}9", "category"] if category else ["zz", "popular"]]
    assert queue.check() == []


@pytest.mark.spec("S4-25")
def test_products_the_network_does_not_know_come_after_those_it_knows(
    queue: Queue, net: PurchaseNet
) -> None:
    queue.post(
        frame(
            [
                ("ann", "novelty", "view", 1, "c1"),
                ("ann", "i1", "purchase", 1, "c1"),
                ("bob", "other", "purchase", 1, "c2"),
                ("bob", "more", "cart", 1, "c1"),
            ]
        )
    )
    got = queue.recommend(["ann"], 100, net, at=T0)
    assert set(got["item_id"]) == {*net.item_ids, "novelty", "other", "more"} - {"i1"}
    assert got["source"].value_counts().to_dict() == {
        "cf": len(net.item_ids) - 1,
        "category": 1,
        "popular": 1,
        "events": 1,
    }


@pytest.mark.spec("S4-26", "S4-27")
def test_never_empty_while_a_product_is_left_and_n_is_clipped_or_refused(
    queue: Queue,
) -> None:
    assert queue.recommend(["ann"], 3, at=T0).empty
    assert queue.recommend([], 3, at=T0).empty
    queue.post(frame([("bob", item, "view", 1) for item in "abcd"]))
    assert [len(shown(queue, "ann", 3)) for _ in range(5)] == [3] * 5
    assert len(shown(queue, "ann", 9)) == 4
    queue.post(frame([("ann", item, "purchase", 1) for item in "abc"]))
    assert [shown(queue, "ann", 3) for _ in range(3)] == [["d"]] * 3
    queue.post(frame([("ann", "d", "purchase", 1)]))
    assert shown(queue, "ann", 3) == []
    with Queue(queue.path, 1, 2) as small:
        assert len(shown(small, "cat", 3)) == 2
        # n is at most max_pool
        assert len(small.pool("cat")["pool"]) == 2
    for n in (0, -1):
        with pytest.raises(LabError, match=f"n = {n}"):
            queue.recommend(["ann"], n, at=T0)
    for bounds in ((0, 5), (7, 6), (-1, -1)):
        with pytest.raises(LabError, match="min_pool"):
            Queue(queue.path, *bounds)


@pytest.mark.spec("S4-27")
def test_users_in_the_order_asked_each_once_with_three_products_each(
    queue: Queue, net: PurchaseNet
) -> None:
    queue.post(shop_events(500))
    asked = ["u9", "stranger", "u1", "u9", "u10"]
    got = queue.recommend(asked, net=net, at=T0)
    assert got["user_id"].tolist() == [
        user for user in ["u9", "stranger", "u1", "u10"] for _ in range(3)
    ]
    assert got["rank"].tolist() == [1, 2, 3] * 4
    assert list(got) == ["user_id", "rank", "item_id", "score", "counter", "source"]
    assert (got["counter"] == 1).all()


@pytest.mark.spec("S4-25")
def test_many_users_get_what_each_would_get_alone(
    tmp_path: Path, net: PurchaseNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys_utils.online.rotation.CELLS", 7 * 80)
    users = [f"u{i}" for i in range(60)]
    with Queue(tmp_path / "a.db") as together, Queue(tmp_path / "b.db") as alone:
        for queue in (together, alone):
            queue.post(shop_events(150))
        for model in (net, None):
            many = together.recommend(users, 4, model, at=T0)
            one = pd.concat(
                [alone.recommend([user], 4, model, at=T0) for user in users], ignore_index=True
            )
            pd.testing.assert_frame_equal(many, one)
        assert content(together) == content(alone)
        assert together.check() == []


def test_the_check_sees_every_kind_of_disagreement(queue: Queue) -> None:
    queue.post(shop_events(200))
    queue.recommend(["u1"], 3, at=T0)
    assert queue.check() == []
    for sql in (
        "UPDATE queue SET product_queue = replace(product_queue, ',0,', ',9,') "
        "WHERE user_id = 'u1'",
        "DELETE FROM queue WHERE user_id = 'u2'",
        "INSERT INTO queue VALUES ('ghost', '{\"pool\":[[\"a\",0,1]]}')",
        "DELETE FROM purchases WHERE user_id = (SELECT MIN(user_id) FROM purchases)",
        "UPDATE items SET bought = bought + 1",
        "UPDATE items SET item_id = 'x' WHERE item_id = 'i1'",
        "UPDATE state SET value = '[0,1]' WHERE key = 'watermark'",
        "UPDATE sums SET score = score + 1 WHERE user_id = 'u3'",
        "UPDATE sums SET source = 'popular' WHERE user_id = 'u3'",
        "DELETE FROM sums WHERE user_id = 'u3'",
        "DELETE FROM log WHERE n = (SELECT MAX(n) FROM log)",
        "DELETE FROM events WHERE event_id = (SELECT MIN(event_id) FROM events)",
    ):
        with queue.connection() as con:
            con.execute("BEGIN")
            con.execute(sql)
            assert queue.check() != [], sql
            con.execute("ROLLBACK")
    assert queue.check() == []


# many hands

POSTER = """
import sys
import pandas as pd
from recsys_utils.online.queue import Queue
path, batches = sys.argv[1], pd.read_parquet(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
with Queue(path) as queue:
    for _, batch in batches.groupby("batch"):
        queue.post(batch)
        print(batch["batch"].iloc[0], flush=True)
        queue.recommend([batch["user_id"].iloc[0]], 3, at=pd.Timestamp("2024-03-01"))
"""


def run(script: str, *arguments: object) -> subprocess.Popen:
    """A process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def started(process: subprocess.Popen) -> subprocess.Popen:
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    return process


def go(process: subprocess.Popen) -> None:
    process.stdin.write("go\n")
    process.stdin.flush()


@pytest.mark.spec("S4-29")
def test_eight_processes_that_also_race_to_create_the_file_add_up_exactly(path: Path) -> None:
    for worker in range(
        8
    ):  # each posts six batches of its own and, each time, one event that all of them post
        rows = [
            [("ann", "a", "view", -1)]
            + [("ann", item, kind, 10 * worker + k) for item in "ab" for kind in EVENT_WEIGHTS]
            for k in range(6)
        ]
        pd.concat([frame(batch).assign(batch=k) for k, batch in enumerate(rows)]).to_parquet(
            path.with_name(f"{worker}.parquet")
        )
    processes = [run(POSTER, path, path.with_name(f"{worker}.parquet")) for worker in range(8)]
    for process in [started(process) for process in processes]:
        go(process)
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 8, "\n".join(errors)
    with Queue(path) as queue:
        assert sorted(queue.pool("ann")["pool"]) == [["a", 48, 8 * 6 * 3 + 1], ["b", 48, 8 * 6 * 3]]
        assert queue.check() == []
        assert queue.read(
            "SELECT (SELECT COUNT(*) FROM events) AS e, SUM(shown) AS s FROM log"
        ).to_numpy().tolist() == [[8 * 6 * 6 + 1, 96]]


@pytest.mark.spec("S4-29")
def test_eight_threads_of_one_queue_add_up_exactly_and_readers_do_not_wait(
    queue: Queue,
) -> None:
    batches = [
        frame([("ann", "soap", kind, 10 * worker + k) for kind in EVENT_WEIGHTS])
        for worker in range(8)
        for k in range(10)
    ]
    with ThreadPoolExecutor(8) as threads:
        counts = list(threads.map(queue.post, batches + batches))
        assert (sum(c.new for c in counts), sum(c.copies for c in counts)) == (240, 240)
        with queue.transaction():
            queue.post(frame([("ann", "soap", "view", 99)]))
            assert threads.submit(queue.pool, "ann").result(timeout=5) == {
                "pool": [["soap", 0, 240]]
            }
        assert threads.submit(queue.pool, "ann").result(timeout=5) == {"pool": [["soap", 0, 241]]}
    assert queue.check() == []


@pytest.mark.spec("S4-29")
def test_the_connection_of_a_thread_ends_with_it(queue: Queue) -> None:
    for _ in range(20):
        thread = threading.Thread(target=queue.pool, args=("ann",))
        thread.start()
        thread.join()
    gc.collect()
    assert len(queue.connections) == 1


@pytest.mark.spec("S4-19")
def test_an_open_transaction_is_joined_and_undone_as_a_whole(queue: Queue) -> None:
    queue.post(shop_events(50))
    before = content(queue), queue.read("SELECT * FROM log").to_numpy().tolist()
    with pytest.raises(KeyError), queue.transaction():
        queue.post(shop_events(90), learnt=4)
        queue.recommend(["u1"], 3, at=T0)
        queue.set("version", 4)
        queue.mark_learnt(queue.fresh(9)["event_id"], 4)
        assert queue.get("version") == "4"
        assert content(queue) != before[0]
        raise KeyError
    assert (
        content(queue),
        queue.read("SELECT * FROM log").to_numpy().tolist(),
    ) == before
    assert queue.get("version") is None
    with queue.transaction():
        queue.post(shop_events(90), learnt=4)
        queue.set("version", 4)
    assert queue.get("version") == "4"
    assert queue.read("SELECT COUNT(*) AS n FROM events")["n"][0] == 90
    assert queue.check() == []


@pytest.mark.spec("S4-28")
def test_killed_at_ten_random_moments_every_step_is_whole_and_what_was_acknowledged_is_there(
    path: Path,
) -> None:
    events = shop_events(12_000, users=20)
    rng = random.Random(4)
    done = 0
    cut_short = 0
    events["batch"] = np.arange(len(events)) // 60
    for _ in range(10):
        events[60 * done :].to_parquet(path.with_name("batches.parquet"))
        process = started(run(POSTER, path, path.with_name("batches.parquet")))
        go(process)
        time.sleep(rng.random() * 0.4)
        process.kill()
        acknowledged = [int(line) + 1 for line in process.stdout if line.endswith("\n")]
        process.wait()
        with Queue(path) as queue:
            assert queue.check() == []
            ids = queue.read("SELECT event_id FROM events")["event_id"]
            shows = queue.read("SELECT TOTAL(shown) AS n FROM log")["n"][0]
        before = done
        done = len(ids) // 60
        assert set(ids) == set(events["event_id"][: 60 * done])
        assert max(acknowledged, default=before) <= done <= max(acknowledged, default=before) + 1
        assert shows % 3 == 0
        cut_short += before < done < 200
    assert cut_short >= 5  # or nothing was tested


# what can be wrong with the file, said in one sentence


def refused(action: object, *words: str) -> None:
    with pytest.raises(LabError) as error:
        action()
    text = str(error.value)
    assert all(word in text for word in words), text
    assert text.count("\n") == 0, text
    assert len(text) < 400, text


def test_errors_name_the_file_and_the_cure(path: Path, tmp_path: Path) -> None:
    Queue(path).close()
    with closing(sqlite3.connect(path)) as con:
        con.execute("PRAGMA user_version = 7")
    refused(
        lambda: Queue(path),
        str(path),
        "schema 7",
        f"this version reads {schema.SCHEMA}",
        "train again",
    )
    refused(lambda: Queue(path, read_only=True), "schema 7")
    other = tmp_path / "cookies.sqlite"
    with closing(sqlite3.connect(other)) as con:
        con.execute("CREATE TABLE cookies (a)")
    before = other.read_bytes()
    refused(lambda: Queue(other), str(other), "another program's database")
    assert other.read_bytes() == before
    text = tmp_path / "notes.db"
    text.write_text("dear diary, " * 99)
    refused(lambda: Queue(text), str(text), "no SQLite database")
    assert text.read_text() == "dear diary, " * 99
    refused(lambda: Queue(tmp_path), str(tmp_path), "cannot be opened")
    refused(lambda: Queue(text / "below" / "x.db"), str(text / "below"), "folder")
    refused(lambda: Queue(tmp_path / "none.db", read_only=True), "none.db", "missing", "train")
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "empty.db").touch()
    refused(lambda: Queue(tmp_path / "empty.db", read_only=True), "empty")
    Queue(tmp_path / "empty.db").close()
    assert Queue(tmp_path / "empty.db", read_only=True).check() == []


def test_a_damaged_file_is_refused_and_not_touched(queue: Queue, path: Path) -> None:
    queue.post(shop_events(3_000))
    queue.close()
    whole = bytearray(path.read_bytes())
    whole[4_096 * 3 : -4_096] = random.Random(1).randbytes(len(whole) - 4_096 * 4)
    path.write_bytes(whole)
    refused(lambda: Queue(path).post(shop_events(3_100)), str(path), "damaged", "restore")
    assert path.read_bytes() == bytes(whole)


@pytest.mark.spec("S4-19")
def test_a_locked_file_is_waited_for_and_then_named(queue: Queue, path: Path) -> None:
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as other,
        Queue(path, timeout=0.2) as hasty,
    ):
        other.execute("BEGIN IMMEDIATE")
        start = time.perf_counter()
        refused(lambda: hasty.post(shop_events(5)), str(path), "locked", "wait")
        assert 0.15 < time.perf_counter() - start < 5
        assert hasty.pool("ann") == {"pool": []}
        with ThreadPoolExecutor(1) as thread:
            posted = thread.submit(queue.post, shop_events(5))
            time.sleep(0.2)
            assert not posted.done()
            other.execute("ROLLBACK")
            assert posted.result(timeout=20).new == 5


def test_a_reader_sees_everything_and_changes_nothing(queue: Queue, path: Path) -> None:
    queue.post(shop_events(300))
    with Queue(path, max_pool=7, read_only=True) as reader:
        assert content(reader) == content(queue)
        assert reader.check() == []
        assert reader.max_pool == 100
        assert reader.size() == queue.size() > 50_000
        for action in (
            lambda: reader.post(shop_events(301)),
            lambda: reader.set("a", 1),
            lambda: reader.recommend(["u1"], 1, at=T0),
        ):
            refused(action, str(path), "only be read", "allow")
        queue.post(shop_events(400))
        assert content(reader) == content(queue)
    queue.close()
    with Queue(path, read_only=True) as alone:
        assert len(alone.fresh(1_000)) == 400


FULL = """
import resource, sys
import pandas as pd
from recsys_utils import LabError
from recsys_utils.online.queue import Queue
first, batch = pd.read_parquet(sys.argv[2]), pd.read_parquet(sys.argv[3])
with Queue(sys.argv[1]) as queue:
    queue.post(first)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, resource.RLIM_INFINITY))
    try:
        queue.post(batch)
    except LabError as error:
        print(error)
    print(queue.read("SELECT COUNT(*) AS n FROM events")["n"][0], queue.check())
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(queue.post(batch)[:2], queue.check())
"""


def test_a_full_disk_undoes_the_batch_and_says_so_and_space_cures_it(path: Path) -> None:
    files = path.with_name("first.parquet"), path.with_name("batch.parquet")
    for file, n in zip(files, (500, 20_000)):
        shop_events(n, users=5_000, items=3_000).to_parquet(file)
    process = run(FULL, path, *files)
    out, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    sentence, undone, cured = out.splitlines()
    assert str(path) in sentence
    assert "disk" in sentence
    assert "free some space" in sentence
    assert "undone" in sentence
    assert undone == "500 []"
    assert cured == "(19500, 500) []"


def test_rows_that_are_no_events_are_refused_before_anything_is_written(queue: Queue) -> None:
    good = shop_events(5)
    for bad, words in (
        (good.drop(columns="ts"), ["ts", "column"]),
        (good.assign(event_type="stare"), ["'stare'", *EVENT_TYPES]),
        (good.assign(user_id=["a", None, "b", "c", "d"]), ["user_id", "empty"]),
        (good.assign(ts=pd.NaT), ["ts", "empty"]),
        (good.assign(item_id="\ud800"), ["half a character", "UTF-8"]),
    ):
        refused(lambda bad=bad: queue.post(bad), *words)
    refused(lambda: queue.pool("\ud800"), "half a character")
    assert queue.read("SELECT COUNT(*) AS n FROM events")["n"][0] == 0
    assert queue.check() == []


def test_another_max_pool_orders_all_queues_anew_and_back_again(queue: Queue, path: Path) -> None:
    queue.post(shop_events(500))
    before = content(queue)
    with Queue(path, 2, 2) as small:
        assert all(len(small.pool(f"u{i}")["pool"]) <= 2 for i in range(60))
        assert small.check() == []
        assert content(small) != before
    with Queue(path) as kept:
        assert kept.max_pool == 2
    with Queue(path, max_pool=100) as large:
        assert content(large) == before


def test_other_weights_order_all_queues_anew_and_back_again(queue: Queue, path: Path) -> None:
    queue.post(shop_events(500))
    queue.recommend(["u1", "u2"], 3, at=T0)
    before = content(queue)
    with Queue(path, weights={"view": 5, "cart": 0}) as other:
        assert other.weights == {"view": 5, "cart": 0, "remove_from_cart": -1}
        assert other.check() == []
        assert content(other)["queue"] != before["queue"]
        other.post(frame([("ann", "tea", "view", 1), ("ann", "milk", "cart", 2)]))
        assert other.pool("ann") == {"pool": [["tea", 0, 5], ["milk", 0, 0]]}
    with Queue(path) as kept, Queue(path, read_only=True) as reader:
        assert kept.weights == reader.weights == other.weights
        assert kept.check() == reader.check() == []
    with Queue(path, weights=EVENT_WEIGHTS) as again:
        assert again.check() == []
        assert again.pool("ann") == {"pool": [["milk", 0, 3], ["tea", 0, 1]]}
    for odd, words in (
        ({"stare": 1}, "event weight 'stare' is unknown: weigh view"),
        ({"view": 1.5}, "event weight view=1.5: it takes a whole number"),
        ({"view": True}, "event weight view=True"),
    ):
        with pytest.raises(LabError, match=words):
            Queue(path, weights=odd)


def test_an_event_costs_no_more_for_a_long_history(queue: Queue) -> None:
    """Of a shopper with 50,000 events; milliseconds where it was a quarter of a second."""
    queue.post(shop_events(50_000, users=1, items=50_000))
    queue.post(shop_events(100, users=2, items=50_000).query("user_id == 'u1'"))
    seconds = {"u0": [], "u1": []}
    for n in range(20):
        for user, took in seconds.items():
            start = time.perf_counter()
            queue.post(frame([(user, f"i{n}", "view", 100_000 + n)]))
            queue.recommend([user], 3, at=T0)
            took.append(time.perf_counter() - start)
    assert np.median(seconds["u0"]) < 4 * np.median(seconds["u1"])
    assert queue.check() == []


def test_no_step_walks_through_all_events(queue: Queue) -> None:
    """Whatever its statistics, SQLite must begin with the users at hand.

    A batch on a large shop is then as quick as on a small one.
    """
    queue.post(shop_events(3_000))
    with queue.transaction() as con:
        con.execute("ANALYZE")
    queue.close()
    plans = {
        sql: " | ".join(queue.read(f"EXPLAIN QUERY PLAN {sql}", arguments)["detail"])
        for sql, arguments in (
            (schema.REBUILD, (100,)),
            (schema.KNOWN, ()),
            (schema.POOL, (100,)),
            (schema.summed(EVENT_WEIGHTS), ()),
            ("SELECT * FROM favourite", ()),
            ("SELECT * FROM events WHERE learnt IS NULL ORDER BY event_time, event_id LIMIT 9", ()),
        )
    }
    for sql, plan in plans.items():
        assert "SCAN main.events" not in plan, f"{sql}: {plan}"
        assert "SCAN events" not in plan.replace("SCAN events USING INDEX events_fresh", ""), (
            f"{sql}: {plan}"
        )
        assert "SCAN main.log" not in plan, f"{sql}: {plan}"
        assert "SCAN main.purchases" not in plan, f"{sql}: {plan}"
        assert "SCAN sums" not in plan, f"{sql}: {plan}"
        assert "SCAN main.sums" not in plan, f"{sql}: {plan}"
        assert "SCAN best" not in plan, f"{sql}: {plan}"
    start = time.perf_counter()
    queue.post(shop_events(20_000, users=20_000, items=5_000))
    assert time.perf_counter() - start < 10  # 0.5 s; a join without an index takes 20


def test_closed_products_are_not_shown_and_keep_their_place(queue: Queue, net: PurchaseNet) -> None:
    queue.post(shop_events(1_500))
    user = "u3"
    pool = [item for item, _, _ in queue.pool(user)["pool"]]
    best = queue.recommend([user], 1, net, at=T0)["item_id"].tolist()
    closed = [*best, *pool[:-2]]
    for _ in range(5):
        found = queue.recommend([user], 4, net, at=T0, closed=closed)["item_id"]
        assert len(found) == 4
        assert not set(found) & set(closed)
        assert not set(found) & set(queue.purchases(user))
    assert set(pool) <= {item for item, _, _ in queue.pool(user)["pool"]}
    assert queue.check() == []


def test_the_cart_is_what_was_put_in_and_neither_taken_out_nor_bought(queue: Queue) -> None:
    steps = [("tea", "cart"), ("milk", "cart"), ("jam", "cart"), ("oats", "view")]
    steps += [("milk", "remove_from_cart"), ("jam", "purchase")]
    queue.post(frame([("ann", item, kind, n, "") for n, (item, kind) in enumerate(steps)]))
    assert queue.cart("ann") == ["tea"]
    assert queue.cart("bob") == []
