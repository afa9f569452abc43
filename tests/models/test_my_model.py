"""README's model of one's own is a real file, and a real model."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
from lab.record import record
from my_model import LatelyBought
from shops import Shop, receipts

from recsys_utils.data.folds import load_fold, write_folds
from recsys_utils.data.interactions import Interactions
from recsys_utils.data.runs import load_runs
from recsys_utils.models import load_model
from recsys_utils.store import ROOT

SHOP = 'synthetic = true\nlines = 2_000\ncurrency = "€"\n'


def test_readme_shows_this_file() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    assert Path(__file__).with_name("my_model.py").read_text() in blocks


def test_it_lists_what_was_bought_lately() -> None:
    rows = receipts("""
        ann old  1 2024-01-01 1 1
        ann milk 2 2024-05-20 1 1
        ann milk 3 2024-05-25 1 1
        ann tea  3 2024-05-25 1 1
    """)
    model = LatelyBought(days=60).fit(Interactions.of(rows))
    listed = model.recommend(["ann"], 3)
    assert listed["item_id"].astype(str).tolist() == ["milk", "tea", "old"]
    assert listed["score"].tolist() == [2, 1, 0]


def test_it_is_saved_and_loaded_like_any_other(shop: Shop, tmp_path: Path) -> None:
    model = LatelyBought().fit(shop.history)
    users = shop.history.user_ids[:5]
    loaded = load_model(model.save(tmp_path))
    pd.testing.assert_frame_equal(loaded.recommend(users), model.recommend(users))


def test_a_recorded_model_stands_among_the_runs(home: Path) -> None:
    toml = home / "corner.toml"
    toml.write_text(SHOP)
    write_folds(str(toml))
    fold = load_fold(str(toml))
    record(LatelyBought(), fold, "lately_bought")
    runs, metas = load_runs(fold)
    assert metas.loc["lately_bought", "params"] == {"days": 60}
    assert np.all(runs["lately_bought"].groupby("user_id", observed=True)["rank"].min() == 1)
