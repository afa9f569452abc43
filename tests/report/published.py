"""Writing the reports that the tests of this room read."""

from pathlib import Path

import pandas as pd

from recsys_utils.data import folds, runs
from recsys_utils.models import ItemCF, OwnPurchases, Popular, Recommender
from recsys_utils.report.page import write_report

EVIL = "<script>alert(1)</script> & $5 mug"
MODELS = {
    "popular_28d": Popular(28),
    "own_decayed": OwnPurchases(90),
    "item_cosine": ItemCF("cosine"),
}


def write_toml(home: Path, name: str, frame: pd.DataFrame, top: str, columns: str) -> Path:
    """A shop's receipts as CSV and its TOML; returns the TOML's path."""
    frame.to_csv(home / f"{name}.csv", index=False)
    path = home / f"{name}.toml"
    path.write_text(f"""{top}
[purchases]
files = ["{name}.csv"]
[purchases.columns]
user_id = "who"
item_id = "what"
{columns}
""")
    return path


def publish(toml: Path, models: dict[str, Recommender]) -> Path:
    """Run models on every fold of a shop and write its report; returns the page's path."""
    folds.write_folds(str(toml))
    for fold in folds.load_folds(str(toml)):
        for name, model in models.items():
            recs = model.fit(fold.testing.history).recommend(fold.testing.users, 50)
            runs.save_run(recs, fold, name, model.family, model.params, 0.5, 0.1)
            stage = fold.tuning
            lists = model.fit(stage.history).recommend(stage.users, 20)
            runs.save_validation(lists, fold, name)
    return write_report(str(toml))
