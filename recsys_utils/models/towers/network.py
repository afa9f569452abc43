"""Two towers and what they read: the network and the encoder, all that serving needs.

Training is in `towers.training`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from recsys_utils import LabError
from recsys_utils.data.attributes import text

CUSTOMER = "Customer_ID"
PRODUCT = "products"
Sizes = Mapping[str, int] | Sequence[int]
SCALING = {"Total_Purchases": "min-max", "Amount": "log"}  # any other number is standardised


class Tower(nn.Module):
    """A tower: embeddings of columns of codes and scaled numbers go through an MLP to (n, dim)."""

    def __init__(
        self,
        sizes: Sequence[int],
        numbers: int,
        embedding: int,
        layers: Sequence[int],
        dropout: float,
        tokens: float,
    ) -> None:
        super().__init__()
        self.tokens = tokens
        self.register_buffer(
            "offset",
            torch.as_tensor(np.cumsum([0, *sizes[:-1]]), dtype=torch.int64),
            persistent=False,
        )
        self.embedding = nn.Embedding(sum(sizes), embedding)
        widths = [len(sizes) * embedding + numbers, *layers]
        parts = []
        for before, after in zip(widths[:-2], widths[1:]):
            parts += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
        self.mlp = nn.Sequential(*parts, nn.Linear(*widths[-2:]))
        self.bias = nn.Embedding(sum(sizes), 1)
        self.slope = nn.Linear(numbers, 1, bias=False) if numbers else None
        for weight in (w for w in self.parameters() if w.dim() > 1):
            nn.init.xavier_uniform_(weight)
        nn.init.zeros_(self.bias.weight)

    def places(self, codes: Tensor) -> Tensor:
        """Rows of the embedding table.

        In training a random code becomes 0, so that the unknown has a meaning of its own.
        """
        if self.training and self.tokens:
            codes = codes * (torch.rand(codes.shape, device=codes.device) >= self.tokens)
        return codes + self.offset

    def forward(
        self, codes: Tensor, numbers: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors (…, dim) and biases (…,) of (…, columns) codes and (…, numbers).

        The third value is the squared norm of the embeddings that were looked up.
        """
        places = self.places(codes)
        found = self.embedding(places)
        each = self.bias(places)
        bias = each.sum((-2, -1))
        norms = found.square().sum((-2, -1)) + each.square().sum((-2, -1))
        wide = found.flatten(-2)
        if self.slope is not None:
            wide = torch.cat([wide, numbers], -1)
            bias = bias + self.slope(numbers).squeeze(-1)
        return self.mlp(wide), bias, norms


