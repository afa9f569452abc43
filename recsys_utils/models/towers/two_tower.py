"""Two towers on receipts: a retrieval model by ids, attributes and recent purchases."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils import parameters_to_vector

from recsys_utils import LabError
from recsys_utils.data.attributes import blocks, vocabulary
from recsys_utils.data.interactions import Interactions
from recsys_utils.models.base import Recommender, check_params, cosines, with_habits
from recsys_utils.models.torch_training import small_batches
from recsys_utils.models.towers.loop import epochs_of
from recsys_utils.models.towers.losses import Loss, pair_losses, without_twins
from recsys_utils.models.towers.retrieval import Retrieval, Vectors, features
from recsys_utils.models.towers.training import unbought

FADED = 0.02  # of the strongest: a weaker purchase is left out of a pooled history


@dataclass
class TwoTower(Recommender):
    """User tower: id, attributes and pooled past purchases; item tower: id and attributes.

    Score t·⟨u, v⟩ + item bias.

    It learns from `windows` stretches of `days` before the cut: what was bought within, from what
    was bought before ("before", as the lists are judged), or any purchase from all others of the
    user ("around", where nobody returns), or without a past ("none"). Purchases fade with `tau`
    days, in the past and as examples. loss: in-batch softmax corrected by log q (Yi et al. 2019),
    bce, bpr. own: adds so much of the decayed own purchases to scores standardised per user.
    tokens: how often a feature, or a user's id and past together, is hidden in training, so that
    the unknown is learnt too.
    """

    family: ClassVar[str] = "two tower"
    loss: Loss = "softmax"
    past: Literal["before", "around", "none"] = "before"
    similarity: Literal["cosine", "dot"] = "cosine"
    dim: int = 64
    hidden: int = 0
    windows: int = 8
    days: float = 21
    tau: float = 120
    epochs: int = 6
    learning_rate: float = 3e-3
    weight_decay: float = 1e-6
    batch_size: int = 512
    negatives: int = 4
    dropout: float = 0.1
    tokens: float = 0.25
    own: float = 0.0
    seed: int = 42

    def __post_init__(self) -> None:
        check_params(
            self,
            dim=(1, 4096),
            hidden=(0, 65_536),
            windows=(1, 10_000),
            days=(0.01, 100_000),
            tau=(0.01, 100_000),
            epochs=(1, 10_000),
            learning_rate=(0, 10),
            weight_decay=(0, 10),
            batch_size=(2, 1e7),
            negatives=(1, 1000),
            dropout=(0, 0.99),
            tokens=(0, 0.99),
            own=(0, 100),
        )

    def _fit(self, data: Interactions) -> None:
        self.user_vocab_ = vocabulary(data.users)
        self.item_vocab_ = vocabulary(data.items)
        self.taste_ = data.matrix(self.tau)
        people = self._user_codes(data)
        things = self._item_codes(data)
        with torch.random.fork_rng(devices=[]), small_batches():
            torch.manual_seed(self.seed)
            net = Retrieval(**self._shape(*data.shape))
            self.curve_ = self._train(net, data, people, things)
            self._keep(net.eval(), people, things)

    def _shape(self, users: int, items: int) -> dict:
        """The arguments of the network."""
        of_users = [block.stop - block.start for block in blocks(self.user_vocab_).values()]
        of_items = [block.stop - block.start for block in blocks(self.item_vocab_).values()]
        return {
            "user_sizes": [users + 1, *of_users],
            "item_sizes": [items + 1, *of_items],
            "dim": self.dim,
            "hidden": (self.hidden,) if self.hidden else (),
            "dropout": self.dropout,
            "tokens": self.tokens,
            "similarity": self.similarity,
        }

    def _user_codes(self, data: Interactions) -> Tensor:
        # Beside all purchases but one, an id that remembers them all would give the one away.
        return features(
            np.arange(1, data.shape[0] + 1) * (self.past != "around"), data.users, self.user_vocab_
        )

    def _item_codes(self, data: Interactions) -> Tensor:
        return features(
            np.where(data.sold, np.arange(1, data.shape[1] + 1), 0), data.items, self.item_vocab_
        )

    def _train(
        self, net: Retrieval, data: Interactions, people: Tensor, things: Tensor
    ) -> np.ndarray:
        """Adam with a rate that falls to zero; returns the mean loss of each epoch."""
        user, item, weight, past, row = self._examples(data)
        share = np.bincount(item, weight, data.shape[1])
        log_q = torch.as_tensor(np.log(np.maximum(share / share.sum(), 1e-9)), dtype=torch.float32)
        rng = np.random.default_rng(self.seed)
        optimizer = torch.optim.Adam(
            net.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay, fused=True
        )
        n_batches = -(-len(user) // self.batch_size)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max(self.learning_rate, 1e-12), total_steps=n_batches * self.epochs + 1
        )

        def batches(_: int) -> list[np.ndarray]:
            order = rng.permutation(len(user))
            return np.split(order, range(self.batch_size, len(order), self.batch_size))

        def loss(rows: np.ndarray) -> tuple[Tensor, Tensor]:
            u = user[rows]
            i = item[rows]
            before = past[row[rows]] if self.past != "around" else _without(past[row[rows]], i)
            is_stranger = rng.random(len(rows)) < self.tokens
            vectors = net.users(*_as_strangers(people[u], before, is_stranger))
            losses = self._losses(net, vectors, i, self._drawn(data, u, rng), things, log_q)
            w = torch.as_tensor(weight[rows], dtype=torch.float32)
            value = (losses * w).sum() / w.sum()
            return value, value

        curve = np.zeros(self.epochs)
        for epoch, losses in epochs_of(
            net, optimizer, self.epochs, batches, loss, schedule=schedule
        ):
            curve[epoch] = sum(value * size / len(user) for value, size in losses)
        return curve

    def _examples(
        self, data: Interactions
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, sparse.csr_matrix, np.ndarray]:
        """Users, items, weights, a matrix of pasts, and the row of it that each example has.

        All come from sorted matrices, so that their order is always the same.
        """
        if self.past != "before":
            cells = self.taste_.tocoo()
            past = _pooled(self.taste_ if self.past == "around" else 0 * self.taste_)
            return cells.row, cells.col, np.minimum(cells.data, 1), past, cells.row
        result = []
        pasts = []
        for n in range(self.windows):
            start = (n + 1) * self.days
            end = n * self.days
            cells = data.matrix(
                weights=((data.age < start) & (data.age >= end)).astype(float)
            ).tocoo()
            bought = cells.data > 0
            earlier = np.where(
                data.age >= start, np.exp(-np.maximum(data.age - start, 0) / self.tau), 0
            )
            pasts.append(_pooled(data.matrix(weights=earlier)))
            result.append(
                np.stack([cells.row[bought], cells.col[bought], np.full(bought.sum(), n)])
            )
        user, item, window = np.concatenate(result, axis=1)
        if not len(user):
            raise LabError(
                f"TwoTower found no purchase in the last {self.windows * self.days:g} days: raise"
                " windows or days"
            )
        return (
            user,
            item,
            np.exp(-window * self.days / self.tau),
            sparse.vstack(pasts, format="csr"),
            window * data.shape[0] + user,
        )

    def _drawn(
        self, data: Interactions, user: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray | None:
        """Negatives of each example, uniform over what the user never bought.

        None for the softmax, whose batch has them.
        """
        if self.loss == "softmax":
            return None
        free = data.shape[1] - np.diff(data.seen.indptr)[user][:, None]
        nth = rng.integers(0, np.maximum(free, 1), (len(user), self.negatives))
        # Who bought everything has none.
        return np.minimum(unbought(data.seen, user[:, None], nth), data.shape[1] - 1)

    def _losses(
        self,
        net: Retrieval,
        users: Tensor,
        item: np.ndarray,
        drawn: np.ndarray | None,
        things: Tensor,
        log_q: Tensor,
    ) -> Tensor:
        """(n,) loss of each example."""
        if drawn is None:
            vectors, bias = net.items(things[item])
            scores = users @ vectors.T + bias - log_q[item]
            alone = without_twins(scores, torch.as_tensor(item))
            return cross_entropy(alone, torch.arange(len(item)), reduction="none")
        vectors, bias = net.items(things[np.column_stack([item, drawn])])
        logits = (users[:, None] * vectors).sum(-1) + bias
        if self.loss == "bce":
            logits = logits + net.towers.b
        return pair_losses(logits, self.loss)

    @torch.no_grad()
    def _keep(self, net: Retrieval, people: Tensor, things: Tensor) -> None:
        past = _pooled(self.taste_ if self.past != "none" else 0 * self.taste_)
        self.user_vectors_ = np.concatenate(
            [
                net.users(people[at : at + 4096], past[at : at + 4096]).numpy()
                for at in range(0, len(people), 4096)
            ]
        )
        vectors, bias = net.items(things)
        self.item_vectors_ = vectors.numpy()
        self.item_bias_ = bias.numpy()
        self.network_ = parameters_to_vector(net.parameters()).numpy()

    def _scores(self, users: np.ndarray) -> np.ndarray:
        return with_habits(
            self.user_vectors_[users] @ self.item_vectors_.T + self.item_bias_,
            self.own,
            self.taste_[users],
        )

    def _cold_scores(self, profiles: pd.DataFrame) -> np.ndarray:
        return self.vectors().of_profiles(profiles)

    def vectors(self) -> Vectors:
        """What serving needs of the fitted towers."""
        return Vectors(
            self.user_ids_,
            self.item_ids_,
            self.user_vectors_,
            self.item_vectors_,
            self.item_bias_,
            self.recent_,
            self.user_vocab_,
            self.network_,
            self._shape(*self.taste_.shape),
        )

    def _similar(self, item: int) -> np.ndarray:
        return cosines(self.item_vectors_, item)


def _pooled(x: sparse.csr_matrix) -> sparse.csr_matrix:
    """Rows of unit length of the damped strengths, without what has faded."""
    x = x.tocsr().log1p()
    top = np.repeat(x.max(axis=1).toarray().ravel(), np.diff(x.indptr))
    x.data[x.data < FADED * top] = 0
    x.eliminate_zeros()
    norms = np.sqrt(np.asarray(x.multiply(x).sum(axis=1)).ravel())
    x.data = (x.data / np.repeat(np.maximum(norms, 1e-12), np.diff(x.indptr))).astype(np.float32)
    return x


def _as_strangers(
    codes: Tensor, past: sparse.csr_matrix, chosen: np.ndarray
) -> tuple[Tensor, sparse.csr_matrix]:
    """Some users without id and past, so that the tower learns what attributes alone say."""
    codes = codes.clone()
    past = past.copy()
    codes[torch.as_tensor(chosen), 0] = 0
    past.data[np.repeat(chosen, np.diff(past.indptr))] = 0
    return codes, past


def _without(past: sparse.csr_matrix, item: np.ndarray) -> sparse.csr_matrix:
    """Each row's past without one item: what is to be guessed must not be given."""
    past = past.copy()
    past.data[past.indices == np.repeat(item, np.diff(past.indptr))] = 0
    return past
