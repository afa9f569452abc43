"""What the service loads.

A small shop trained once for all tests of the service, its files, and what is refused of them.
"""

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient

from recsys_utils import LabError
from recsys_utils.data import tables
from recsys_utils.ensembles.rule_settings import tuned
from recsys_utils.online.queue import Queue
from recsys_utils.online.update import DATABASE
from recsys_utils.serving import train as training
from recsys_utils.serving.__main__ import main
from recsys_utils.serving.app import create_app
from recsys_utils.serving.artifacts import Artifacts, NotTrained, service_manifest
from recsys_utils.serving.settings import Settings
from recsys_utils.store import read_parquet, write_json

TOML = 'title = "Small shop"\ncurrency = "€"\nsynthetic = true\nlines = 6000\n'
MODELS = ("two_stage", "two_stage_new", "preference_pairs", "own_decayed")
NOW = datetime(2025, 7, 2, 12, tzinfo=UTC)


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = NOW
        self.passed = 0.0

    def __call__(self) -> datetime:
        return self.now

    def timer(self) -> float:
        return self.passed

    def move(self, seconds: float) -> None:
        self.passed += seconds
        self.now += timedelta(seconds=seconds)


def make(base: Path) -> Path:
    """Train the small shop below a folder."""
    (base / "small.toml").write_text(TOML)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECSYS_HOME", str(base))
        patch.delenv("RECSYS_DATA", raising=False)
        training.train(
            str(base / "small.toml"),
            models=MODELS,
            now=pd.Timestamp("2025-07-01"),
            say=lambda line: None,
        )
    return base


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the small shop is trained; read only.

    Once per run, whatever module of whatever process asks.
    """
    root = tmp_path_factory.getbasetemp()
    home = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "small-shop"
    home.mkdir(exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return (
            home if (home / "data" / "small" / "serving" / "manifest.json").exists() else make(home)
        )


@pytest.fixture
def folder(base: Path, tmp_path: Path) -> Path:
    """A copy of what was trained, to write in."""
    return shutil.copytree(base / "data" / "small" / "serving", tmp_path / "serving")


@contextmanager
def serving(
    folder: Path, clock: Clock | None = None, raises: bool = True, **config: object
) -> Iterator[TestClient]:
    """A client of an app that has loaded a folder."""
    clock = clock or Clock()
    app = create_app(folder, config=Settings(**config), clock=clock, timer=clock.timer)
    with TestClient(app, "http://localhost", raises) as client:
        while client.get("/api/v1/health").json()["status"] == "initializing":
            time.sleep(0.01)
        yield client


@pytest.fixture(scope="module")
def client(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """An app that a whole module asks; its events are its own."""
    copy = shutil.copytree(
        base / "data" / "small" / "serving", tmp_path_factory.mktemp("served") / "serving"
    )
    with serving(copy, cache_ttl_seconds=0) as result:
        yield result


@pytest.fixture(scope="module")
def art(base: Path) -> Artifacts:
    return Artifacts.load(base / "data" / "small" / "serving")


def current(folder: Path) -> Path:
    return folder / service_manifest(folder)["folder"]


@pytest.mark.spec("C6")
def test_training_writes_one_version_and_a_manifest_of_every_byte(
    base: Path, art: Artifacts
) -> None:
    """Schema, version, cut, a digest of each file."""
    folder = base / "data" / "small" / "serving"
    manifest = service_manifest(folder)
    result = current(folder)
    files = {path.relative_to(result).as_posix() for path in result.rglob("*") if path.is_file()}
    assert set(manifest["sha256"]) == files
    assert manifest["cut"] == str(art.hybrid.as_of)
    assert {p.name for p in folder.iterdir()} == {"manifest.json", "online", result.name}
    assert len([name for name in files if name.startswith("hybrid/")]) == 6
    assert (manifest["synthetic"], manifest["title"], manifest["currency"]) == (
        True,
        "Small shop",
        "€",
    )
    assert manifest["trained_at"] == "2025-07-01T00:00:00Z"
    assert not [path for path in folder.rglob("*") if path.suffix in (".pkl", ".joblib", ".pt")]


@pytest.mark.spec("S1-22")
def test_lists_are_a_hundred_deep_and_of_every_known_user(art: Artifacts, base: Path) -> None:
    """What is served is the recommendation table itself."""
    result = current(base / "data" / "small" / "serving")
    for name in MODELS:
        table = read_parquet(result / "lists" / f"{name}.parquet")
        assert table.groupby("user_id", observed=True).size().eq(training.DEPTH).all()
        assert table["user_id"].nunique() == len(art.hybrid.user_ids_)
        user = art.hybrid.user_ids_[7]
        rows = table[table["user_id"] == user].sort_values("rank")
        item, score = art.lists[name].of_user(7)
        assert art.items.index[item].tolist() == rows["item_id"].astype(str).tolist()
        np.testing.assert_allclose(score, rows["score"], rtol=0, atol=1e-6)


def test_a_short_list_ends_where_it_ends() -> None:
    from recsys_utils.serving.artifacts import Lists

    users = pd.Index(["u", "v", "w"])
    items = pd.Index(["a", "b"])
    result = Lists.of(
        pd.DataFrame(
            {
                "user_id": ["v", "u", "v"],
                "item_id": ["b", "b", "a"],
                "score": [2.0, 1.0, 1.0],
                "rank": [1, 1, 2],
            }
        ),
        users,
        items,
    )
    assert [result.of_user(n)[0].tolist() for n in range(3)] == [[1], [1, 0], []]


def test_the_notebooks_parameters_are_used_where_they_have_run(home: Path) -> None:
    assert training.chosen_model("own_decayed", "small").tau == 180
    for path, text in {
        "folds/folds.json": '{"folds": ["f"]}',
        "folds/f/fold.json": '{"hash": "h"}',
        "runs/f/own_decayed.json": '{"fold_hash": "h", "params": {"tau": 60, "gone": 1}}',
    }.items():
        (home / "data" / "small" / path).parent.mkdir(parents=True, exist_ok=True)
        (home / "data" / "small" / path).write_text(text)
    assert training.chosen_model("own_decayed", "small").tau == 60
    assert training.chosen_model("tifuknn", "small").m == 3


@pytest.mark.spec("S4-01")
def test_training_posts_the_log_and_trains_the_cold_model(base: Path, art: Artifacts) -> None:
    with Queue(base / "data" / "small" / "serving" / "online" / DATABASE, read_only=True) as queue:
        posted = queue.read("SELECT COUNT(*) AS n FROM purchases")["n"][0]
        assert posted == art.hybrid.seen_.nnz
        assert queue.get("model")
        assert not len(queue.fresh(1))
        assert queue.check() == []


def test_an_unknown_model_is_refused_by_name(home: Path) -> None:
    (home / "small.toml").write_text(TOML)
    with pytest.raises(LabError, match="model 'magic' is unknown: choose of two_stage"):
        training.train(str(home / "small.toml"), models=["magic"])


@pytest.mark.spec("S1-20")
@pytest.mark.parametrize(
    "name",
    [
        "hybrid/als_model.npz",
        "lists/two_stage.parquet",
        "items.parquet",
        "tower/best_two_tower_model.safetensors",
        "stock.parquet",
    ],
)
def test_a_changed_or_missing_file_is_refused_by_name(folder: Path, name: str) -> None:
    path = current(folder) / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(LabError, match=f"{Path(name).name}.*changed"):
        Artifacts.load(folder)
    path.unlink()
    with pytest.raises(LabError, match=f"{Path(name).name} is missing"):
        Artifacts.load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"title": "Another"}, "changed after it was saved"),
        ({"schema": 99}, "has schema 99, this version reads 2"),
    ],
)
def test_a_changed_manifest_is_refused(folder: Path, change: dict, message: str) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(LabError, match=message):
        Artifacts.load(folder)


@pytest.mark.spec("S5-60")
def test_the_service_is_tested_as_it_is() -> None:
    """No stand-ins; what is covered, `pytest --cov=recsys_utils/serving` says."""
    for path in Path(__file__).parent.glob("test_serving*.py"):
        assert not re.search(
            r"unittest[.]mock|Magic[M]ock|dependency[_]overrides|create[_]autospec",
            path.read_text(),
        )


@pytest.mark.spec("S1-20")
def test_nothing_trained_says_which_command_trains(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(NotTrained, match="run python -m recsys_utils.serving train"):
        Artifacts.load(tmp_path)
    assert main(["--dataset", "synthetic", "--artifacts", str(tmp_path)]) == 2
    assert "run python -m recsys_utils.serving train --dataset synthetic" in capsys.readouterr().err


def test_a_failed_training_leaves_the_old_version_and_nothing_half_written(
    base: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = service_manifest(folder)
    monkeypatch.setenv("RECSYS_HOME", str(base))
    monkeypatch.setattr(training, "_towers", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        training.train(str(base / "small.toml"), folder, ["own_decayed"], say=lambda line: None)
    assert service_manifest(folder) == before
    assert len(list(folder.glob("v-*"))) == 1
    assert Artifacts.load(folder).manifest == before


def test_a_new_version_replaces_the_old_one_and_keeps_what_was_posted(
    base: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("RECSYS_HOME", str(base))
    with Queue(folder / "online" / DATABASE) as queue:
        queue.post(
            pd.DataFrame(
                [
                    {
                        "event_id": 5,
                        "user_id": "new",
                        "item_id": "I1",
                        "event_type": "view",
                        "ts": pd.Timestamp("2025-07-01"),
                        "category": "",
                    }
                ]
            )
        )
    assert (
        main(
            [
                "train",
                "--dataset",
                str(base / "small.toml"),
                "--artifacts",
                str(folder),
                "--models",
                "own_decayed",
            ]
        )
        == 0
    )
    assert "Small shop: " in capsys.readouterr().out
    assert list(service_manifest(folder)["lists"]) == ["own_decayed"]
    assert len(list(folder.glob("v-*"))) == 1
    with Queue(folder / "online" / DATABASE) as queue:
        assert queue.pool("new") == {"pool": [["I1", 0, 1]]}


@pytest.mark.spec("S5-50")
@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"DEBUG": "perhaps"}, "DEBUG is 'perhaps'"),
        ({"ENVIRONMENT": "moon"}, "ENVIRONMENT is 'moon'"),
        ({"CACHE_TTL_SECONDS": "-1"}, "CACHE_TTL_SECONDS is '-1'"),
        ({"CACHE_TTL_SECONDS": "nan"}, "CACHE_TTL_SECONDS"),
        ({"CORS_ORIGINS": "[1"}, "CORS_ORIGINS is"),
        ({"CORS_ORIGINS": "localhost"}, "CORS_ORIGINS names 'localhost'"),
        ({"ENVIRONMENT": "production"}, "API_KEY is empty"),
        ({"API_KEY": "schlüssel"}, "API_KEY holds a character that no header carries"),
        ({"TUNING_PATH": "nowhere.toml"}, "nowhere.toml does not exist"),
        ({"CACHE_MAX_SIZE": "0"}, "CACHE_MAX_SIZE"),
    ],
)
def test_a_bad_setting_is_an_error_that_names_it(env: dict, message: str) -> None:
    with pytest.raises(LabError, match=message):
        Settings.from_env(env)


@pytest.mark.spec("S5-50")
def test_every_variable_is_read(tmp_path: Path) -> None:
    (tmp_path / "t.toml").write_text("candidate_pool_size = 7\n")
    env = {
        "DEBUG": "true",
        "ENVIRONMENT": "production",
        "CORS_ORIGINS": '["http://a.example", "https://b.example/"]',
        "CACHE_TTL_SECONDS": "5",
        "MODEL_PATH": "/m",
        "API_KEY": "s3cret",
        "CACHE_MAX_SIZE": "9",
        "TUNING_PATH": str(tmp_path / "t.toml"),
        "HOME": "/ignored",
    }
    result = Settings.from_env(env)
    assert (
        result.debug,
        result.environment,
        result.cache_ttl_seconds,
        result.model_path,
        result.cache_max_size,
    ) == (True, "production", 5, Path("/m"), 9)
    commas = Settings.from_env(env | {"CORS_ORIGINS": "http://a.example, https://b.example"})
    assert result.cors_origins == ("http://a.example", "https://b.example") == commas.cors_origins
    assert result.tuning["candidate_pool_size"] == 7
    assert result.api_key.get_secret_value() == "s3cret"
    assert "s3cret" not in str(result.shown()) + repr(result)
    assert result.shown()["api_key_set"]
    assert Settings.from_env(dict.fromkeys(env, "")) == Settings.from_env({}) == Settings()


def small_shop(base: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[tables.Tables, str]:
    """The small shop's tables and the path of its TOML file."""
    monkeypatch.setenv("RECSYS_HOME", str(base))
    toml = str(base / "small.toml")
    return tables.load(toml), toml


