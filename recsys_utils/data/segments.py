"""Spending segments: shoppers by the mean price of what they buy."""

import numpy as np

SPENDING = ("small", "low_average", "average", "high")
QUARTILES = (0.25, 0.5, 0.75)


def spending_bounds(mean_price: np.ndarray, shares: tuple[float, ...] = QUARTILES) -> np.ndarray:
    """(4,) upper bounds of the segments: quantiles of users' mean prices, none for the highest.

    mean_price: (users,) NaN where it is not known. Without any known price no bound holds anybody.
    """
    known = mean_price[~np.isnan(mean_price)]
    lower = np.quantile(known, shares) if len(known) else np.full(len(shares), np.inf)
    return np.append(lower, np.inf)


def spending_codes(
    mean_price: np.ndarray, bounds: np.ndarray, default: str = "average"
) -> np.ndarray:
    """Codes of SPENDING; an upper bound belongs to its segment, an unknown mean to the default.

    >>> spending_codes(np.array([1.0, 2.0, 9.0, np.nan]), np.array([1.0, 2.0, 3.0, np.inf]))
    array([0, 1, 3, 2])
    """
    codes = np.searchsorted(bounds[:-1], mean_price, side="left")
    return np.where(np.isnan(mean_price), SPENDING.index(default), codes)
