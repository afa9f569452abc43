"""Updates: event files become a model and queues that agree, whatever happens in between."""

import gzip
import multiprocessing
import os
import resource
import shutil
import signal
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shops import synthetic_tables

from recsys_utils import LabError
from recsys_utils.data.registry import EVENT_WEIGHTS
from recsys_utils.models.purchase_net import PurchaseNet
from recsys_utils.online import update
from recsys_utils.online.__main__ import main
from recsys_utils.online.events import LAYOUT, EventFile, write_csv
from recsys_utils.online.queue import Queue
from recsys_utils.online.update import DATABASE, Busy, apply_folder, load_net, recommend, train_cold

NOW = pd.Timestamp("2026-01-01")
SMALL = {"dim": 64, "hidden": 8, "epochs": 2, "update_epochs": 1, "memory": 500}
TABLES = {
    "events": "event_id",
    "purchases": "user_id, item_id",
    "queue": "user_id",
    "items": "item_id",
    "log": "n",
    "state": "key",
}
HEAD = "event_time,event_type,product_id,user_id"


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Eight weeks of a synthetic shop, a file per week."""
    made = synthetic_tables(6_000, seed=3)
    week = made["events"]["ts"].dt.to_period("W")
    folder = tmp_path_factory.mktemp("weeks")
    return [
        folder_of_one(rows, made["items"], folder / str(n))
        for n, (_, rows) in enumerate(made["events"].groupby(week))
    ]


def folder_of_one(rows: pd.DataFrame, items: pd.DataFrame, folder: Path) -> Path:
    """The days of a week as one file."""
    parts = [path.read_text().splitlines(keepends=True) for path in write_csv(rows, items, folder)]
    (folder.parent / f"week{folder.name}.csv").write_text(
        "".join([parts[0][0], *(line for part in parts for line in part[1:])])
    )
    return folder.parent / f"week{folder.name}.csv"


@pytest.fixture(scope="module")
def trained(days: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state trained on the first four weeks, in which something was shown."""
    base = tmp_path_factory.mktemp("trained")
    train_cold(folder(base / "history", *days[:4]), base / "state", now=NOW, **SMALL)
    recommend(base / "state", at=NOW, limit=20)
    return base / "state"


@pytest.fixture
def state(trained: Path, tmp_path: Path) -> Path:
    return copy(trained, tmp_path / "state")


def copy(state: Path, to: Path) -> Path:
    shutil.rmtree(to, ignore_errors=True)
    return shutil.copytree(state, to)


