"""The training loop of both kinds of towers: epochs, batches, and one step for each batch."""

from collections.abc import Callable, Iterable, Iterator, Sized

import torch
from torch import Tensor, nn
from tqdm import tqdm

from recsys_utils.models.torch_training import step

Batch = Sized  # which examples, as numbers
Losses = list[tuple[float, int]]  # mean loss and size of each batch


def epochs_of(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    epochs: int,
    batches: Callable[[int], Iterable[Batch]],
    loss: Callable[[Batch], tuple[Tensor, Tensor]],
    *,
    schedule: torch.optim.lr_scheduler.LRScheduler | None = None,
    longest: float | None = None,
) -> Iterator[tuple[int, Losses]]:
    """Train, and after each epoch give its number and the losses of its batches.

    Whoever breaks off the iteration stops the training early.

    batches: the batches of an epoch, by its number from 0.
    loss: of a batch, twice: what is reported, and what is made smaller (with penalties).
    schedule: of the rate, by batch.
    longest: a longer gradient is cut to this length.
    """
    for epoch in tqdm(range(epochs), desc="towers", leave=False, disable=None):
        model.train()
        losses = []
        for batch in batches(epoch):
            losses.append((_step(optimizer, batch, loss, longest), len(batch)))
            if schedule is not None:
                schedule.step()
        yield epoch, losses


def mean_loss(losses: Losses) -> float:
    """Mean over examples: a batch counts by its size."""
    total = sum(value * size for value, size in losses)
    return total / sum(size for _, size in losses)


@torch.enable_grad()
def _step(
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    loss: Callable[[Batch], tuple[Tensor, Tensor]],
    longest: float | None,
) -> float:
    """One step of the optimiser; the loss before it."""
    reported, minimised = loss(batch)
    step(optimizer, minimised, clip=longest)
    return reported.item()
