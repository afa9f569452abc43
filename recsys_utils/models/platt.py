"""From a score to a probability of purchase: Platt's line, learnt from outcomes alone."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

LEAST_SLOPE = 0.01  # the probability rises with the score, always
FADE = 0.9  # what an update leaves of the weight of all outcomes before it
START = (1.0, 0.0, 1.0)  # information that slope 1 and offset 0 stand for: next to none


@dataclass(frozen=True)
class Platt:
    """P(purchase | score z) = σ(slope · z + offset) (Platt 1999), learnt online.

    Of the products that a shopper comes across, in a view, a cart or a purchase, it is the share
    that is bought before the piece of the log ends, such as a day. bought, passed: outcomes learnt
    so far, with a purchase and without one. information: what they tell of slope², of slope times
    offset, of offset²; it fades, so that the line follows the shop in small steps.

    >>> line = Platt().learnt(np.array([2.0, 2.0, 2.0, -1.0] * 99), np.array([1, 0, 0, 0] * 99))
    >>> line.probability(np.array([2.0])).round(1).tolist()
    [0.3]
    """

    slope: float = 1.0
    offset: float = 0.0
    bought: int = 0
    passed: int = 0
    information: tuple[float, float, float] = START

    @property
    def is_told(self) -> bool:
        """Whether there were outcomes of both kinds: without them nothing tells a probability."""
        return bool(self.bought and self.passed)

    def probability(self, z: np.ndarray) -> np.ndarray:
        """(n,) P(purchase) of scores, NaN while only one kind of outcome is known."""
        z = np.asarray(z, float)
        return expit(self.slope * z + self.offset) if self.is_told else np.full(z.shape, np.nan)

    def learnt(self, z: np.ndarray, bought: np.ndarray, most: float = np.inf) -> Self:
        """The line after more outcomes: the likeliest for them and for what is known before.

        z, bought: (n,) scores and whether a purchase followed. most: so many outcomes they may
        weigh for what is learnt next.
        """
        x = np.stack([np.asarray(z, float), np.ones(len(z))], axis=1)
        y = np.asarray(bought, bool)
        if not len(y):
            return self
        old = np.array([self.slope, self.offset])
        both, cross, one = self.information
        known = np.array([[both, cross], [cross, one]])

        def loss(line: np.ndarray) -> tuple[float, np.ndarray]:
            logit = x @ line
            away = line - old
            value = np.sum(np.logaddexp(0, logit) - y * logit) + away @ known @ away / 2
            return value, (expit(logit) - y) @ x + known @ away

        bounds = [(LEAST_SLOPE, None), (None, None)]
        line = minimize(loss, old, jac=True, method="L-BFGS-B", bounds=bounds).x
        p = expit(x @ line)
        told = (x * (p * (1 - p))[:, None]).T @ x * min(1, most / len(y))
        known = FADE * (known + told)
        return type(self)(
            *map(float, line),
            self.bought + int(y.sum()),
            self.passed + int((~y).sum()),
            (float(known[0, 0]), float(known[0, 1]), float(known[1, 1])),
        )
