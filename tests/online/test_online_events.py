"""Event files: every good line becomes one event; every other one is counted and kept."""

import csv
import gzip
import io
import os
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shops import synthetic_tables

from recsys_utils import LabError
from recsys_utils.data.registry import EVENT_TYPES
from recsys_utils.online.events import COLUMNS, LAYOUT, EventFile, event_files, event_ids, write_csv

NOW = pd.Timestamp("2020-01-10 12:00")
HEAD = "event_time,event_type,product_id,user_id"
GOOD = "2020-01-01 10:00:00 UTC,view,p1,u1"


def put(path: Path, *lines: str | bytes, end: bytes = b"\n") -> Path:
    """A file of lines, old enough to be finished."""
    path.write_bytes(
        b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines) + end
    )
    os.utime(path, (NOW.timestamp() - 3600,) * 2)
    return path


def read(path: Path, rows: int = 50_000, now: pd.Timestamp = NOW) -> tuple[pd.DataFrame, EventFile]:
    file = EventFile(path, now, path.parent / "rejects", rows)
    pieces = list(file)
    return (
        pd.concat(pieces, ignore_index=True) if pieces else pd.DataFrame(columns=list(COLUMNS))
    ), file


def rejected(path: Path) -> pd.DataFrame:
    return pd.read_csv(path.parent / "rejects" / path.name, dtype=str)


@pytest.mark.spec("S4-05")
def test_the_cosmetics_layout_is_read_into_canonical_events(tmp_path: Path) -> None:
    path = put(
        tmp_path / "a.csv",
        ",".join(LAYOUT),
        "2019-10-01 00:00:03 UTC,cart,5773203,1487580005134238553,,runail,2.62,463240011,26dd6e6e",
        "2019-10-01 00:00:00 UTC,purchase,007,1,skin.cream,,9.1,1,s",
    )
    events, file = read(path)
    assert tuple(events) == COLUMNS
    assert str(events["ts"].dtype) == "datetime64[us]"
    assert events["event_id"].dtype == np.int64
    assert events.drop(columns="event_id").to_numpy().tolist() == [
        ["1", "007", "purchase", pd.Timestamp("2019-10-01"), "skin.cream"],
        [
            "463240011",
            "5773203",
            "cart",
            pd.Timestamp("2019-10-01 00:00:03"),
            "1487580005134238553",
        ],
    ]
    assert (events["event_id"] >= 0).all()
    assert file.complete
    assert not file.rejects.counts
    assert not (tmp_path / "rejects").exists()


@pytest.mark.spec("S4-05")
@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
@pytest.mark.parametrize("rows", [1, 2, 50_000])
def test_columns_in_any_order_others_ignored_and_pieces_of_any_size(
    tmp_path: Path, name: str, rows: int
) -> None:
    text = (
        '\ufeffuser_id,noise,event_type,event_time,product_id\r\nu1,"a,b",view,2020-01-01T10:00:00Z,p1\r\n\r\n'
        'u2,x,cart,2020-01-01 12:00:00+02:00,"p,2"\r\nu2,"""",cart,2020-01-02,p3\r\n'
    ).encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    events, file = read(path, rows)
    got = (
        events.sort_values(["ts", "user_id"])[
            ["user_id", "item_id", "event_type", "ts", "category"]
        ]
        .to_numpy()
        .tolist()
    )
    ten = pd.Timestamp("2020-01-01 10:00")
    assert got == [
        ["u1", "p1", "view", ten, ""],
        ["u2", "p,2", "cart", ten, ""],
        ["u2", "p3", "cart", pd.Timestamp("2020-01-02"), ""],
    ]
    assert not file.rejects.counts


