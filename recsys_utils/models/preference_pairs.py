"""Preference pairs: a small neural ranker that learns from which product was bought more.

Users' attributes serve those without history.
"""

from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from recsys_utils import LabError
from recsys_utils.data.attributes import hot, known, vocabulary
from recsys_utils.data.interactions import Interactions
from recsys_utils.models.base import Recommender, check_params, cosines, with_habits
from recsys_utils.models.preferences import Pairs, Signal, preferences
from recsys_utils.models.torch_training import small_batches, step

METADATA = ("segment", "country", "gender")  # age is never a feature
CHUNK = 65_536  # pairs judged at once
Parts = Literal["both", "cf", "content"]


def pairwise_loss(gap: torch.Tensor) -> torch.Tensor:
    """Mean softplus(−gap) of score(preferred) − score(dispreferred).

    The loss of BPR (Rendle et al. 2009).
    """
    return F.softplus(-gap).mean()


def kl_loss(gap: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Mean KL(p_ref ‖ p) of the softmax over a pair's two items, from both gaps.

    No gradient reaches the reference.
    """
    reference = reference.detach()
    p = F.logsigmoid(torch.stack([gap, -gap], dim=-1))
    p_ref = F.logsigmoid(torch.stack([reference, -reference], dim=-1))
    return F.kl_div(p, p_ref, log_target=True, reduction="sum") / len(gap)


class PreferenceNet(nn.Module):
    """score(u, i) = ⟨id embedding + MLP(metadata), item embedding⟩."""

    def __init__(
        self,
        users: int,
        items: int,
        features: int,
        dim: int = 16,
        hidden: int = 32,
        parts: Parts = "both",
    ) -> None:
        super().__init__()
        self.ids = nn.Embedding(users if parts != "content" else 0, dim)
        self.item = nn.Embedding(items, dim)
        self.tower = (
            nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, dim))
            if features and parts != "cf"
            else None
        )
        for table in (self.ids, self.item):
            nn.init.normal_(table.weight, std=0.01)

    def represent(self, user: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """(n, dim) users: id, metadata or their sum.

        user: (n,) codes; features: (n, vocabulary) float32.
        """
        result = [self.ids(user)] if len(self.ids.weight) else []
        return sum(result + ([self.tower(features)] if self.tower else []))

    def forward(
        self, user: torch.Tensor, features: torch.Tensor, above: torch.Tensor, below: torch.Tensor
    ) -> torch.Tensor:
        """(n,) gaps between the scores of the preferred and the other item."""
        return (self.represent(user, features) * (self.item(above) - self.item(below))).sum(dim=-1)


@dataclass
class PreferencePairs(Recommender):
    """Preference pairs: learn from what a client bought more of, score by a dot product.

    Metadata stands in for clients without history.

    The defaults are the system's own, in which an unbought item is never the worse one. negatives:
    per kept product, so many more pairs with a random item of which the client bought nothing. own:
    adds so much of the decayed (`tau`) own purchases to scores standardised per client.
    pairs_per_epoch: a random draw of the pairs where there are more. held: share of the pairs for
    the validation loss. patience: stop after so many epochs in which that did not fall, and keep
    the best.
    """

    family: ClassVar[str] = "preference pairs"
    signal: Signal = "quantity"
    top_items: int = 50
    max_pairs_per_user: int | None = None
    pairs_per_epoch: int | None = 200_000
    negatives: int = 0
    tau: float | None = None
    parts: Parts = "both"
    dim: int = 16
    hidden: int = 32
    alpha: float = 0.05
    reference: Literal["start", "best"] = "start"
    learning_rate: float = 1e-3
    batch_size: int = 512
    epochs: int = 10
    patience: int | None = None
    held: float = 0.2
    own: float = 0.0
    seed: int = 42

    def __post_init__(self) -> None:
        check_params(
            self,
            top_items=(1, 1e6),
            max_pairs_per_user=(1, 1e9),
            pairs_per_epoch=(0, 1e12),
            negatives=(0, 1000),
            tau=(0.01, 100_000),
            dim=(1, 4096),
            hidden=(1, 65_536),
            alpha=(0, 1000),
            learning_rate=(0, 10),
            batch_size=(1, 1e9),
            epochs=(1, 10_000),
            patience=(1, 10_000),
            held=(0, 0.9),
            own=(0, 1000),
        )

    @property
    def best_epoch(self) -> int:
        """The epoch (from 1) with the lowest validation loss."""
        return int(np.argmin(self.curves_[:, 1])) + 1

    def _fit(self, data: Interactions) -> None:
        self.vocabulary_ = vocabulary(data.users, METADATA)
        if self.parts == "content" and not len(self.vocabulary_):
            raise LabError(
                f"PreferencePairs(parts='content') needs {', '.join(METADATA)} of users, and there"
                " is none: take parts='cf'"
            )
        features = torch.from_numpy(hot(data.users, self.vocabulary_).toarray())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            net = PreferenceNet(
                *data.shape, len(self.vocabulary_), self.dim, self.hidden, self.parts
            )
        with small_batches():
            self.curves_ = self._train(net, features, _Sampler(self, data))
        self._keep(net, features)
        self.own_ = data.matrix(self.tau)

    def _train(self, net: PreferenceNet, features: torch.Tensor, sampler: "_Sampler") -> np.ndarray:
        """(epochs, 2) float32: mean pairwise loss of the training pairs and of the held-out pairs.

        The first is measured while the pairs are learnt.
        """
        optimiser = torch.optim.Adam(net.parameters(), self.learning_rate, fused=True)
        reference = deepcopy(net)
        best = deepcopy(net)
        curves = np.zeros((0, 2), np.float32)
        for _ in tqdm(range(self.epochs), desc="epochs", leave=False, disable=None):
            loss = self._epoch(
                net, reference, features, optimiser, torch.from_numpy(sampler.epoch())
            )
            curves = np.append(
                curves,
                np.float32([[loss, _judge(net, features, torch.from_numpy(sampler.held))]]),
                axis=0,
            )
            since = len(curves) - 1 - np.argmin(curves[:, 1])
            if since == 0:
                best = deepcopy(net)
                reference = best if self.reference == "best" else reference
            elif self.patience and since >= self.patience:
                break
        if self.patience:
            net.load_state_dict(best.state_dict())
        return curves

    def _epoch(
        self,
        net: PreferenceNet,
        reference: PreferenceNet,
        features: torch.Tensor,
        optimiser: torch.optim.Adam,
        chosen: torch.Tensor,
    ) -> float:
        """One pass over (3, n) pairs in batches; the mean pairwise loss."""
        total = 0.0
        for user, above, below in chosen.split(self.batch_size, dim=1):
            gap = net(user, features[user], above, below)
            loss = pairwise_loss(gap)
            total += loss.item() * len(gap)
            if self.alpha:
                with torch.no_grad():
                    before = reference(user, features[user], above, below)
                loss = loss + self.alpha * kl_loss(gap, before)
            step(optimiser, loss)
        return total / max(chosen.shape[1], 1)

    def _keep(self, net: PreferenceNet, features: torch.Tensor) -> None:
        """Keep the learnt arrays.

        Where there was no pair, and so no loss, every score is 0: popularity decides.
        """
        with torch.no_grad():
            self.users_ = net.represent(torch.arange(len(features)), features).numpy()
        self.items_ = net.item.weight.detach().numpy() * (self.curves_[0, 0] > 0)
        tower = net.tower.state_dict().values() if net.tower else [torch.zeros(0)] * 4
        self.weights1_, self.bias1_, self.weights2_, self.bias2_ = (w.numpy() for w in tower)

    def _scores(self, users: np.ndarray) -> np.ndarray:
        return with_habits(self.users_[users] @ self.items_.T, self.own, self.own_[users])

    def _cold_scores(self, profiles: pd.DataFrame) -> np.ndarray:
        """Content alone: the id embedding is 0.

        A client of whom every attribute is unknown has none.
        """
        if not self.weights1_.size:
            return np.full((len(profiles), len(self.item_ids_)), np.nan, np.float32)
        scores = self._content(profiles) @ self.items_.T
        scores[~known(profiles, self.vocabulary_)] = np.nan
        return scores

    def _content(self, profiles: pd.DataFrame) -> np.ndarray:
        """(profiles, dim) what the metadata tower makes of attributes."""
        inner = np.maximum(hot(profiles, self.vocabulary_) @ self.weights1_.T + self.bias1_, 0)
        return inner @ self.weights2_.T + self.bias2_

    def _similar(self, item: int) -> np.ndarray:
        return cosines(self.items_, item)


class _Sampler:
    """The pairs of each epoch and the held-out ones, from one seeded generator."""

    def __init__(self, model: PreferencePairs, data: Interactions) -> None:
        self.rng = np.random.default_rng(model.seed)
        self.model = model
        self.seen = data.seen
        self.all = Pairs.of(preferences(data, model.signal, model.top_items, model.tau))
        held, self.numbers = self._split(self.all.numbers(model.max_pairs_per_user, model.seed))
        held_cells, self.cells = self._split(np.arange(len(self.all.user)))
        self.weight = np.asarray(
            data.matrix(model.tau)[self.all.user, self.all.item], float
        ).ravel()
        self.held = np.concatenate(
            [self.all.take(held[: model.pairs_per_epoch]), self._unbought(held_cells)], axis=1
        )

    def epoch(self) -> np.ndarray:
        """(3, n) int64: the pairs of an epoch in random order.

        They are the training pairs, or `pairs_per_epoch` of them, and fresh negatives.
        """
        size = len(self.numbers)
        most = self.model.pairs_per_epoch
        chosen = (
            self.numbers
            if most is None or size <= most
            else self.numbers[self.rng.integers(size, size=most)]
        )
        result = np.concatenate([self.all.take(chosen), self._unbought(self.cells)], axis=1)
        return result[:, self.rng.permutation(result.shape[1])]

    def _split(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mixed = self.rng.permutation(numbers)
        return (
            mixed[: int(self.model.held * len(mixed))],
            mixed[int(self.model.held * len(mixed)) :],
        )

    def _unbought(self, cells: np.ndarray) -> np.ndarray:
        """(3, n): kept products, each as often as it was bought, above random ones.

        Pairs whose random product the client did buy are dropped.
        """
        size = len(cells) * self.model.negatives
        ends = np.cumsum(self.weight[cells])
        if not size:
            return np.zeros((3, 0), np.int64)
        drawn = cells[np.searchsorted(ends, self.rng.random(size) * ends[-1], side="right")]
        user = self.all.user[drawn]
        other = self.rng.integers(self.seen.shape[1], size=size)
        return np.stack([user, self.all.item[drawn], other])[
            :, np.asarray(self.seen[user, other]).ravel() == 0
        ]


def _judge(net: PreferenceNet, features: torch.Tensor, held: torch.Tensor) -> float:
    """Mean pairwise loss; NaN where nothing was held out."""
    with torch.no_grad():
        gaps = [
            net(user, features[user], above, below)
            for user, above, below in held.split(CHUNK, dim=1)
        ]
    return pairwise_loss(torch.cat(gaps)).item() if held.shape[1] else np.nan