def folder(path: Path, *files: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copy2(file, path)
    return path


def write(path: Path, *lines: str, end: str = "\n") -> Path:
    """A file of lines beneath the header, finished an hour before NOW."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([HEAD, *lines]) + end)
    os.utime(path, (NOW.timestamp() - 3600,) * 2)
    return path


def dump(state: Path, *without: str, marks: bool = False) -> dict[str, list]:
    """Every row of every table, without the files' marks unless they are asked for."""
    with Queue(state / DATABASE) as queue:
        tables = {
            name: queue.read(f"SELECT * FROM {name} ORDER BY {order}")
            for name, order in TABLES.items()
            if name not in without
        }
    if "state" in tables and not marks:
        tables["state"] = tables["state"][~tables["state"]["key"].str.startswith("file:")]
    return {
        name: table.astype(object).where(table.notna(), None).to_numpy().tolist()
        for name, table in tables.items()
    }


def known(state: Path, key: str) -> str | None:
    with Queue(state / DATABASE) as queue:
        return queue.get(key)


def healthy(state: Path) -> PurchaseNet:
    """The model that the database names, after checking that queues and logs agree."""
    with Queue(state / DATABASE) as queue:
        assert queue.check() == []
        return load_net(queue, state)


def files(state: Path) -> set[str]:
    return {
        str(p.relative_to(state))
        for p in state.rglob("*")
        if p.is_file() and not p.name.endswith(("-wal", "-shm"))
    }


# ---- the cold model


@pytest.mark.spec("S4-01")
def test_history_up_to_a_time_becomes_a_model_and_queues(days: list[Path], tmp_path: Path) -> None:
    until = pd.to_datetime(pd.read_csv(days[2])["event_time"]).dt.tz_localize(None)[
        7
    ]  # an event's own time: it is history
    result = train_cold(
        folder(tmp_path / "h", *days), tmp_path / "s", now=NOW, until=until, **SMALL
    )
    rows = pd.concat([pd.read_csv(p) for p in days])
    rows = rows[pd.to_datetime(rows["event_time"]).dt.tz_localize(None) <= until]
    assert (result.counts.new, result.counts.purchases) == (
        len(rows),
        (rows["event_type"] == "purchase").sum(),
    )
    assert result.version == 1
    net = healthy(tmp_path / "s")
    assert set(net.user_ids) == set(rows["user_id"])
    assert set(net.item_ids) == set(rows["product_id"])
    with Queue(tmp_path / "s" / DATABASE) as queue:
        assert queue.watermark[0] <= until
        assert not len(queue.fresh(9))


@pytest.mark.spec("S4-01")
def test_the_same_history_and_seed_give_the_same_bytes(days: list[Path], tmp_path: Path) -> None:
    history = folder(tmp_path / "h", *days[:2])
    for name, seed, batch in (("a", 1, 50_000), ("b", 1, 7), ("c", 2, 50_000)):
        train_cold(history, tmp_path / name, now=NOW, seed=seed, batch=batch, **SMALL)
    a, b, c = (known(tmp_path / name, "model") for name in "abc")
    assert a == b != c
    assert dump(tmp_path / "a") == dump(tmp_path / "b")


@pytest.mark.spec("S4-01")
@pytest.mark.parametrize("until", ["2001-01-01", None])
def test_a_history_without_events_is_refused_and_leaves_no_model(
    days: list[Path], tmp_path: Path, until: str | None
) -> None:
    history = folder(tmp_path / "h", days[0]) if until else write(tmp_path / "h" / "a.csv").parent
    with pytest.raises(
        LabError, match=r"h has no event up to .* give a later --until or another folder"
    ):
        train_cold(history, tmp_path / "s", now=NOW, until=until and pd.Timestamp(until), **SMALL)
    with pytest.raises(LabError, match=r"has no model: run python -m recsys_utils.online train"):
        apply_folder(folder(tmp_path / "e", days[0]), tmp_path / "s", now=NOW)


def test_training_again_learns_all_up_to_its_time_and_leaves_the_rest_to_the_next_update(
    days: list[Path], state: Path, tmp_path: Path
) -> None:
    apply_folder(folder(tmp_path / "e", *days[4:]), state, now=NOW)
    before = dump(state, "events", "state")
    until = pd.Timestamp("2025-06-05")
    assert (
        train_cold(folder(tmp_path / "h", days[0]), state, now=NOW, until=until, **SMALL).counts.new
        == 0
    )
    assert dump(state, "events", "state") == before
    assert known(state, "version") == str(2 + len(days[4:]))
    with Queue(state / DATABASE) as queue:
        late = queue.fresh(10_000)
        assert (
            len(late)
            == queue.read(
                "SELECT COUNT(*) AS n FROM events WHERE event_time > ?", (until.value // 1000,)
            )["n"][0]
            > 100
        )
    apply_folder(tmp_path / "e", state, now=NOW)
    with Queue(state / DATABASE) as queue:
        assert not len(queue.fresh(9))
        assert int(queue.get("version")) == 3 + len(days[4:])
    assert set(late["item_id"]) <= set(healthy(state).item_ids)


# ---- deltas


@pytest.mark.spec("S4-10", "S4-11")
def test_a_delta_changes_the_weights_once(days: list[Path], state: Path, tmp_path: Path) -> None:
    events = folder(tmp_path / "e", *days[4:6])
    cold = known(state, "model")
    result = apply_folder(events, state, now=NOW)
    assert result.counts.new == sum(len(pd.read_csv(p)) for p in days[4:6])
    assert (
        result.files,
        result.version,
        result.counts.copies,
    ) == (2, 3, 0)
    assert (sha := known(state, "model")) != cold
    assert [p.name for p in state.glob("model-*")] == [f"model-{sha[:16]}.npz"]
    healthy(state)
    before = dump(state, marks=True)
    places = {p: p.stat().st_mtime_ns for p in state.iterdir() if "recommendation" not in p.name}
    again = apply_folder(events, state, now=NOW)
    assert (again.counts, again.skipped, again.files, again.version) == ((0, 0, 0, 0, 0), 2, 0, 3)
    assert dump(state, marks=True) == before
    assert {p: p.stat().st_mtime_ns for p in places} == places


@pytest.mark.spec("S4-28")
def test_the_same_file_under_another_name_or_packed_counts_once(
    days: list[Path], state: Path, tmp_path: Path
) -> None:
    events = folder(tmp_path / "e", days[4])
    n = apply_folder(events, state, now=NOW).counts.new
    before = dump(state)
    shutil.copy(days[4], events / "again.csv")
    (events / "packed.csv.gz").write_bytes(gzip.compress(days[4].read_bytes()))
    result = apply_folder(events, state, now=NOW)
    assert result.counts == (0, 2 * n, 0, 0, 0)
    assert result.files == 2
    assert result.skipped == 1
    assert dump(state) == before


@pytest.mark.spec("S4-28")
def test_a_reused_event_id_is_refused_told_and_never_learnt(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "2025-08-01 10:00:00 UTC,view,p1,u1,"
    other = "2025-08-01 11:00:00 UTC,cart,p2,u1,"
    file = write(tmp_path / "e" / "a.csv", f"{line}e1", f"{other}e1", f"{other}e2")
    file.write_text(file.read_text().replace(HEAD, f"{HEAD},event_id"))
    os.utime(file, (NOW.timestamp() - 3600,) * 2)
    assert main(["update", "--events", str(file.parent), "--state", str(state)]) == 0
    assert "refused 1: event_id was given to another event before" in capsys.readouterr().out
    with Queue(state / DATABASE) as queue:
        assert dict(
            queue.read(
                "SELECT item_id, COUNT(*) FROM events WHERE user_id = 'u1' GROUP BY 1"
            ).to_numpy()
        ) == {"p1": 1, "p2": 1}
    healthy(state)


@pytest.mark.spec("S4-10")
def test_a_file_that_has_grown_gives_only_its_new_events(
    days: list[Path], state: Path, tmp_path: Path
) -> None:
    lines = days[4].read_text().splitlines(keepends=True)
    (path := folder(tmp_path / "e") / "log.csv").write_text("".join(lines[:50]))
    assert apply_folder(path.parent, state, now=NOW).counts[:2] == (49, 0)
    path.write_text("".join(lines[:80]))
    assert apply_folder(path.parent, state, now=NOW).counts[:2] == (30, 49)
    assert known(state, "version") == "3"


@pytest.mark.spec("S4-30")
@pytest.mark.parametrize("batch", [1_000, 40])
def test_late_events_are_learnt_and_the_queues_do_not_depend_on_the_order(
    days: list[Path], state: Path, tmp_path: Path, batch: int
) -> None:
    other = copy(state, tmp_path / "other")
    for place, order in ((state, (4, 5, 6)), (other, (6, 4, 5))):
        reports = [
            apply_folder(
                folder(tmp_path / place.name / f"e{n}", days[n]), place, now=NOW, batch=batch
            )
            for n in order
        ]
    assert [r.counts.late == r.counts.new > 0 for r in reports] == [False, True, True]
    with Queue(state / DATABASE) as a, Queue(other / DATABASE) as b:
        assert a.watermark == b.watermark
        assert not len(a.fresh(1))
        assert not len(b.fresh(1))
    for table in ("purchases", "queue", "items"):
        assert dump(state)[table] == dump(other)[table]
    assert [row[:5] for row in dump(state)["events"]] == [row[:5] for row in dump(other)["events"]]
    assert set(healthy(state).user_ids) == set(healthy(other).user_ids)


def test_events_before_the_history_are_taken(state: Path, tmp_path: Path) -> None:
    result = apply_folder(
        write(tmp_path / "e" / "a.csv", "1999-12-31 23:59:59 UTC,cart,old,U000001").parent,
        state,
        now=NOW,
    )
    with Queue(state / DATABASE) as queue:
        assert result.counts == (1, 0, 1, 0, 0)
        assert ["old", 0, 3] in queue.pool("U000001")["pool"]


@pytest.mark.spec("S4-13")
def test_new_users_and_products_enter_the_model(state: Path, tmp_path: Path) -> None:
    old = healthy(state)
    lines = [
        f"2025-07-01 10:00:{n:02d} UTC,{kind},new{n % 3},fresh{n % 4}"
        for n, kind in enumerate(["view", "cart", "purchase", "view"] * 3)
    ]
    apply_folder(write(tmp_path / "e" / "a.csv", *lines).parent, state, now=NOW)
    net = healthy(state)
    assert net.user_ids.difference(old.user_ids).tolist() == [f"fresh{n}" for n in range(4)]
    assert net.item_ids.difference(old.item_ids).tolist() == [f"new{n}" for n in range(3)]
    assert old.user_ids.isin(net.user_ids).all()
    assert np.isfinite(net.scores(["fresh0", "nobody"])).all()


def test_a_day_with_only_views_is_a_delta_too(state: Path, tmp_path: Path) -> None:
    result = apply_folder(
        write(
            tmp_path / "e" / "a.csv",
            *["2025-07-01 10:00:00 UTC,view,p,u", "2025-07-01 10:00:01 UTC,view,p,u"],
        ).parent,
        state,
        now=NOW,
    )
    with Queue(state / DATABASE) as queue:
        assert result.counts == (2, 0, 0, 0, 0)
        assert result.version == 2
        assert queue.pool("u") == {"pool": [["p", 0, 2]]}


@pytest.mark.spec("S4-11")
def test_events_that_a_service_posted_are_learnt_by_the_next_update(
    days: list[Path], state: Path, tmp_path: Path
) -> None:
    """Whatever the folder holds: here a file that is known."""
    events = folder(tmp_path / "e", days[4])
    apply_folder(events, state, now=NOW)
    posted = next(iter(EventFile(days[5], NOW, tmp_path)))
    with Queue(state / DATABASE) as queue:
        queue.post(posted)
        assert len(queue.fresh(10_000)) == len(posted)
    result = apply_folder(events, state, now=NOW, batch=100)
    sha = known(state, "model")
    assert result.version == 2 + -(-len(posted) // 100)
    assert result.counts == (0, 0, 0, 0, 0)
    assert apply_folder(folder(events, days[5]), state, now=NOW).counts == (0, len(posted), 0, 0, 0)
    assert known(state, "model") == sha
    with Queue(state / DATABASE) as queue:
        assert not len(queue.fresh(1))


@pytest.mark.spec("S4-08")
def test_what_follows_a_purchase_is_learnt_as_a_purchase(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt = []
    updated = PurchaseNet.updated
    monkeypatch.setattr(
        PurchaseNet,
        "updated",
        lambda net, pairs, seed: (learnt.append(pairs), updated(net, pairs, seed))[1],
    )
    apply_folder(
        write(tmp_path / "e" / "a.csv", "2025-07-01 10:00:00 UTC,purchase,p,u").parent,
        state,
        now=NOW,
    )
    apply_folder(
        write(
            tmp_path / "e" / "b.csv",
            *(f"2025-07-02 10:00:00 UTC,remove_from_cart,{p},u" for p in "pq"),
        ).parent,
        state,
        now=NOW,
    )
    label = learnt[1].set_index(["user_id", "item_id"])["label"]
    assert (label["u", "p"], label["u", "q"]) == (1, 0)


@pytest.mark.spec("S4-12")
def test_what_was_learnt_is_not_washed_out(days: list[Path], tmp_path: Path) -> None:
    """The old weeks' loss rises by at most 5 % after an update with another week."""
    train_cold(folder(tmp_path / "h", *days[:4]), tmp_path / "s", now=NOW)
    with Queue(tmp_path / "s" / DATABASE) as queue:
        old = queue.read(update.PAIRS, (1 << 60,))
    before = healthy(tmp_path / "s").loss(old)
    apply_folder(folder(tmp_path / "e", days[4]), tmp_path / "s", now=NOW)
    assert healthy(tmp_path / "s").loss(old) < 1.05 * before


MOMENTS = st.lists(
    st.tuples(
        st.sampled_from("uv"),
        st.sampled_from("abc"),
        st.sampled_from(["view", "cart", "remove_from_cart", "purchase"]),
        st.integers(0, 59),
    ),
    min_size=1,
    max_size=14,
)


@pytest.mark.spec("S4-22", "S4-23", "S4-24")
@settings(max_examples=12)
@given(MOMENTS, st.randoms(use_true_random=False), st.integers(1, 4), st.integers(1, 5))
def test_any_sequence_in_any_order_with_restarts(
    trained: Path,
    tmp_path_factory: pytest.TempPathFactory,
    moments: list,
    rng: object,
    parts: int,
    batch: int,
) -> None:
    """Every line comes twice, in another order, in files that are applied one after the other.

    The sums are those of the set.
    """
    place = tmp_path_factory.mktemp("any")
    state = copy(trained, place / "state")
    lines = [
        f"2025-07-02 10:00:{s:02d} UTC,{kind},{item},{user}" for user, item, kind, s in moments
    ]
    twice = [*lines, *lines]
    rng.shuffle(twice)
    for part in range(parts):
        apply_folder(
            write(place / "e" / f"{part}.csv", *twice[part::parts]).parent,
            state,
            now=NOW,
            batch=batch,
        )
        recommend(state, at=NOW, users=["u", "v"])
    events = pd.DataFrame(set(moments), columns=["user", "item", "kind", "second"])
    bought = (
        set(zip(*events.loc[events["kind"] == "purchase", ["user", "item"]].to_numpy().T))
        if (events["kind"] == "purchase").any()
        else set()
    )
    sums = (
        events.assign(score=events["kind"].map(EVENT_WEIGHTS).fillna(0))
        .groupby(["user", "item"])["score"]
        .sum()
    )
    with Queue(state / DATABASE) as queue:
        assert queue.check() == []
        assert {(u, i) for u in "uv" for i in queue.purchases(u)} == bought
        pools = {
            (user, item): score for user in "uv" for item, _, score in queue.pool(user)["pool"]
        }
    assert {pair: score for pair, score in pools.items() if pair[1] in "abc" and pair in sums} == {
        p: s for p, s in sums.items() if p not in bought
    }
    assert not bought & set(pools)
    assert not bought & set(
        zip(*recommend(state, at=NOW, users=["u", "v"])[["user_id", "item_id"]].to_numpy().T)
    )


# ---- bad files


@pytest.mark.spec("S4-03")
def test_bad_lines_are_counted_and_kept_and_the_rest_is_applied(
    state: Path, tmp_path: Path
) -> None:
    lines = [
        "2025-07-01 10:00:00 UTC,view,p,u",
        "2025-07-01 10:00:00 UTC,wish,p,u",
        f"2025-07-01 10:00:00 UTC,view,p,{'u' * 10_000}",
        "2027-07-01 10:00:00 UTC,view,p,u",
        "2027",
    ]
    result = apply_folder(write(tmp_path / "e" / "a.csv", *lines).parent, state, now=NOW)
    assert result.counts == (1, 0, 0, 0, 0)
    assert result.rejected.total() == 4
    assert len(result.rejected) == 4
    kept = pd.read_csv(state / "rejects" / "a.csv", dtype=str)
    assert kept["line"].tolist() == lines[1:]
    assert kept["row"].tolist() == ["2", "3", "4", "5"]


def test_one_bad_file_does_not_stop_the_others_and_is_read_when_it_is_repaired(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write(tmp_path / "e" / "b.csv", "2025-07-01 10:00:00 UTC,view,p,u")
    (tmp_path / "e" / "a.csv").write_text("user,product\n1,2\n")
    assert main(["update", "--events", str(tmp_path / "e"), "--state", str(state)]) == 2
    said = capsys.readouterr()
    assert "1 new events" in said.out
    assert said.err.startswith("error: ")
    assert "a.csv has no column user_id" in said.err
    assert said.err.count("\n") == 1
    write(tmp_path / "e" / "a.csv", "2025-07-01 10:00:01 UTC,view,p,u")
    result = apply_folder(tmp_path / "e", state, now=NOW)
    assert result.counts.new == 1
    assert result.skipped == 1
    assert not result.errors


def test_a_damaged_gzip_gives_what_can_be_read_and_is_read_again(
    days: list[Path], state: Path, tmp_path: Path
) -> None:
    packed = gzip.compress(days[4].read_bytes())
    path = folder(tmp_path / "e") / "a.csv.gz"
    path.write_bytes(packed[: len(packed) // 2])
    result = apply_folder(path.parent, state, now=NOW, batch=10)
    assert len(result.errors) == 1
    assert "damaged or truncated" in result.errors[0]
    assert result.counts.new > 10
    assert result.files == 0
    path.write_bytes(packed)
    assert apply_folder(path.parent, state, now=NOW).counts.new + result.counts.new == len(
        pd.read_csv(days[4])
    )
    healthy(state)


def test_a_file_still_in_writing_is_read_again(state: Path, tmp_path: Path) -> None:
    path = write(
        tmp_path / "e" / "a.csv",
        "2025-07-01 10:00:00 UTC,view,p,u",
        "2025-07-01 10:00:01 UTC,view,p,u1",
        end="",
    )
    os.utime(path, (NOW.timestamp(),) * 2)
    result = apply_folder(path.parent, state, now=NOW)
    assert (result.counts.new, result.files, result.unfinished) == (1, 0, 1)
    result = apply_folder(path.parent, state, now=NOW + pd.Timedelta(minutes=2))
    assert result.counts == (1, 1, 0, 0, 0)
    assert result.files == 1
    assert result.unfinished == 0


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ("none", "none is no folder: give the one with the event files"),
        ("empty", r"empty has no \.csv"),
    ],
)
def test_a_folder_without_files_is_one_sentence(
    state: Path, tmp_path: Path, events: str, message: str
) -> None:
    (tmp_path / "empty").mkdir()
    for run in (apply_folder, train_cold):
        with pytest.raises(LabError, match=message):
            run(tmp_path / events, state, now=NOW)


def test_a_state_without_a_model_is_one_sentence_and_stays_as_it_was(
    days: list[Path], tmp_path: Path
) -> None:
    for run in (
        lambda s: apply_folder(folder(tmp_path / "e", days[0]), s, now=NOW),
        lambda s: recommend(s, at=NOW),
    ):
        with pytest.raises(
            LabError,
            match=r"nowhere has no model: run python -m recsys_utils.online train "
            "--history FOLDER --state FOLDER first",
        ):
            run(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.spec("S4-11")
@pytest.mark.parametrize(
    "damage", [lambda p: p.unlink(), lambda p: p.write_bytes(p.read_bytes()[:-1])]
)
def test_a_model_that_is_not_the_databases_is_refused(
    days: list[Path], state: Path, tmp_path: Path, damage: object
) -> None:
    damage(next(state.glob("model-*.npz")))
    before = dump(state)
    with pytest.raises(LabError, match=r"model-\w{16}\.npz is missing or was changed"):
        apply_folder(folder(tmp_path / "e", days[4]), state, now=NOW)
    assert dump(state) == before


# ---- one at a time, and whole


def test_a_second_update_says_so_or_waits(
    days: list[Path], state: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments = ["update", "--events", str(folder(tmp_path / "e", days[4])), "--state", str(state)]
    with update.update_lock(state, 0):
        for run in (
            lambda: apply_folder(tmp_path / "e", state, now=NOW),
            lambda: train_cold(tmp_path / "e", state, now=NOW),
        ):
            with pytest.raises(Busy, match="another update of .* is running"):
                run()
        assert main(arguments) == 3
        assert main([*arguments, "--wait", "0.2"]) == 3
    assert capsys.readouterr().err.count("error: another update of") == 2
    assert known(state, "version") == "1"
    free = threading.Event()

    def hold() -> None:
        with update.update_lock(state, 0):
            free.wait(10)

    (holder := threading.Thread(target=hold)).start()
    threading.Timer(0.3, free.set).start()
    start = time.monotonic()
    assert main([*arguments, "--wait", "10"]) == 0
    assert 0.2 < time.monotonic() - start < 9
    assert known(state, "version") == "2"
    holder.join()


def test_two_processes_at_once_do_the_work_of_one(
    days: list[Path], state: Path, tmp_path: Path
) -> None:
    alone = copy(state, tmp_path / "alone")
    events = folder(tmp_path / "e", *days[4:])
    apply_folder(events, alone, now=NOW)
    both = [started(events, state, wait=60) for _ in range(2)]
    for process in both:
        process.join(60)
    assert [p.exitcode for p in both] == [0, 0]
    assert dump(state, marks=True) == dump(alone, marks=True)


def started(events: Path, state: Path, wait: float = 0) -> multiprocessing.Process:
    """An update in a process of its own.

    It is forked from one that has imported everything and started no thread.
    """
    context = multiprocessing.get_context("forkserver")
    # The latter is what Adam imports at its first use.
    context.set_forkserver_preload(["recsys_utils.online.update", "torch._dynamo"])
    process = context.Process(
        target=apply_folder, args=(events, state), kwargs={"now": NOW, "wait": wait}
    )
    process.start()
    return process


@pytest.mark.spec("S4-28")
def test_killed_at_many_moments_of_an_update(days: list[Path], state: Path, tmp_path: Path) -> None:
    """After each kill the state is that before or after a delta, and its model's file is whole.

    The next run ends where an undisturbed one does.
    """
    events = folder(tmp_path / "e", *days[4:7])
    stages = [dump(state)]
    whole = copy(state, tmp_path / "whole")
    for n in (5, 6, 7):
        apply_folder(folder(tmp_path / "some", *days[4:n]), whole, now=NOW)
        stages.append(dump(whole))
    end = (dump(whole, marks=True), files(whole))
    place = copy(state, tmp_path / "place")
    seconds = []
    # The first one starts the server, the last one has nothing to do.
    for fresh in (True, True, True, False):
        start = time.monotonic()
        started(events, copy(state, place) if fresh else place).join()
        seconds.append(time.monotonic() - start)
        assert (dump(place, marks=True), files(place)) == end
    seen = []
    for wait in np.random.default_rng(4).uniform(seconds[3], min(seconds[1:3]), 25):
        process = started(events, copy(state, place))
        time.sleep(wait)
        process.kill()
        process.join()
        now = dump(place)
        assert now in stages
        seen.append(stages.index(now))
        assert len(healthy(place).user_ids)
        apply_folder(events, place, now=NOW)
        assert (dump(place, marks=True), files(place)) == end
    assert len(set(seen)) >= 3


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """A full disk: no file grows beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_one_sentence_and_leaves_the_state_before(
    days: list[Path], state: Path, tmp_path: Path
) -> None:
    whole = copy(state, tmp_path / "whole")
    outcomes = []
    events = folder(tmp_path / "e", days[4], write(tmp_path / "bad.csv", *["nonsense" * 9] * 450))
    apply_folder(events, whole, now=NOW)
    before = dump(state)
    place = tmp_path / "full"
    model = next(whole.glob("model-*")).stat().st_size
    assert 36_000 < (whole / "rejects" / "bad.csv").stat().st_size < model
    for size in (0, 1_000, 36_000, model - 1, model, 10_000_000):
        copy(state, place)
        with files_of_at_most(size):
            try:
                outcomes.append(apply_folder(events, place, now=NOW) and "done")
            except LabError as error:
                outcomes.append(str(error))
        assert dump(place) == (dump(whole) if outcomes[-1] == "done" else before)
        assert healthy(place)
        apply_folder(events, place, now=NOW)
        assert (dump(place, marks=True), files(place)) == (dump(whole, marks=True), files(whole))
    kinds = [
        DATABASE,
        DATABASE,
        "file too large",
        "file too large",
        DATABASE,
        "done",
    ]  # the last but one: the write-ahead log
    assert all(kind in said and "\n" not in said for kind, said in zip(kinds, outcomes))
    assert all("run again" in said for said in outcomes[:-1])


def test_a_locked_database_is_one_sentence_and_leaves_the_state_before(
    days: list[Path], state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(update, "Queue", partial(Queue, timeout=0.1))
    before = dump(state)
    events = folder(tmp_path / "e", days[4])
    other = sqlite3.connect(state / DATABASE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LabError, match=rf"{DATABASE} is locked by another program"):
        apply_folder(events, state, now=NOW)
    other.close()
    assert dump(state) == before
    assert apply_folder(events, state, now=NOW).version == 2
    assert len(list(state.glob("model-*"))) == 1


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("folder", "may only be read|permission denied"),
        ("lock", "lock: permission denied"),
        ("database", "may only be read|cannot be"),
    ],
)
def test_a_state_that_may_not_be_written_is_one_sentence(
    days: list[Path], trained: Path, what: str, message: str
) -> None:
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        state = copy(trained, Path(place) / "state")
        events = folder(Path(place) / "e", days[4])
        for path in (state, *state.rglob("*"), events, *events.iterdir()):
            path.chmod(0o777)
        before = dump(state)
        {"folder": state, "lock": state / "lock", "database": state / DATABASE}[what].chmod(0o555)
        said = as_nobody(partial(apply_folder, events, state, now=NOW))
        assert pd.Series([said]).str.contains(message)[0], said
        assert "\n" not in said
        assert dump(state) == before


def as_nobody(run: object) -> str:
    """What a call says that is made by a user who is not root."""
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        signal.alarm(30)
        said = "nothing"
        try:
            if os.getuid() == 0:
                os.setuid(65534)
            run()
        except LabError as error:
            said = str(error)
        finally:
            os.write(write, said.encode())
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as file:
        return file.read()


def test_what_a_killed_run_left_is_removed_and_what_is_not_ours_stays(
    days: list[Path], state: Path, tmp_path: Path
) -> None:
    for name in ("model-0123456789abcdef.npz", ".model-0123456789abcdef.npz.1-2.tmp", "notes.txt"):
        (state / name).write_text("x")
    folder(state / "rejects")
    (state / "rejects" / ".a.csv.tmp").write_text("x")
    apply_folder(folder(tmp_path / "e", days[4]), state, now=NOW)
    assert files(state) == {
        "lock",
        "notes.txt",
        DATABASE,
        f"model-{known(state, 'model')[:16]}.npz",
        "out/recommendations.csv",
        "out/activity.csv",
    }


def test_a_model_replaced_while_it_is_being_opened_is_found(
    days: list[Path], state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = PurchaseNet.load
    events = folder(tmp_path / "e", days[4])

    def slow(place: Path, sha: str) -> PurchaseNet:
        monkeypatch.setattr(PurchaseNet, "load", load)
        apply_folder(events, state, now=NOW)
        return load(place, sha)

    monkeypatch.setattr(PurchaseNet, "load", slow)
    with Queue(state / DATABASE) as queue:
        assert len(load_net(queue, state).user_ids)
        assert queue.get("version") == "2"


# ---- output and the command line


@pytest.mark.spec("S4-31")
def test_recommendations_and_activity_as_csv(days: list[Path], state: Path, tmp_path: Path) -> None:
    apply_folder(folder(tmp_path / "e", *days[4:]), state, now=NOW)
    users = ["U000001", "U000002", "stranger"]
    shown = recommend(state, at=NOW, users=users, n=4)
    written, acts = (
        pd.read_csv(state / "out" / f"{name}.csv", dtype={"item_id": str})
        for name in ("recommendations", "activity")
    )
    assert written["user_id"].tolist() == shown["user_id"].tolist() == np.repeat(users, 4).tolist()
    assert written["item_id"].equals(shown["item_id"])
    assert set(written["at"]) == {str(NOW.date())}
    assert written["rank"].tolist() == [1, 2, 3, 4] * 3
    rows = pd.concat([pd.read_csv(p) for p in days]).query("user_id in @users")
    counts = rows.groupby(["user_id", "product_id", "event_type"]).size().unstack(fill_value=0)
    columns = ["view", "cart", "remove_from_cart", "purchase"]
    assert (
        acts.set_index(["user_id", "item_id"])[columns].to_numpy().tolist()
        == counts[columns].to_numpy().tolist()
    )
    assert len(counts) > 5
    assert (acts["score"] == acts["view"] + 3 * acts["cart"] - acts["remove_from_cart"]).all()
    assert (acts["purchased"] == (acts["purchase"] > 0)).all()
    times = pd.to_datetime(rows["event_time"]).dt.tz_localize(None)
    assert pd.to_datetime(acts["first"]).min() == times.min()
    assert pd.to_datetime(acts["last"]).max() == times.max()
    both = written.merge(acts, on=["user_id", "item_id"])
    assert (both["counter_x"] == both["counter_y"]).all()
    assert len(both)
    assert not both["purchased"].any()


@pytest.mark.spec("S4-31")
def test_what_cannot_be_written_was_not_shown(state: Path) -> None:
    before = dump(state)
    out = {p.name: p.read_bytes() for p in (state / "out").iterdir()}
    (state / "out" / "activity.csv").unlink()
    (state / "out" / "activity.csv").mkdir()
    with pytest.raises(LabError, match=r"out/.*activity\.csv"):
        recommend(state, at=NOW, users=["U000001"])
    assert dump(state) == before
    assert out


@pytest.mark.spec("S4-02")
def test_the_command_line_trains_updates_recommends_and_says_how_it_stands(
    days: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    history, events, state = (
        str(p)
        for p in (
            folder(tmp_path / "h", *days[:2]),
            folder(tmp_path / "e", *days[2:4]),
            tmp_path / "s",
        )
    )
    first, later = (sum(len(pd.read_csv(p)) for p in part) for part in (days[:2], days[2:4]))
    assert main(["train", "--history", history, "--state", state, "--until", "2025-12-31"]) == 0
    assert main(["update", "--events", events, "--state", state]) == 0
    assert main(["update", "--events", events, "--state", state]) == 0
    assert main(["recommend", "--state", state, "--limit", "5", "-n", "2"]) == 0
    assert main(["recommend", "--state", state, "--users", "U000003,x"]) == 0
    assert main(["status", "--state", state]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"{first:,} new events (")
    assert said[0].endswith("2 files read, 0 unchanged, 0 still being written; model version 1")
    assert said[1].startswith(f"{later:,} new events (")
    assert said[2].startswith(
        "0 new events (0 purchases, 0 late), 0 copies, 0 rows rejected; 0 files"
    )
    assert said[3].startswith("10 products for 5 users: ")
    assert said[4].startswith("6 products for 2 users")
    assert said[5].startswith(f"{first + later:,} events, 0 of them not learnt yet")
    assert "model version 3" in said[5]
    assert said[6] == "queues and logs agree"


def test_the_status_names_what_disagrees(state: Path, capsys: pytest.CaptureFixture) -> None:
    con = sqlite3.connect(state / DATABASE)
    user = con.execute(
        "SELECT user_id FROM queue WHERE json_array_length(product_queue, '$.pool') > 0"
    ).fetchone()[0]
    con.execute("UPDATE queue SET product_queue = '{\"pool\": []}' WHERE user_id = ?", (user,))
    con.commit()
    con.close()
    assert main(["status", "--state", str(state)]) == 2
    assert user in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--history", "EMPTY", "--state", "S"], "error: .*has no .csv"),
        (["update", "--events", "EMPTY", "--state", "S"], "error: .*has no .csv"),
        (["recommend", "--state", "S"], "error: .*has no model: run"),
        (["status", "--state", "S"], "error: .*is missing"),
    ],
)
def test_the_command_line_says_errors_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture, arguments: list[str], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    assert (
        main(
            [
                {"EMPTY": str(tmp_path / "empty"), "S": str(tmp_path / "s")}.get(a, a)
                for a in arguments
            ]
        )
        == 2
    )
    said = capsys.readouterr()
    assert pd.Series([said.err]).str.match(message)[0]
    assert said.err.count("\n") == 1
    assert not said.out
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    "arguments", [["--until", "soon"], ["--until", ""], ["--batch", "0"], ["--batch", "x"]]
)
def test_the_command_line_refuses_wrong_values(
    tmp_path: Path, capsys: pytest.CaptureFixture, arguments: list[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", "--history", str(tmp_path), "--state", str(tmp_path), *arguments])
    assert stop.value.code == 2
    assert arguments[0] in capsys.readouterr().err


@pytest.mark.spec("S4-05")
def test_the_layout_of_the_test_files_is_the_cosmetics_shops(days: list[Path]) -> None:
    assert len(days) >= 8
    assert all(tuple(pd.read_csv(p, nrows=0)) == LAYOUT for p in days)
