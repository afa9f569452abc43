"""Runs of the real pipeline that several test files look at."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]


def run_pipeline(home: Path, *arguments: str) -> str:
    """Run the notebooks into a home of their own; what was printed. A failed run fails the test."""
    result = subprocess.run(
        [sys.executable, "-m", "recsys_utils.pipeline", *arguments],
        cwd=ROOT,
        text=True,
        capture_output=True,
        env=os.environ | {"RECSYS_HOME": str(home)},
    )
    printed = result.stdout + result.stderr
    assert result.returncode == 0, printed
    return printed


def read_leaderboard(home: Path, dataset: str) -> pd.DataFrame:
    """The leaderboard without its seconds."""
    table = pd.read_csv(home / "reports" / dataset / "leaderboard.csv")
    return table.drop(columns=["fit_seconds", "recommend_seconds"])


def precision_at_5(board: pd.DataFrame, scope: str = "any") -> pd.Series:
    """Precision@5 of each model for warm users."""
    is_wanted = (
        (board["metric"] == "precision")
        & (board["k"] == 5)
        & (board["scope"] == scope)
        & (board["users_scope"] == "warm")
    )
    return board[is_wanted].set_index("model")["value"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, so that no process is left with one at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session")
def pipeline() -> Callable[..., str]:
    return run_pipeline


@pytest.fixture(scope="session")
def leaderboard() -> Callable[[Path, str], pd.DataFrame]:
    return read_leaderboard


@pytest.fixture(scope="session")
def precision() -> Callable[..., pd.Series]:
    return precision_at_5


@pytest.fixture(scope="session")
def default_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of one default run, which run_tests.sh made before; else it takes 6 minutes."""
    if made_before := os.environ.get("RECSYS_DEFAULT_RUN"):
        return Path(made_before)
    home = tmp_path_factory.mktemp("default_run")
    run_pipeline(home)
    return home