class TwoTowerHybrid(nn.Module):
    """p = σ(t·⟨u, v⟩ + b), t > 0 and b learnt.

    The vectors u and v have unit length where the similarity is the cosine.

    user_cat_sizes, item_cat_sizes: values of each categorical column, the unknown (code 0)
    included. user_num_cols: names or number of the numerical columns. biases: adds what is liked,
    and who likes, whatever the match (as in biased factorisation).
    """

    def __init__(
        self,
        user_cat_sizes: Sizes,
        item_cat_sizes: Sizes,
        user_num_cols: Sequence[str] | int,
        embedding: int = 32,
        dim: int = 64,
        user_hidden: Sequence[int] = (128,),
        item_hidden: Sequence[int] = (),
        dropout: float = 0.1,
        tokens: float = 0.05,
        similarity: Literal["cosine", "dot"] = "cosine",
        biases: bool = True,
    ) -> None:
        super().__init__()
        if similarity not in ("cosine", "dot"):
            raise LabError(f"TwoTowerHybrid(similarity='{similarity}'): choose cosine, dot")
        users = _sizes(user_cat_sizes, "user_cat_sizes")
        items = _sizes(item_cat_sizes, "item_cat_sizes")
        numbers = user_num_cols if isinstance(user_num_cols, int) else len(user_num_cols)
        self.config = {
            "user_cat_sizes": users,
            "item_cat_sizes": items,
            "user_num_cols": numbers,
            "embedding": embedding,
            "dim": dim,
            "user_hidden": list(user_hidden),
            "item_hidden": list(item_hidden),
            "dropout": dropout,
            "tokens": tokens,
            "similarity": similarity,
            "biases": biases,
        }
        self.user_tower = Tower(users, numbers, embedding, [*user_hidden, dim], dropout, tokens)
        self.item_tower = Tower(items, 0, embedding, [*item_hidden, dim], dropout, tokens)
        self.log_t = nn.Parameter(torch.tensor(1.0))
        self.b = nn.Parameter(torch.tensor(0.0))

    def users(self, codes: Tensor, numbers: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors, biases, squared norms of users."""
        return self._side(*self.user_tower(codes, numbers))

    def items(self, codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors, biases, squared norms of items."""
        return self._side(*self.item_tower(codes))

    def logits(self, user: tuple, item: tuple) -> Tensor:
        """t·⟨u, v⟩ + b + biases of users and items whose shapes broadcast."""
        return self.log_t.exp() * (user[0] * item[0]).sum(-1) + self.b + user[1] + item[1]

    def matrix(self, user: tuple, item: tuple) -> Tensor:
        """Logits of every user with every item: (users, items)."""
        return self.log_t.exp() * user[0] @ item[0].T + self.b + user[1][:, None] + item[1][None, :]

    def forward(self, user_cat: Tensor, user_num: Tensor, item_cat: Tensor) -> Tensor:
        """p of each pair, in (0, 1)."""
        return torch.sigmoid(self.logits(self.users(user_cat, user_num), self.items(item_cat)))

    def _side(self, vectors: Tensor, bias: Tensor, norms: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        vectors = normalize(vectors, dim=-1) if self.config["similarity"] == "cosine" else vectors
        return vectors, bias if self.config["biases"] else torch.zeros_like(bias), norms


@dataclass
class Encoder:
    """Values as codes, 0 for the unknown, and numbers scaled.

    The first user column is the customer's id, the first item column the product's.

    scalers: x becomes (f(x) − centre) / scale within [low, high] of the train rows, f = log1p for
    kind "log"; missing becomes `fill`, the mean.
    """

    user_cat_cols: list[str]
    user_num_cols: list[str]
    item_cat_cols: list[str]
    mappings: dict[str, dict[str, int]]
    scalers: dict[str, dict]

    @classmethod
    def fit(
        cls,
        train: pd.DataFrame,
        user_cat_cols: Iterable[str],
        user_num_cols: Iterable[str],
        item_cat_cols: Iterable[str],
        scaling: Mapping[str, str] = SCALING,
    ) -> "Encoder":
        """Learn from train rows only."""
        users = list(user_cat_cols)
        numbers = list(user_num_cols)
        items = list(item_cat_cols)
        _require_first(users, "user_cat_cols", CUSTOMER)
        _require_first(items, "item_cat_cols", PRODUCT)
        if missing := [c for c in users + numbers + items if c not in train]:
            raise LabError(
                f"the transactions lack the column '{missing[0]}': they have"
                f" {', '.join(map(str, train.columns))}"
            )
        mappings = {
            c: {value: n for n, value in enumerate(sorted(set(text(train[c])) - {""}), 1)}
            for c in users + items
        }
        return cls(
            users,
            numbers,
            items,
            mappings,
            {c: _scaler(train[c], scaling.get(c, "standard")) for c in numbers},
        )

    @property
    def user_cat_sizes(self) -> dict[str, int]:
        """Values of each user column, the unknown included."""
        return {c: len(self.mappings[c]) + 1 for c in self.user_cat_cols}

    @property
    def item_cat_sizes(self) -> dict[str, int]:
        """Values of each item column, the unknown included."""
        return {c: len(self.mappings[c]) + 1 for c in self.item_cat_cols}

    def users(self, frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """(rows, columns) int64 codes and (rows, numbers) float32.

        A column that is not there is unknown.
        """
        result = [
            scaled(frame[c] if c in frame else pd.Series(np.nan, frame.index), self.scalers[c])
            for c in self.user_num_cols
        ]
        return self._codes(frame, self.user_cat_cols), (
            np.stack(result, 1) if result else np.zeros((len(frame), 0), np.float32)
        )

    def items(self, frame: pd.DataFrame) -> np.ndarray:
        """(rows, columns) int64 codes of items."""
        return self._codes(frame, self.item_cat_cols)

    def to_json(self) -> str:
        """Mappings, sizes, scalers and columns, for people and for `from_json`."""
        return json.dumps(
            asdict(self) | {"vocab_sizes": self.user_cat_sizes | self.item_cat_sizes},
            indent=1,
            sort_keys=True,
        )

    @classmethod
    def from_json(cls, content: str) -> "Encoder":
        """What `to_json` wrote."""
        values = json.loads(content)
        values.pop("vocab_sizes")
        return cls(**values)

    def _codes(self, frame: pd.DataFrame, columns: list[str]) -> np.ndarray:
        result = [
            (
                pd.Index(self.mappings[c]).get_indexer(text(frame[c])) + 1
                if c in frame
                else np.zeros(len(frame), int)
            )
            for c in columns
        ]
        return np.stack(result, 1).astype(np.int64)


def scaled(column: pd.Series, scaler: Mapping) -> np.ndarray:
    """Numbers of a column as the scaler has it, float32."""
    x = pd.to_numeric(column, errors="coerce").to_numpy(float)
    z = np.clip(
        (_bent(x, scaler["kind"]) - scaler["centre"]) / scaler["scale"],
        scaler["low"],
        scaler["high"],
    )
    return np.where(np.isnan(z), scaler["fill"], z).astype(np.float32)


def _scaler(column: pd.Series, kind: str) -> dict:
    x = _bent(pd.to_numeric(column, errors="coerce").dropna().to_numpy(float), kind)
    x = x if len(x) else np.zeros(1)
    centre, scale = (x.min(), np.ptp(x)) if kind == "min-max" else (x.mean(), x.std())
    scale = float(scale) or 1.0
    return {
        "kind": kind,
        "centre": float(centre),
        "scale": scale,
        "low": float((x.min() - centre) / scale),
        "high": float((x.max() - centre) / scale),
        "fill": float((x.mean() - centre) / scale),
    }


def _bent(x: np.ndarray, kind: str) -> np.ndarray:
    return np.log1p(np.maximum(x, 0)) if kind == "log" else x


def _sizes(sizes: Sizes, name: str) -> list[int]:
    result = [int(n) for n in (sizes.values() if isinstance(sizes, Mapping) else sizes)]
    if not result or min(result) < 1:
        raise LabError(
            f"{name} is {result}: give one column or more, each with 1 or more values (the unknown"
            " included)"
        )
    return result


def _require_first(columns: list[str], name: str, key: str) -> None:
    """The first column is the key of all histories: another one would mix people or products."""
    if not columns:
        raise LabError(f"{name} is empty: it begins with the id, such as {key}")
    if key in columns[1:]:
        raise LabError(f"{name} begins with {columns[0]}: put the id, {key}, first")
