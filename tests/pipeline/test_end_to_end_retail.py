"""The same on real receipts, in a file of its own: another process runs it meanwhile."""

import json
import os
from pathlib import Path

import pytest
from test_end_to_end import board, page_walk, precision, run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def retail(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not os.environ.get("RECSYS_DATA"):
        pytest.skip("RECSYS_DATA is not set")
    home = tmp_path_factory.mktemp("retail")
    run(home, "--fast", "--dataset", "online_retail")
    return home


def test_online_retail_fast(retail: Path) -> None:
    found = precision(board(retail, "online_retail"))
    assert found["item_bm25"] > 0.34
    assert found["als"] > 0.258
    assert abs(found["popular_28d"] - 0.1341) < 0.003
    assert abs(found["item_cosine"] - 0.2349) < 0.003
    for meta in (retail / "data" / "online_retail" / "runs").rglob("*.json"):
        assert json.loads(meta.read_text())["peak_mib"] < 8 * 1024


@pytest.mark.spec("S5-54", "S5-55", "S5-56", "S5-57", "S5-58", "S5-59")
def test_every_tab_and_dialog_on_online_retail(retail: Path, tmp_path: Path) -> None:
    page_walk(retail, "online_retail", tmp_path)