BAD = {
    "2020-01-01 10:00:00 UTC,view,p1": "not 4 fields",
    "2020-01-01 10:00:00 UTC,view,p1,u1,x": "not 4 fields",
    '2020-01-01 10:00:00 UTC,view,"p1,u1': "not 4 fields",
    "2020-01-01 10:00:00 UTC,view,,u1": "product_id is empty",
    "2020-01-01 10:00:00 UTC,view,p1,  ": "user_id is empty",
    f"2020-01-01 10:00:00 UTC,view,p1,{'u' * 10_000}": "user_id is longer than 200 characters",
    f"2020-01-01 10:00:00 UTC,view,{'ü' * 201},u1": "product_id is longer than 200 characters",
    "2020-01-01 10:00:00 UTC,view,p1,u\x00": "user_id has control characters",
    "2020-01-01 10:00:00 UTC,view,p\x1f1,u1": "product_id has control characters",
    **{
        f"{time},view,p1,u1": "event_time is no time like 2019-10-01 00:00:00 UTC"
        for time in (
            "",
            "yesterday",
            "2020-13-01 00:00:00 UTC",
            "2020-02-30",
            "1577872800",
            "2020",
            "0001-01-01",
            "01.02.2020",
            "2020-01-01 25:00:00 UTC",
        )
    },
    **{
        f"{time},view,p1,u1": "event_time is from the future"
        for time in ("2020-01-11 12:00:01 UTC", "2020-01-11 23:30:00+11:00", "2200-01-01")
    },
    **{
        f"2020-01-01 10:00:00 UTC,{kind},p1,u1": f"event_type is none of {', '.join(EVENT_TYPES)}"
        for kind in ("wishlist", "", "VIEW", "viewed")
    },
}


@pytest.mark.spec("S4-03")
@pytest.mark.parametrize("rows", [3, 50_000])
def test_bad_rows_are_counted_by_reason_and_kept_as_they_were(tmp_path: Path, rows: int) -> None:
    path = put(
        tmp_path / "a.csv",
        HEAD,
        *(line for bad in BAD for line in (bad, GOOD)),
        b"2020-01-01 10:00:00 UTC,view,p1,M\xfcller",
    )
    events, file = read(path, rows)
    assert len(events) == len(BAD)
    assert (events["user_id"] == "u1").all()
    assert file.rejects.counts == Counter(BAD.values()) + Counter(["not utf-8"])
    kept = list(
        csv.reader(io.StringIO((tmp_path / "rejects" / "a.csv").read_bytes().decode(), newline=""))
    )
    wanted = [[str(2 * n + 1), reason, line] for n, (line, reason) in enumerate(BAD.items())]
    assert kept == [
        ["row", "reason", "line"],
        *wanted,
        [str(2 * len(BAD) + 1), "not utf-8", "2020-01-01 10:00:00 UTC,view,p1,M\\xfcller"],
    ]


@pytest.mark.spec("S4-03")
def test_the_longest_id_the_last_second_and_any_letters_are_taken(tmp_path: Path) -> None:
    path = put(
        tmp_path / "a.csv", HEAD, f"2020-01-11 12:00:00 UTC,view,{'ü' * 200},Δ 'x'; --", end=b""
    )
    events, file = read(path)
    assert events[["user_id", "item_id"]].to_numpy().tolist() == [["Δ 'x'; --", "ü" * 200]]
    assert not file.rejects.counts


@pytest.mark.spec("S4-03")
@given(
    st.lists(
        st.one_of(
            st.just(GOOD),
            st.text(st.characters(codec="utf-8"), max_size=40),
            st.sampled_from(sorted(BAD)),
        ),
        max_size=12,
    ),
    st.integers(1, 5),
)
def test_every_line_is_an_event_or_a_reject(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], rows: int
) -> None:
    path = put(tmp_path_factory.mktemp("any") / "a.csv", HEAD, *lines)
    physical = [line for line in "\n".join(lines).split("\n") if line.rstrip("\r")]
    events, file = read(path, rows)
    assert len(events) + file.rejects.counts.total() == len(physical)
    assert len(events) == physical.count(GOOD)
    again, _ = read(path, rows)
    pd.testing.assert_frame_equal(events, again)


@pytest.mark.spec("S4-03")
def test_a_file_that_was_repaired_loses_its_rejects(tmp_path: Path) -> None:
    path = put(tmp_path / "a.csv", HEAD, "nonsense")
    read(path)
    assert len(rejected(path)) == 1
    read(put(path, HEAD, GOOD))
    assert not list((tmp_path / "rejects").iterdir())


def test_rejects_of_a_plain_and_a_packed_file_do_not_mix(tmp_path: Path) -> None:
    read(put(tmp_path / "a.csv", HEAD, "nonsense"))
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(f"{HEAD}\nrubbish\n".encode()))
    read(tmp_path / "a.csv.gz")
    assert {p.name: pd.read_csv(p)["line"].tolist() for p in (tmp_path / "rejects").iterdir()} == {
        "a.csv": ["nonsense"],
        "a.csv.gz.csv": ["rubbish"],
    }


