"""Reports of two shops that the tests of this room read, each in a home of its own."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from published import EVIL, MODELS, publish, write_toml

from recsys_utils.models import Popular


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of its own, so that no test writes into this one."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECSYS_HOME", str(home))
        patch.delenv("RECSYS_DATA", raising=False)
        yield home


@pytest.fixture(scope="module")
def shop(home: Path) -> Path:
    """The page of a shop with prices, names, countries, cold shoppers and two folds."""
    rng = np.random.default_rng(1)
    lines = 4000
    item = rng.integers(0, 60, lines) ** 2 // 60
    frame = pd.DataFrame(
        {
            "who": [f"u{n}" for n in rng.integers(0, 160, lines)],
            "what": item,
            "name": [f"{EVIL} {n}" for n in item],
            "when": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 180, lines), "D"),
            "price": 1 + item / 10,
            "land": rng.choice(["France", "Germany"], lines),
        }
    )
    late = pd.DataFrame(
        {
            "who": [f"cold{n}" for n in range(12)],
            "what": [1, 2] * 6,
            "name": EVIL,
            "when": pd.Timestamp("2024-06-28"),
            "price": 2.0,
            "land": "France",
        }
    )
    top = 'title = "A & <b>"\ncurrency = "€"\nfolds = 2'
    toml = write_toml(home, "shop", pd.concat([frame, late]), top, 'ts = "when"\nprice = "price"')
    with toml.open("a") as file:
        file.write('[items.columns]\nitem_id = "what"\nname = "name"\n')
        file.write('[users.columns]\nuser_id = "who"\ncountry = "land"\n')
    return publish(toml, MODELS)


@pytest.fixture(scope="module")
def plain(home: Path) -> Path:
    """The page of receipts without prices, names or dates, with a single model."""
    rng = np.random.default_rng(2)
    frame = pd.DataFrame(
        {
            "who": rng.integers(0, 50, 900),
            "what": rng.integers(0, 30, 900),
            "nth": rng.integers(1, 8, 900),
        }
    )
    toml = write_toml(home, "plain", frame, 'protocol = "next_basket"', 'order = "nth"')
    return publish(toml, {"popular_28d": Popular(28)})
