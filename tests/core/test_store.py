"""What lies on disk is whole, vouched for, and refused by name when it is not."""

import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import sparse

from recsys_utils import LabError, store

MODEST = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
dense = st.sampled_from(["float32", "float64", "int32", "int64", "bool", "U5"]).flatmap(
    lambda t: arrays(t, array_shapes(max_dims=3, max_side=5))
)
csr = st.builds(
    lambda a: sparse.csr_matrix(a),
    arrays(
        "float32", array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.integers(-2, 2)
    ),
)


def test_home_is_the_repository_or_what_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RECSYS_HOME", raising=False)
    assert (store.home() / "recsys_utils" / "store.py").is_file()
    monkeypatch.setenv("RECSYS_HOME", str(tmp_path))
    assert store.data_dir("x", "runs", "f") == tmp_path / "data" / "x" / "runs" / "f"
    assert store.report_dir("x") == tmp_path / "reports" / "x"


def test_atomic_leaves_the_old_file_and_nothing_else_on_failure(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "value.json"
    store.write_json({"a": 1}, path)
    before = path.read_bytes()
    with pytest.raises(RuntimeError), store.atomic(path) as temporary:
        temporary.write_text("half")
        assert path.read_bytes() == before
        raise RuntimeError
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_frame_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="object|convert|type"):
        store.write_parquet(pd.DataFrame({"a": [1, object()]}), tmp_path / "a.parquet")
    assert not list(tmp_path.iterdir())


def test_frames_come_back_with_ids_as_categories(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "user_id": ["2", "1"],
            "ts": pd.to_datetime(["2024-01-01 00:00:00.5", "2024-01-02 10:00:00.123456"]),
            "price": [1.5, None],
        }
    )
    back = store.read_parquet(store.write_parquet(frame, tmp_path / "a.parquet"))
    assert back["user_id"].dtype == "category"
    assert list(back["user_id"]) == ["2", "1"]
    assert back["ts"].dtype == "datetime64[us]"
    pd.testing.assert_frame_equal(back.astype({"user_id": object, "ts": "datetime64[ns]"}), frame)


def test_several_frames_share_their_categories(tmp_path: Path) -> None:
    paths = [
        store.write_parquet(pd.DataFrame({"item_id": ids}), tmp_path / f"{n}.parquet")
        for n, ids in enumerate((["a", "b"], ["c", "a"]))
    ]
    both = store.read_parquet(*paths)["item_id"]
    assert list(both) == ["a", "b", "c", "a"]
    assert sorted(both.cat.categories) == ["a", "b", "c"]


@pytest.mark.parametrize("read", [store.read_parquet, store.read_json])
def test_a_missing_file_names_itself_and_the_cure(tmp_path: Path, read: Callable) -> None:
    with pytest.raises(LabError, match="gone.x is missing: run 02 first$"):
        read(tmp_path / "gone.x", cure="run 02")


def test_equal_json_is_equal_bytes(tmp_path: Path) -> None:
    a, b = (
        store.write_json(value, tmp_path / name)
        for name, value in (("a", {"x": 1, "y": [2]}), ("b", {"y": [2], "x": 1}))
    )
    assert a.read_bytes() == b.read_bytes()
    assert store.read_json(a) == {"x": 1, "y": [2]}


def test_digest_is_of_bytes_and_order(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"one"), b.write_bytes(b"two")
    assert store.digest(a) == hashlib.sha256(b"one").hexdigest()  # what sha256sum prints
    assert store.digest(a, b) != store.digest(b, a)
    b.write_bytes(b"twp")
    assert len({store.digest(a, b), store.digest(a), store.digest(b)}) == 3


