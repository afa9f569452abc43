"""What lies on disk is whole, vouched for, and refused by name when it is not."""

import hashlib
import json
import threading
import time
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

CURE = "train and save the model"
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
    folder = store.save_bundle(tmp_path / "m", "model", {"a.npz": made}, {}, "2024-01-01")
    parts, meta = store.load_bundle(folder, "model", CURE)
    back = parts["a.npz"]
    assert back.keys() == made.keys()
    assert meta["cut"] == "2024-01-01"
    for key, a in made.items():
        assert sparse.issparse(back[key]) == sparse.issparse(a)
        assert back[key].shape == a.shape
        assert back[key].dtype == a.dtype
        x, y = (m.toarray() if sparse.issparse(m) else m for m in (back[key], a))
        np.testing.assert_array_equal(x, y)
    assert len(list((tmp_path / "m").iterdir())) == 2


def test_every_kind_of_part_comes_back(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": [1.5, 2.5]}, index=pd.Index(["a", "b"], name="id"))
    parts = {"f.parquet": frame, "deep/j.json": {"a": [1, 2]}, "t.txt": "text", "b.bin": b"\x00"}
    folder = store.save_bundle(tmp_path, "mixed", parts, {"who": "me"}, None, fixed_names=True)
    back, meta = store.load_bundle(folder, "mixed", CURE)
    pd.testing.assert_frame_equal(back["f.parquet"], frame)
    assert back["deep/j.json"] == {"a": [1, 2]}
    assert back["t.txt"] == b"text"
    assert back["b.bin"] == b"\x00"
    assert meta["who"] == "me"
    assert meta["cut"] is None
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {*parts, "manifest.json"}


def test_a_manifest_names_the_libraries_that_results_depend_on(saved: Path) -> None:
    libraries = store.load_bundle(saved, "model", CURE)[1]["libraries"]
    assert {"numpy", "torch", "lightgbm", "implicit"} <= libraries.keys()
    assert libraries["numpy"] == np.__version__


def test_equal_content_is_equal_bytes(tmp_path: Path) -> None:
    arrays = {"a": np.arange(5.0), "m": sparse.eye(3, format="csr")}
    folders = [
        store.save_bundle(tmp_path / name, "model", {"a.npz": arrays}, {}, "2024-01-01")
        for name in ("one", "two")
    ]
    contents = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders]
    assert contents[0] == contents[1]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    arrays = {"a": np.arange(50.0), "m": sparse.eye(3, format="csr")}
    folder = store.save_bundle(tmp_path / "model", "model", {"arrays.npz": arrays}, {}, None)
    parts, _ = store.load_bundle(folder, "model", CURE)
    assert parts["arrays.npz"]["a"].sum() == 1225  # before anything is spoiled
    return folder


@pytest.mark.spec("C6")
@pytest.mark.parametrize("where", [0, 0.3, 0.9])
def test_a_changed_byte_is_refused_by_name(saved: Path, where: float) -> None:
    path = next(saved.glob("*.npz"))
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        LabError, match=f"{path.name} was changed after it was saved.*{CURE} again$"
    ):
        store.load_bundle(saved, "model", CURE)


def test_missing_files_are_refused_by_name(saved: Path) -> None:
    next(saved.glob("*.npz")).unlink()
    with pytest.raises(LabError, match="arrays-.*npz is missing"):
        store.load_bundle(saved, "model", CURE)
    (saved / "manifest.json").unlink()
    with pytest.raises(LabError, match=f"manifest.json is missing: {CURE} first$"):
        store.load_bundle(saved, "model", CURE)


@pytest.mark.parametrize("schema", [None, 0, store.SCHEMA + 1])
def test_another_schema_is_refused(saved: Path, schema: int | None) -> None:
    meta = json.loads((saved / "manifest.json").read_text()) | {"schema": schema}
    store.write_json(meta, saved / "manifest.json")
    with pytest.raises(LabError, match=f"schema {schema}, this version reads {store.SCHEMA}"):
        store.load_bundle(saved, "model", CURE)


def test_a_bundle_of_another_kind_is_refused(saved: Path) -> None:
    with pytest.raises(LabError, match=r"manifest\.json describes a model, not a hybrid"):
        store.load_bundle(saved, "hybrid", CURE)


def test_an_edited_manifest_is_refused(saved: Path) -> None:
    meta = json.loads((saved / "manifest.json").read_text()) | {"cut": "2099-01-01"}
    store.write_json(meta, saved / "manifest.json")
    with pytest.raises(LabError, match=r"manifest\.json was changed after it was saved"):
        store.load_bundle(saved, "model", CURE)


@pytest.mark.parametrize("stage", ["_encode", "write_manifest"])
def test_a_failure_leaves_the_old_bundle(
    saved: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    before = {path.name: path.read_bytes() for path in saved.iterdir()}

    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(store, stage, fail)
    with pytest.raises(OSError, match="no space"):
        store.save_bundle(saved, "model", {"arrays.npz": {"a": np.ones(3)}}, {}, None)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def test_verify_files_names_what_is_missing_or_changed(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one")
    manifest = store.write_manifest(tmp_path / "m.json", "files", {"a": path}, {}, None)
    store.verify_files(manifest, {"a": path}, CURE)
    path.write_text("two")
    with pytest.raises(LabError, match=r"a\.txt was changed"):
        store.verify_files(manifest, {"a": path}, CURE)
    path.unlink()
    with pytest.raises(LabError, match=r"a\.txt is missing"):
        store.verify_files(manifest, {"a": path}, CURE)


@pytest.mark.spec("C6")
def test_no_pickle_is_ever_loaded(saved: Path) -> None:
    """An array of objects is saved by pickle only, so it is refused."""
    objects = {"a": np.array([{"x": 1}], dtype=object)}
    with pytest.raises(ValueError, match="Object arrays cannot be"):
        store.load_bundle(
            store.save_bundle(saved, "model", {"arrays.npz": objects}, {}, None), "model", CURE
        )


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

    def write(n: int) -> None:
        arrays = {"a": np.full(20_000, n)}
        store.save_bundle(tmp_path / "m", "model", {"arrays.npz": arrays}, {"n": n}, None)

    write(0)
    seen = hammer(lambda: store.load_bundle(tmp_path / "m", "model", CURE), write)
    assert seen
    errors = [s for s in seen if isinstance(s, Exception)]
    assert not errors, f"{len(errors)} of {len(seen)} failed, e.g. {errors[0]}"
    assert all((parts["arrays.npz"]["a"] == meta["n"]).all() for parts, meta in seen)


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


def test_a_manifest_may_hold_numbers_as_keys(tmp_path: Path) -> None:
    """JSON makes text of them, and the seal still fits."""
    store.save_bundle(tmp_path, "model", {"a.json": {}}, {"places": {1: "x", 2: "y"}}, None)
    assert store.load_bundle(tmp_path, "model", "save")[1]["places"] == {"1": "x", "2": "y"}


def test_readers_of_fixed_names_see_the_old_or_the_new(tmp_path: Path) -> None:
    """A bundle that is being saved is not called damaged."""

    def save(n: int) -> None:
        parts = {"a.json": {"n": n}, "b.json": {"n": n}}
        store.save_bundle(tmp_path, "model", parts, {}, None, fixed_names=True)

    save(0)
    stop = threading.Event()

    def write() -> None:
        n = 1
        while not stop.is_set():
            save(n)
            n += 1
            time.sleep(0.03)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(100):
            parts, _ = store.load_bundle(tmp_path, "model", "save")
            assert parts["a.json"] == parts["b.json"]
    finally:
        stop.set()
        writer.join()
