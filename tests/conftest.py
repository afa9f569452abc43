"""A hand-written shop, a small synthetic one, and an own home for tests that write files."""

import recsys_utils  # noqa: F401 - its settings count only if they come before numpy

# isort: split
import os
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import settings
from shops import TINY, Shop, cut_shop, fold_of, receipts

from recsys_utils.data.folds import Fold

# ranx as plain Python: 2 seconds instead of a minute of compilation
os.environ.setdefault("NUMBA_DISABLE_JIT", "1")

settings.register_profile("lab", deadline=None, max_examples=50)  # no test fails for a busy machine
settings.load_profile("lab")


@pytest.fixture
def tiny() -> pd.DataFrame:
    return receipts(TINY)


@pytest.fixture(scope="session")
def shop() -> Shop:
    return cut_shop(lines=6_000, seed=1)


@pytest.fixture(scope="session")
def shop_fold(shop: Shop) -> Fold:
    return fold_of(shop)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home: nothing outside it is written, and no raw file of this machine is found."""
    monkeypatch.setenv("RECSYS_HOME", str(tmp_path))
    monkeypatch.delenv("RECSYS_DATA", raising=False)
    return tmp_path