@pytest.mark.spec("C6")
@MODEST
@given(st.dictionaries(st.sampled_from("abcdef"), st.one_of(dense, csr), max_size=4))
def test_arrays_round_trip(tmp_path: Path, made: dict) -> None:
    """Dense or CSR, the same values, types and shapes come back."""
    back, meta = store.load_arrays(store.save_arrays(made, {"cut": "2024-01-01"}, tmp_path / "m"))
    assert back.keys() == made.keys()
    assert meta["cut"] == "2024-01-01"
    assert set(meta["libraries"]) == set(store.LIBRARIES)
    for key, a in made.items():
        assert sparse.issparse(back[key]) == sparse.issparse(a)
        assert back[key].shape == a.shape
        assert back[key].dtype == a.dtype
        x, y = (m.toarray() if sparse.issparse(m) else m for m in (back[key], a))
        np.testing.assert_array_equal(x, y)
    assert len(list((tmp_path / "m").iterdir())) == 2


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    folder = store.save_arrays(
        {"a": np.arange(50.0), "m": sparse.eye(3, format="csr")}, {}, tmp_path / "model"
    )
    assert store.load_arrays(folder)[0]["a"].sum() == 1225  # before anything is spoiled
    return folder


@pytest.mark.spec("C6")
@pytest.mark.parametrize("where", [0, 0.3, 0.9])
def test_a_changed_byte_is_refused_by_name(saved: Path, where: float) -> None:
    path = next(saved.glob("*.npz"))
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        LabError, match=f"{path.name} is missing or was changed after it was saved: train again$"
    ):
        store.load_arrays(saved)


def test_missing_files_are_refused_by_name(saved: Path) -> None:
    next(saved.glob("*.npz")).unlink()
    with pytest.raises(LabError, match="arrays-.*npz is missing"):
        store.load_arrays(saved)
    (saved / "manifest.json").unlink()
    with pytest.raises(LabError, match="manifest.json is missing: train and save the model first$"):
        store.load_arrays(saved)


@pytest.mark.parametrize("schema", [None, 0, store.SCHEMA + 1])
def test_another_schema_is_refused(saved: Path, schema: int | None) -> None:
    meta = json.loads((saved / "manifest.json").read_text()) | {"schema": schema}
    store.write_json(meta, saved / "manifest.json")
    with pytest.raises(LabError, match=f"schema {schema}, this version reads {store.SCHEMA}"):
        store.load_arrays(saved)


@pytest.mark.spec("C6")
def test_no_pickle_is_ever_loaded(saved: Path) -> None:
    """An array of objects is not even saved, or not loaded."""
    with pytest.raises(ValueError, match="Object arrays cannot be"):
        store.load_arrays(store.save_arrays({"a": np.array([{"x": 1}], dtype=object)}, {}, saved))


def hammer(
    read: Callable[[], object], write: Callable[[int], object], writes: int = 60, readers: int = 3
) -> list[object]:
    """What readers saw, or the errors that they met, while a writer wrote again and again."""
    seen, done = [], threading.Event()

    def reader() -> None:
        while not done.is_set():
            try:
                seen.append(read())
            except Exception as error:
                seen.append(error)

    threads = [threading.Thread(target=reader) for _ in range(readers)]
    for thread in threads:
        thread.start()
    try:
        for n in range(writes):
            write(n)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    return seen


def test_readers_of_a_file_see_the_old_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write = lambda n: store.write_json({"n": n, "pad": [n] * 3000}, path)  # noqa: E731
    write(0)
    seen = hammer(lambda: store.read_json(path), write)
    assert seen
    assert not [s for s in seen if isinstance(s, Exception)]
    assert all(set(s["pad"]) == {s["n"]} for s in seen)


def test_readers_of_arrays_see_the_old_or_the_new(tmp_path: Path) -> None:
    """A model may be saved while a service loads it."""
    write = lambda n: store.save_arrays({"a": np.full(20_000, n)}, {"n": n}, tmp_path / "m")  # noqa: E731
    write(0)
    seen = hammer(lambda: store.load_arrays(tmp_path / "m"), write)
    assert seen
    errors = [s for s in seen if isinstance(s, Exception)]
    assert not errors, f"{len(errors)} of {len(seen)} failed, e.g. {errors[0]}"
    assert all((a["a"] == meta["n"]).all() for a, meta in seen)


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    """Two threads write the same file at once: both succeed, one whole file remains."""
    path, errors = tmp_path / "a.json", []

    def write(n: int) -> None:
        try:
            for _ in range(60):
                store.write_json({"pad": [n] * 2000}, path)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(set(store.read_json(path)["pad"])) == 1
    assert list(tmp_path.iterdir()) == [path]
