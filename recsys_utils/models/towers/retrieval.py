"""What serves lists of two towers: the network, and the vectors of a fitted model.

Training is in `towers.two_tower`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Self

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from torch import Tensor, nn
from torch.nn.utils import vector_to_parameters

from recsys_utils.data.attributes import blocks, codes, known
from recsys_utils.models.towers.network import TwoTowerHybrid


class Retrieval(nn.Module):
    """The two towers, with a user's purchases pooled into numbers of the user tower."""

    def __init__(
        self,
        user_sizes: list[int],
        item_sizes: list[int],
        dim: int,
        hidden: tuple[int, ...],
        dropout: float,
        tokens: float,
        similarity: str,
    ) -> None:
        super().__init__()
        self.pool = nn.EmbeddingBag(item_sizes[0], dim, mode="sum")
        nn.init.normal_(self.pool.weight, std=0.1)
        self.towers = TwoTowerHybrid(
            user_sizes, item_sizes, dim, dim, dim, hidden, (), dropout, tokens, similarity
        )
        with torch.no_grad():
            self.towers.log_t.fill_(np.log(8) if similarity == "cosine" else 0)

    def users(self, codes: Tensor, past: sparse.csr_matrix) -> Tensor:
        """(n, dim) vectors of users by their features and their weighted purchases."""
        pooled = self.pool(
            torch.as_tensor(past.indices, dtype=torch.int64),
            torch.as_tensor(past.indptr[:-1], dtype=torch.int64),
            per_sample_weights=torch.as_tensor(past.data, dtype=torch.float32),
        )
        return self.towers.users(codes, pooled)[0] * self.towers.log_t.exp()

    def items(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (…, dim) and biases (…,) of items by their features."""
        return self.towers.items(codes)[:2]


def features(ids: np.ndarray, frame: pd.DataFrame, vocab: np.ndarray) -> Tensor:
    """(n, 1 + columns) codes: the id, then each attribute within its column; 0 is unknown."""
    starts = np.array([s.start for s in blocks(vocab).values()], int)
    return torch.as_tensor(np.column_stack([ids, codes(frame, vocab) - starts]).astype(np.int64))


@dataclass
class Vectors:
    """Fitted towers, ready to list: users and items meet in one product of matrices.

    shape: the arguments of `Retrieval`, which tells strangers apart by their profiles.
    """

    user_ids: pd.Index
    item_ids: pd.Index
    users: np.ndarray  # (users, dim)
    items: np.ndarray  # (items, dim)
    bias: np.ndarray  # (items,)
    popular: np.ndarray  # (items,) recent purchases, for whom nothing is known
    vocab: np.ndarray  # features of users, as `attributes.vocabulary` tells them
    network: np.ndarray  # all weights, flat
    shape: dict

    @cached_property
    def net(self) -> Retrieval:
        """The towers with their weights."""
        net = Retrieval(**self.shape).eval()
        vector_to_parameters(torch.as_tensor(self.network), net.parameters())
        return net

    def of_users(self, rows: np.ndarray) -> np.ndarray:
        """(rows, items) scores of known users."""
        return self.users[rows] @ self.items.T + self.bias

    @torch.no_grad()
    def of_profiles(self, profiles: pd.DataFrame) -> np.ndarray:
        """(profiles, items) scores from attributes alone; NaN where none is known."""
        nobody = sparse.csr_matrix((len(profiles), len(self.item_ids)), dtype=np.float32)
        told = features(np.zeros(len(profiles), int), profiles, self.vocab)
        scores = self.net.users(told, nobody).numpy() @ self.items.T + self.bias
        return np.where(known(profiles, self.vocab)[:, None], scores, np.nan)

    def of_anybody(self, profiles: pd.DataFrame) -> np.ndarray:
        """(profiles, items) scores: of customers by id, of others by profile or popularity."""
        rows = self.user_ids.get_indexer(profiles.index.astype(str))
        is_known = rows >= 0
        scores = np.empty((len(profiles), len(self.item_ids)), np.float32)
        scores[is_known] = self.of_users(rows[is_known])
        if not is_known.all():
            told = self.of_profiles(profiles[~is_known])
            scores[~is_known] = np.where(np.isnan(told), self.popular, told)
        return scores

    def renamed(self, columns: Mapping[str, str], items: Mapping[str, str]) -> Self:
        """The same with other names for the columns of profiles and for the items."""
        vocab = self.vocab.astype(object)
        for column, block in blocks(self.vocab).items():
            new = columns.get(column, column)
            vocab[block] = [new + entry[len(column) :] for entry in self.vocab[block]]
        ids = pd.Index([items.get(item, item) for item in self.item_ids])
        return replace(self, vocab=vocab.astype(str), item_ids=ids)

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything but the shape, as a bundle keeps it."""
        names = [field.name for field in fields(self) if field.name != "shape"]
        result = {name: getattr(self, name) for name in names}
        for name in ("user_ids", "item_ids"):
            result[name] = result[name].to_numpy(str)
        return result

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray], shape: dict) -> Self:
        """Take back what `arrays` gave."""
        ids = {name: pd.Index(arrays[name].astype(object)) for name in ("user_ids", "item_ids")}
        return cls(**dict(arrays) | ids, shape=shape)
