"""How networks are trained here: on one thread, with numbers near zero taken for zero."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor


@contextmanager
def small_batches() -> Iterator[None]:
    """Settings for training in batches of some hundred rows.

    One thread, since a second one waits more than it works. Numbers below 1e-38 become zero: weight
    decay drives weights of idle units there, where a processor computes ten to a hundred times
    slower.
    """
    with threadpool_limits(1):
        torch.set_flush_denormal(True)
        try:
            yield
        finally:
            torch.set_flush_denormal(False)


def step(optimizer: torch.optim.Optimizer, loss: Tensor, clip: float | None = None) -> None:
    """One step down the gradient of a batch's loss. clip: the longest gradient that is allowed."""
    optimizer.zero_grad()
    loss.backward()
    if clip is not None:
        parameters = [each for group in optimizer.param_groups for each in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, clip)
    optimizer.step()
