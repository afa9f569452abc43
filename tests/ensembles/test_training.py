"""Offline training: six files that restore the same model, or are refused by name."""

import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from shops import Shop, receipts

from recsys_utils import LabError, __version__, store
from recsys_utils.data.interactions import Interactions
from recsys_utils.ensembles.hybrid import Hybrid
from recsys_utils.ensembles.rule_settings import DEFAULTS, tuned
from recsys_utils.ensembles.training import (
    FILES,
    METADATA,
    load_models,
    main,
    save_models,
    train_models,
)
from recsys_utils.models import load_model

STEMS = {
    "als_model",
    "item_cf_similarities",
    "user_profiles",
    "item_features",
    "repurchase_cycles",
    "metadata",
}
SMALL = {"als": {"factors": 4, "iterations": 2}}


@pytest.fixture(scope="module")
def fitted(shop: Shop) -> Hybrid:
    return Hybrid(**SMALL, tuning={"upsell": {"factor": 0.5}, "user_segments": {"small": 0.1}}).fit(
        shop.history
    )


@pytest.fixture
def folder(fitted: Hybrid, tmp_path: Path) -> Path:
    save_models(fitted, tmp_path / "models")
    return tmp_path / "models"


@pytest.fixture
def tables(shop: Shop, tmp_path: Path) -> Path:
    """A folder of canonical tables."""
    shop.tables["purchases"].to_parquet(tmp_path / "purchases.parquet", index=False)
    shop.tables["items"].to_parquet(tmp_path / "items.parquet", index=False)
    return tmp_path


def same(a: object, b: object) -> bool:
    if sparse.issparse(a):
        return all(
            np.array_equal(getattr(a, part), getattr(b, part))
            for part in ("data", "indices", "indptr")
        )
    return (
        a.equals(b)
        if isinstance(a, pd.Index)
        else a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    )


def learnt(model: Hybrid) -> dict:
    return {name: value for name, value in vars(model).items() if name.endswith("_")}


@pytest.mark.spec("S5-21", "S5-22", "S5-23", "S5-24", "S5-25", "S5-26")
def test_six_files_by_their_names_and_nothing_else(folder: Path) -> None:
    assert {p.stem for p in folder.iterdir()} == STEMS
    assert {p.name for p in folder.iterdir()} == {
        *FILES,
        METADATA,
    }


@pytest.mark.spec("S5-20")
def test_what_is_loaded_is_what_was_saved_to_the_last_bit(
    fitted: Hybrid, folder: Path, shop: Shop
) -> None:
    loaded = load_models(folder)
    assert learnt(loaded).keys() == learnt(fitted).keys()
    assert loaded.params == fitted.params
    assert loaded.as_of == fitted.as_of
    assert [
        name for name, value in learnt(fitted).items() if not same(value, learnt(loaded)[name])
    ] == []
    users = [*shop.history.user_ids, "stranger"]
    pd.testing.assert_frame_equal(loaded.recommend(users, 9), fitted.recommend(users, 9))
    a, b = (model.explain_list(users[0], 9, exclude_purchased=True) for model in (loaded, fitted))
    pd.testing.assert_frame_equal(a.rows, b.rows)
    assert loaded.user_info(users[0]) == fitted.user_info(users[0])


def test_a_loaded_model_saves_and_loads_as_any_other(
    folder: Path, tmp_path: Path, shop: Shop
) -> None:
    again = load_model(load_models(folder).save(tmp_path / "plain"))
    pd.testing.assert_frame_equal(
        again.recommend(shop.history.user_ids, 5),
        load_models(folder).recommend(shop.history.user_ids, 5),
    )
    assert (
        save_models(again, tmp_path / "again")["sha256"]
        == json.loads((folder / METADATA).read_text())["sha256"]
    )