def test_confidence_is_learnt_under_the_settings_that_are_served(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the rules that hide repeats, the hybrid's suggestions are bought more often."""
    data, toml = small_shop(base, monkeypatch)

    def learn(settings: dict) -> pd.DataFrame:
        monkeypatch.setattr(training, "load_tuning", lambda: tuned(settings))
        cells = training._confidence(data, toml, ["own_decayed"], lambda line: None)
        return cells.set_index("model")

    as_shipped = learn({})
    without_rules = learn(
        {"repurchase_cycle": {"enabled": False}, "price_sensitivity": {"mode": "off"}}
    )
    bought = [cells.loc[["hybrid"], "bought"].sum() for cells in (as_shipped, without_rules)]
    assert bought[0] < bought[1]


def test_confidence_is_learnt_with_and_without_what_was_bought_before(
    base: Path, monkeypatch: pytest.MonkeyPatch, client: TestClient, art: Artifacts
) -> None:
    """Own purchases without what was bought are next to nothing: their confidence says so."""
    data, toml = small_shop(base, monkeypatch)
    cells = training._confidence(data, toml, ["own_decayed"], lambda line: None)
    own = cells[cells["model"] == "own_decayed"].groupby("setting")
    share = own["bought"].sum() / own["n"].sum()
    claimed = own["confidence"].mean()
    assert share["new"] < share["any"] / 3
    assert claimed["new"] < claimed["any"] / 2
    user = art.users["baskets"].idxmax()
    asked = f"/api/v1/recommendations/{user}?model=own_decayed&n=5"
    both = [
        client.get(f"{asked}&exclude_purchased={excluded}").json()["recommendations"]
        for excluded in ("false", "true")
    ]
    with_them, without = (np.mean([row["confidence_score"] for row in rows]) for rows in both)
    assert without < with_them / 2


def test_without_a_notebook_s_fold_the_last_weeks_are_cut_here(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, toml = small_shop(base, monkeypatch)
    stage, lists = training._last_window(data, toml)
    assert lists == {}
    end = data.purchases["ts"].max().floor("D") + pd.Timedelta(days=1)
    assert stage.truth["ts"].min() >= end - pd.Timedelta(days=21)
    assert stage.history.purchases["ts"].max() < end - pd.Timedelta(days=21)


def test_a_damaged_fold_is_an_error_and_not_passed_over(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = shutil.copytree(base, tmp_path / "home")
    data, toml = small_shop(home, monkeypatch)
    folds = home / "data" / "small" / "folds"
    folds.mkdir()
    (folds / "folds.json").write_text("{")
    with pytest.raises(LabError, match=r"folds\.json is damaged"):
        training._last_window(data, toml)


def test_models_that_confidence_has_to_fit_again_are_named(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, toml = small_shop(base, monkeypatch)
    printed = []
    training._confidence(data, toml, ["own_decayed"], printed.append)
    assert "own_decayed" in printed[0]
    assert "fitted once more" in printed[0]


def test_parameters_of_another_cut_are_not_used(home: Path) -> None:
    folds = home / "data" / "corner" / "folds"
    write_json({"folds": ["f"]}, folds / "folds.json")
    write_json({"hash": "new"}, folds / "f" / "fold.json")
    run = home / "data" / "corner" / "runs" / "f" / "own_decayed.json"
    for fold_hash, tau in (("old", 180), ("new", 30)):
        write_json({"fold_hash": fold_hash, "params": {"tau": 30}}, run)
        assert training.chosen_model("own_decayed", "corner").tau == tau
