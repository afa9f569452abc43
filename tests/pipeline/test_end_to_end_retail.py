"""The same on real receipts, in a file of its own: another process runs it meanwhile."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
# The families that test_anchors does not fit on these receipts; the others take minutes here.
NOTEBOOKS = "01,02,03,04,07,15"
# The service is trained by its command, with one stored list: notebook 16 trains more, for minutes.
TRAIN = ["-m", "recsys_utils.serving", "train", "--models", "own_decayed"]


@pytest.fixture(scope="module")
def retail(tmp_path_factory: pytest.TempPathFactory, pipeline: Callable) -> Path:
    if not os.environ.get("RECSYS_DATA"):
        pytest.skip("RECSYS_DATA is not set")
    home = tmp_path_factory.mktemp("retail")
    pipeline(home, "--fast", "--dataset", "online_retail", "--only", NOTEBOOKS)
    subprocess.run(
        [sys.executable, *TRAIN, "--dataset", "online_retail"],
        env=os.environ | {"RECSYS_HOME": str(home)},
        check=True,
    )
    return home


def test_online_retail_fast(retail: Path, leaderboard: Callable, precision: Callable) -> None:
    values = precision(leaderboard(retail, "online_retail"))
    assert values["item_bm25"] > 0.34
    assert values["popular_28d"] == pytest.approx(0.1341, abs=0.003)
    assert values["item_cosine"] == pytest.approx(0.2349, abs=0.003)
    assert values["tifuknn"] > values["item_bm25"]
    runs = list((retail / "data" / "online_retail" / "runs").rglob("*.json"))
    assert runs
    for path in runs:
        assert json.loads(path.read_text())["peak_mib"] < 8 * 1024, path


@pytest.mark.spec("S5-54", "S5-55", "S5-56", "S5-57", "S5-58", "S5-59")
def test_every_tab_and_dialog_on_online_retail(retail: Path, tmp_path: Path) -> None:
    from page_walk import walked

    walked(retail / "data" / "online_retail" / "serving", tmp_path)