@pytest.mark.spec("S5-26")
def test_the_metadata_says_what_was_trained_when_on_what(tables: Path, shop: Shop) -> None:
    rows = shop.tables["purchases"]
    meta = train_models(tables, tables / "out", **SMALL)
    written = json.loads((tables / "out" / METADATA).read_text())
    assert {key: written[key] for key in meta} == meta
    assert meta["version"] == __version__
    assert meta["config"] == DEFAULTS.to_dict()
    assert meta["n_users"] == rows["user_id"].nunique()
    assert meta["n_items"] == shop.tables["items"]["item_id"].nunique()
    assert (meta["n_purchases"], meta["first_purchase"], meta["last_purchase"]) == (
        len(rows),
        str(rows["ts"].min()),
        str(rows["ts"].max()),
    )
    assert abs(pd.Timestamp(meta["trained_at"]) - pd.Timestamp.now("UTC")) < pd.Timedelta(minutes=5)
    assert 0 < meta["seconds"] < 60


@pytest.mark.spec("S5-23", "S5-24", "S5-25")
def test_the_tables_can_be_read_by_people(fitted: Hybrid, folder: Path, shop: Shop) -> None:
    users, items, cycles = (
        pd.read_parquet(folder / f"{name}.parquet")
        for name in ("user_profiles", "item_features", "repurchase_cycles")
    )
    pd.testing.assert_frame_equal(
        users,
        reference.profiles(shop.history, fitted.knobs).astype(users.dtypes.to_dict()),
        check_index_type=False,
    )
    features = reference.item_features(shop.history)
    assert (items["unique_buyers"] == features["shoppers"]).all()
    assert items["price"].equals(features["price"])
    assert items["popularity"].max() == 1
    pd.testing.assert_frame_equal(cycles, reference.cycles(shop.history))


@pytest.mark.spec("S5-20")
def test_training_twice_gives_equal_bytes(tables: Path) -> None:
    first, second = (train_models(tables, tables / name, **SMALL)["sha256"] for name in ("a", "b"))
    assert first == second
    assert first.keys() == set(FILES)


@pytest.mark.spec("S5-49")
def test_the_tuning_file_is_used_and_kept(tables: Path) -> None:
    (tables / "mine.toml").write_text("candidate_pool_size = 9\npopularity_days = 28\n")
    meta = train_models(tables, tables / "out", tables / "mine.toml", **SMALL)
    assert meta["config"] == tuned({"candidate_pool_size": 9, "popularity_days": 28}).to_dict()
    assert load_models(tables / "out").knobs.candidate_pool_size == 9


def test_a_data_set_is_taken_by_the_path_of_its_toml(home: Path, shop: Shop) -> None:
    shop.tables["purchases"].to_parquet(home / "rows.parquet")
    columns = "\n".join(
        f'{c} = "{c}"' for c in ("user_id", "item_id", "basket_id", "ts", "quantity", "price")
    )
    (home / "corner.toml").write_text(
        f'title = "corner"\n[purchases]\nfiles = ["rows.parquet"]\n[purchases.columns]\n{columns}\n'
    )
    meta = train_models(home / "corner.toml", home / "out", **SMALL)
    assert meta["n_users"] == shop.tables["purchases"]["user_id"].nunique()


