"""Names and numbers as a reader wants to see them."""

import re

import numpy as np

LABELS = {
    "precision": "Precision",
    "recall": "Recall",
    "ndcg": "nDCG",
    "map": "MAP",
    "mrr": "MRR",
    "hit_rate": "Hit rate",
    "revenue": "Revenue",
    "revenue_share": "Revenue share",
    "coverage": "Coverage",
    "gini": "Gini",
    "novelty": "Novelty",
    "diversity": "Diversity",
    "repeat_share": "Repeat share",
    "mean_price": "Mean price",
}
WORDS = {
    "als": "ALS",
    "bpr": "BPR",
    "ease": "EASE",
    "bm25": "BM25",
    "tfidf": "TF-IDF",
    "cf": "CF",
    "upcf": "UP-CF",
    "knn": "kNN",
    "tifu": "TIFU",
    "tifuknn": "TIFU-KNN",
    "gp": "GP",
    "topfreq": "TopFreq",
    "lightfm": "LightFM",
    "warp": "WARP",
    "rrf": "RRF",
    "mmr": "MMR",
    "tf": "TF",
    "idf": "IDF",
    "up": "UP",
    "kl": "KL",
    "co": "co-",
    "own": "own purchases",
    "ids": "IDs",
}


def display_name(model: str) -> str:
    """A run's name in words.

    >>> display_name("popular_28d"), display_name("hybrid_40_40_20")
    ('Popular, 28 days', 'Hybrid 40/40/20')
    """
    parts = re.sub(r"(?<=\d)_(?=\d)", "/", model).split("_")
    words = [WORDS.get(part, re.sub(r"^(\d+)d$", r"\1 days", part)) for part in parts]
    if parts[-1] == "own" and len(parts) > 1:
        words[-1] = "with own purchases"
    if parts[0] in ("popular", "own") and len(parts) > 1:
        words[0] += ","
    text = " ".join(words).replace("co- ", "co-")
    return text[:1].upper() + text[1:]


def metric_label(metric: str, k: int) -> str:
    """A metric and its k: "Precision@5"."""
    return f"{LABELS.get(metric, metric)}@{k}"


def num(value: float | None) -> str:
    """Three significant digits with thousands separators; "–" where there is no value.

    >>> num(0.12345), num(12345), num(None)
    ('0.123', '12,300', '–')
    """
    if value is None or not np.isfinite(value):
        return "–"
    if float(value).is_integer() and abs(value) < 1000:
        return f"{value:.0f}"
    if 0 < abs(value) < 0.0005:
        return "< 0.001"
    rounded = float(f"{value:.3g}")
    magnitude = int(np.floor(np.log10(abs(rounded))))
    digits = min(5, 2 - magnitude)
    return f"{round(value, digits):,.{max(digits, 0)}f}"


def percent(share: float) -> str:
    """A share in percent; a no-break space holds number and sign together."""
    return f"{num(100 * share)}\u00a0%"


def seconds(value: float) -> str:
    """Seconds with two decimals below ten, three digits above."""
    if 0 < value < 0.01:
        return "< 0.01"
    if value < 10:
        return f"{value:.2f}"
    return num(value)


def money(value: float, currency: str) -> str:
    """An amount, the sign before the currency."""
    sign = "−" if value < 0 else ""
    return f"{sign}{currency}{num(abs(value))}"


def signed(value: float) -> str:
    """A difference with its sign.

    >>> signed(3.21), signed(-0.5), signed(0)
    ('+3.21', '−0.500', '0')
    """
    if value == 0:
        return "0"
    sign = "−" if value < 0 else "+"
    return f"{sign}{num(abs(value))}"
