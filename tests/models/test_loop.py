"""The training loop, worked by hand: a model of one weight w whose loss is w times the mean of x.

Its gradient is the mean of x, and plain gradient descent at rate 1 takes that away from w.
"""

import pytest
import torch
from torch import Tensor, nn

from recsys_utils.models.towers.loop import epochs_of, mean_loss

X = torch.tensor([1.0, 2.0, 3.0])
ROWS = (torch.tensor([0, 1]), torch.tensor([2]))  # means 1.5 and 3


class OneWeight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(1.0))

    def loss(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        value = self.w * X[rows].mean()
        return value, value


@pytest.fixture
def model() -> OneWeight:
    return OneWeight().eval()


@pytest.fixture
def optimizer(model: OneWeight) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=1)


def test_a_step_for_each_batch(model: OneWeight, optimizer: torch.optim.Optimizer) -> None:
    """w: 1, then 1 − 1.5, then −0.5 − 3."""
    [(epoch, losses)] = epochs_of(model, optimizer, 1, lambda _: ROWS, model.loss)
    assert epoch == 0
    assert losses == [(1.5, 2), (-1.5, 1)]
    assert model.w.item() == -3.5
    assert model.training
    assert mean_loss(losses) == (2 * 1.5 - 1.5) / 3


def test_a_long_gradient_is_cut(model: OneWeight, optimizer: torch.optim.Optimizer) -> None:
    """Both gradients are longer than 1. w: 1, 0, −1."""
    list(epochs_of(model, optimizer, 1, lambda _: ROWS, model.loss, longest=1))
    assert model.w.item() == pytest.approx(-1, abs=1e-5)


def test_what_is_minimised_may_be_more_than_what_is_reported(
    model: OneWeight, optimizer: torch.optim.Optimizer
) -> None:
    """With the penalty w² at w = 1 the gradient is 1.5 + 2."""

    def with_penalty(rows: Tensor) -> tuple[Tensor, Tensor]:
        value, _ = model.loss(rows)
        return value, value + model.w**2

    [(_, losses)] = epochs_of(model, optimizer, 1, lambda _: ROWS[:1], with_penalty)
    assert losses == [(1.5, 2)]
    assert model.w.item() == 1 - 3.5


def test_the_rate_changes_by_batch(model: OneWeight, optimizer: torch.optim.Optimizer) -> None:
    """Rates 1 and 1/2. w: 1, −0.5, −2."""
    halved = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    list(epochs_of(model, optimizer, 1, lambda _: ROWS, model.loss, schedule=halved))
    assert model.w.item() == -2
    assert halved.get_last_lr() == [0.25]


def test_who_breaks_off_stops_early(model: OneWeight, optimizer: torch.optim.Optimizer) -> None:
    asked = []

    def batches(epoch: int) -> tuple[Tensor, ...]:
        asked.append(epoch)
        return ROWS

    for epoch, _ in epochs_of(model, optimizer, 9, batches, model.loss):
        model.eval()  # as for a validation between epochs
        if epoch == 1:
            break
    assert asked == [0, 1]
    assert model.w.item() == 1 - 2 * 4.5
