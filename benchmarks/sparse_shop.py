"""Receipts of a wide shop whose shoppers hardly return: `python benchmarks/sparse_shop.py FOLDER`.

5 million lines, 200,000 items, 981,000 shoppers with one or two baskets each, and the TOML that
describes them. It is made up, and has no tastes: what it shows is whether a run comes to its end.
Then: `./run_all.sh --dataset FOLDER/sparse.toml --fast --only 01,02,03,04,15`.
"""

import sys
from pathlib import Path

import recsys_utils  # noqa: F401 - says how numpy computes, before it loads

# isort: split
import numpy as np
import pandas as pd

SHOPPERS = 981_000
ITEMS = 200_000
LINES = 5_000_000
DAYS = 730
TWO_BASKETS = 0.35  # share of the shoppers
AGAIN = 0.2  # share of a second basket's lines that repeat one of the first
TOML = """title = "A wide shop whose shoppers hardly return, made up"
currency = "€"
[purchases]
files = ["receipts.parquet"]
[purchases.columns]
user_id = "shopper"
item_id = "item"
ts = "sold_at"
basket_id = "receipt"
quantity = "units"
price = "price"
"""


def receipts(seed: int = 42) -> pd.DataFrame:
    """The lines: shopper, item, sold_at, receipt, units, price."""
    rng = np.random.default_rng(seed)
    second = np.flatnonzero(rng.random(SHOPPERS) < TWO_BASKETS)
    shopper = np.concatenate([np.arange(SHOPPERS), second])
    size = 1 + rng.poisson(LINES / len(shopper) - 1, len(shopper))
    basket = np.repeat(np.arange(len(shopper)), size)
    item = _popular(rng, len(basket))
    # A basket's first line is the one that the shopper's second basket may repeat.
    first_line = np.cumsum(size) - size
    again = (basket >= SHOPPERS) & (rng.random(len(basket)) < AGAIN)
    item[again] = item[first_line[shopper[basket[again]]]]
    item[rng.permutation(len(item))[:ITEMS]] = np.arange(ITEMS)  # nothing is never bought
    day = rng.random(len(shopper)) * DAYS
    price = np.round(np.exp(rng.normal(1.2, 0.8, ITEMS)), 2) + 0.05
    seconds = (day * 86_400).astype("timedelta64[s]")
    return pd.DataFrame(
        {
            "shopper": np.char.mod("C%07d", shopper)[basket],
            "item": np.char.mod("P%06d", item),
            "sold_at": (np.datetime64("2023-07-01", "us") + seconds)[basket],
            "receipt": np.char.mod("R%08d", np.arange(len(shopper)))[basket],
            "units": rng.integers(1, 4, len(basket)),
            "price": price[item],
        }
    )


def _popular(rng: np.random.Generator, n: int) -> np.ndarray:
    """n items, of which few are bought often and most hardly ever: Zipf's law, exponent 0.9."""
    weight = np.cumsum(np.arange(1, ITEMS + 1) ** -0.9)
    return np.searchsorted(weight, rng.random(n) * weight[-1])


def main(folder: Path) -> None:
    """Write receipts.parquet and sparse.toml."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = receipts()
    rows.to_parquet(folder / "receipts.parquet", index=False)
    (folder / "sparse.toml").write_text(TOML)
    shoppers = rows["shopper"].nunique()
    items = rows["item"].nunique()
    print(f"{len(rows):,} lines, {shoppers:,} shoppers, {items:,} items: {folder / 'sparse.toml'}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__.splitlines()[0])
    main(Path(sys.argv[1]))