@pytest.mark.spec("C6")
@settings(max_examples=30, deadline=None)
@given(name=st.sampled_from(FILES), where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_changed_byte_is_refused_by_name(
    name: str, where: float, bit: int, fitted: Hybrid, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("changed")
    save_models(fitted, folder)
    raw = bytearray((folder / name).read_bytes())
    raw[int(where * len(raw))] ^= 1 << bit
    (folder / name).write_bytes(raw)
    with pytest.raises(LabError, match=rf"{name} was changed"):
        load_models(folder)


@pytest.mark.parametrize("name", [*FILES, METADATA])
def test_a_missing_file_is_refused_by_name(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(LabError, match=f"{name} is missing"):
        load_models(folder)


@pytest.mark.parametrize(
    "damage",
    [
        lambda t: t.replace('"factor": 0.5', '"factor": 0.6'),
        lambda t: t[: len(t) // 2],
        lambda t: "[]",
        lambda t: t.replace("sha256", "sha"),
    ],
)
def test_damaged_metadata_is_refused_by_name(folder: Path, damage: object) -> None:
    path = folder / METADATA
    path.write_text(damage(path.read_text()))
    with pytest.raises(LabError, match=r"metadata\.json"):
        load_models(folder)


def test_another_version_of_the_files_is_refused(
    fitted: Hybrid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as later:
        later.setattr(store, "SCHEMA", 99)
        save_models(fitted, tmp_path)
    with pytest.raises(LabError, match="schema 99, this version reads"):
        load_models(tmp_path)


@pytest.mark.parametrize("stage", ["_encode", "write_manifest"])
def test_a_failure_leaves_the_old_files_and_nothing_half_written(
    fitted: Hybrid, folder: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    before = {p.name: p.read_bytes() for p in folder.iterdir()}

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as now:
        now.setattr(store, stage, full)
        with pytest.raises(OSError, match="no space"):
            save_models(fitted, folder)
        with pytest.raises(OSError, match="no space"):
            save_models(fitted, folder.parent / "fresh")
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert not list((folder.parent / "fresh").iterdir())


def test_the_metadata_is_put_in_its_place_last(
    fitted: Hybrid, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash between two files leaves the old metadata, which the new files do not fit.

    Refused, not mixed.
    """
    renamed = []
    replace = store.os.replace
    monkeypatch.setattr(
        store.os, "replace", lambda a, b: (renamed.append(Path(b).name), replace(a, b))
    )
    save_models(fitted, folder)
    placed = [name for name in renamed if not name.endswith(".tmp")]
    assert placed[-1] == METADATA
    assert set(placed) == {*FILES, METADATA}


def test_training_again_replaces_the_model_and_keeps_what_else_is_there(
    folder: Path, shop: Shop
) -> None:
    (folder / "notes.txt").write_text("mine")
    save_models(
        Hybrid(**SMALL).fit(
            Interactions.of(receipts("u a 1 2024-01-01 1 1\nv b 2 2024-01-02 1 1"))
        ),
        folder,
    )
    assert load_models(folder).item_ids_.tolist() == ["a", "b"]
    assert (folder / "notes.txt").read_text() == "mine"


@pytest.mark.spec("S5-53")
def test_nothing_is_read_after_loading(folder: Path, shop: Shop) -> None:
    model = load_models(folder)
    for path in folder.iterdir():
        path.unlink()
    assert len(model.explain_list(shop.history.user_ids[0]).rows) == 5
    assert len(model.explain_list("x").rows) == 5


@pytest.mark.spec("S5-20")
def test_loading_is_fast(folder: Path) -> None:
    start = time.perf_counter()
    load_models(folder)
    assert time.perf_counter() - start < 1


def test_a_shop_without_prices_or_repeats_is_saved_and_restored(tmp_path: Path) -> None:
    rows = receipts("u a 1 2024-01-01 1 1\nv b 2 2024-01-02 1 1").drop(columns="price")
    model = Hybrid(**SMALL).fit(Interactions.of(rows))
    save_models(model, tmp_path)
    assert all(
        same(value, learnt(load_models(tmp_path))[name]) for name, value in learnt(model).items()
    )


def test_the_command_line_trains_and_says_what(tables: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["--data-path", str(tables), "--output-path", str(tables / "out")]) == 0
    said = capsys.readouterr().out
    assert f"{len(pd.read_parquet(tables / 'purchases.parquet')):,} lines" in said
    assert load_models(tables / "out").knobs == DEFAULTS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data-path", "no such set"], "data set 'no such set' is unknown"),
        (["--data-path", "EMPTY"], "has no purchases.parquet"),
        (["--data-path", "TABLES", "--tuning", "none.toml"], "none.toml does not exist"),
    ],
)
def test_the_command_line_says_errors_in_one_sentence(
    tables: Path, capsys: pytest.CaptureFixture, arguments: list[str], message: str
) -> None:
    (tables / "empty").mkdir()
    places = {"EMPTY": str(tables / "empty"), "TABLES": str(tables)}
    assert main([places.get(a, a) for a in arguments] + ["--output-path", str(tables / "out")]) == 2
    assert message in (said := capsys.readouterr().err)
    assert said.startswith("error: ")
    assert not (tables / "out").exists()