@pytest.mark.spec("S4-03")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"event_time;event_type;product_id;user_id\n",
            "has no column user_id, product_id, event_time, event_type, "
            "it has event_time;event_type",
        ),
        (
            b"event_time,event_type,product_id\n",
            "has no column user_id, it has event_time, event_type, product_id: "
            "event files need user_id, product_id",
        ),
        (b"", "has no column user_id.*it has no header"),
        (b"user_id,user_id,product_id,event_time,event_type\n", "has the column 'user_id' twice"),
        (HEAD.encode("utf-16"), "is not utf-8"),
        (b'"user_id,\n', "no header"),
    ],
)
def test_a_wrong_header_is_one_error(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(
        LabError, match=rf"a\.csv {message}" if message.startswith(("has", "is")) else message
    ):
        read(put(tmp_path / "a.csv", content, end=b""))


def test_a_truncated_gzip_file_is_an_error_unless_it_is_still_being_written(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    rng = np.random.default_rng(0)
    packed = gzip.compress(
        "\n".join(
            [
                HEAD,
                *(f"2020-01-01 10:00:00 UTC,view,p{n},u1" for n in rng.integers(0, 1 << 60, 2000)),
            ]
        ).encode()
    )
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(LabError, match=r"a\.csv\.gz is a damaged or truncated gzip file"):
        read(path, 10)
    written = pd.Timestamp(path.stat().st_mtime_ns)
    assert not read(path, 10, now=written + pd.Timedelta(seconds=59))[1].complete
    path.write_bytes(b"no gzip at all")
    with pytest.raises(LabError, match="damaged"):
        read(path)


@pytest.mark.parametrize(("age", "lines"), [(5, 1), (59, 1), (-59, 1), (61, 2)])
def test_a_last_line_still_in_writing_is_left_for_the_next_run(
    tmp_path: Path, age: int, lines: int
) -> None:
    path = put(tmp_path / "a.csv", HEAD, GOOD, GOOD.replace("p1", "p2") + "2", end=b"")
    os.utime(path, (NOW.timestamp() - age,) * 2)
    for rows in (1, 2, 9):
        events, file = read(path, rows)
        assert len(events) == lines
        assert file.complete == (lines == 2)
        assert not file.rejects.counts
    path.write_bytes(path.read_bytes() + b"34\n")
    os.utime(path, (NOW.timestamp() - age,) * 2)
    assert sorted(read(path)[0]["user_id"]) == ["u1", "u1234"]
    assert read(path)[1].complete


def test_a_header_still_in_writing_is_left_too(tmp_path: Path) -> None:
    path = put(tmp_path / "a.csv", HEAD[:9], end=b"")
    os.utime(path, (NOW.timestamp(),) * 2)
    events, file = read(path)
    assert not len(events)
    assert not file.complete


@pytest.mark.spec("S4-28")
def test_the_same_event_has_one_id_and_another_has_another(tmp_path: Path) -> None:
    same = [
        "2020-01-01 10:00:00 UTC,view,p1,u1,s",
        "2020-01-01T10:00:00Z,view,p1,u1,s",
        "2020-01-01 11:00:00.000+01:00,view,p1,u1,s",
    ]
    others = [
        "2020-01-01 10:00:01 UTC,view,p1,u1,s",
        "2020-01-01 10:00:00 UTC,cart,p1,u1,s",
        "2020-01-01 10:00:00 UTC,view,p2,u1,s",
        "2020-01-01 10:00:00 UTC,view,p1,u2,s",
        "2020-01-01 10:00:00 UTC,view,p1,u1,t",
        "2020-01-01 10:00:00 UTC,view,p,1u1,s",
    ]
    events, _ = read(put(tmp_path / "a.csv", f"{HEAD},user_session", *same, *others))
    assert len(events) == 9
    assert events["event_id"].nunique() == 7
    plain, _ = read(put(tmp_path / "b.csv", HEAD, GOOD))
    assert (
        event_ids(plain["user_id"], plain["item_id"], plain["event_type"], plain["ts"]).tolist()
        == plain["event_id"].tolist()
    )


@pytest.mark.spec("S4-28")
def test_a_file_that_names_its_events_is_believed(tmp_path: Path) -> None:
    path = put(
        tmp_path / "a.csv", f"event_id,{HEAD}", f"e1,{GOOD}", f"e1,{GOOD}", f"e2,{GOOD}", f",{GOOD}"
    )
    events, file = read(path)
    assert sorted(events["event_id"].value_counts()) == [1, 2]
    assert file.rejects.counts == {"event_id is empty": 1}


@pytest.mark.spec("S4-28")
def test_two_shoppers_may_name_their_events_alike(tmp_path: Path) -> None:
    rows = [f"e1,{GOOD}", f"e1,{GOOD}".replace("u1", "u2")]
    events, _ = read(put(tmp_path / "a.csv", f"event_id,{HEAD}", *rows))
    assert events["user_id"].nunique() == events["event_id"].nunique() == 2


def test_events_of_a_piece_come_in_the_order_of_time_and_id(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    lines = [
        f"2020-01-01 10:00:{s:02d} UTC,view,p{p},u1"
        for s, p in zip(rng.integers(0, 9, 200), rng.integers(0, 99, 200))
    ]
    events, _ = read(put(tmp_path / "a.csv", HEAD, *lines))
    keys = list(zip(events["ts"], events["event_id"]))
    assert keys == sorted(keys)
    assert len(set(events["ts"])) == 9


@pytest.mark.spec("S4-05")
def test_the_generator_writes_days_that_are_read_back_whole(tmp_path: Path) -> None:
    made = synthetic_tables(6_000, seed=3)
    paths = write_csv(made["events"], made["items"], tmp_path)
    assert [p.name for p in paths] == sorted({f"{day}.csv" for day in made["events"]["ts"].dt.date})
    assert event_files(tmp_path) == paths
    assert all(tuple(pd.read_csv(p, nrows=0)) == LAYOUT for p in paths)
    back = pd.concat([read(p, now=pd.Timestamp("2026-01-01"))[0] for p in paths])
    columns = ["user_id", "item_id", "event_type", "ts"]
    wanted = made["events"][columns].sort_values(columns, ignore_index=True)
    pd.testing.assert_frame_equal(
        back[columns].sort_values(columns, ignore_index=True), wanted, check_dtype=False
    )
    assert set(back["event_type"]) == set(EVENT_TYPES)
    assert back.groupby("item_id")["category"].nunique().eq(1).all()
    assert back["category"].ne("").all()
    first = {p.name: p.read_bytes() for p in paths}
    assert {
        p.name: p.read_bytes() for p in write_csv(made["events"], made["items"], tmp_path / "again")
    } == first


@pytest.mark.spec("S4-05")
def test_items_without_attributes_are_written_too(tmp_path: Path) -> None:
    events = pd.DataFrame(
        {
            "user_id": ["u"],
            "item_id": ["unknown"],
            "event_type": ["view"],
            "ts": [pd.Timestamp("2020-01-01")],
        }
    )
    (path,) = write_csv(events, pd.DataFrame({"item_id": ["a"], "category": ["c"]}), tmp_path)
    assert read(path)[0]["item_id"].tolist() == ["unknown"]


@pytest.mark.spec("S4-05")
def test_only_event_files_of_a_folder_are_taken_by_name(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="no folder"):
        event_files(tmp_path / "none")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / ".b.csv").write_text("x")
    with pytest.raises(LabError, match=r"no \.csv"):
        event_files(tmp_path)
    for name in ("b.csv.gz", "a.csv"):
        (tmp_path / name).write_text("x")
    assert [p.name for p in event_files(tmp_path)] == ["a.csv", "b.csv.gz"]


@pytest.mark.parametrize("line", [GOOD, "nonsense"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, line: str) -> None:
    peaks = []
    for n in (10_000, 100_000):
        file = EventFile(
            put(tmp_path / "a.csv", HEAD, *[line] * n), NOW, tmp_path / "rejects", rows=1_000
        )
        tracemalloc.start()
        total = sum(map(len, file)) + file.rejects.counts.total()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert total == n
    assert peaks[1] < 3 * peaks[0]  # ten times as many lines; frames wait for the garbage collector


def test_reading_needs_at_least_one_line_at_a_time(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="rows = 0"):
        EventFile(tmp_path / "a.csv", NOW, tmp_path, rows=0)
