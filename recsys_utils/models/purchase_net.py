"""The network of progressive online.

Embeddings of shoppers and products, fully connected layers, and two outputs: interest, which orders
lists and learns from looks too, and the probability of purchase, which learns from outcomes alone.
It grows and keeps learning.
"""

import hashlib
import io
import json
import os
from collections.abc import Sequence
from copy import copy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, embedding
from tqdm import tqdm

from recsys_utils import LabError
from recsys_utils.data.interactions import codes, pair_ids
from recsys_utils.models.platt import Platt
from recsys_utils.models.torch_training import small_batches, step
from recsys_utils.store import atomic, model_path

# Numbers of one block of hidden layers when everything is scored: what a core keeps near.
BLOCK = 1 << 18
# Parameters of which there must be one.
COUNTS = (
    "dim",
    "hidden",
    "negatives",
    "batch_size",
    "epochs",
    "update_batch",
    "update_epochs",
)
KEY = 1 << 32  # user code × KEY + item code names a pair
# The interest that a look tells, where a purchase tells 1, while its outcome is open: the knob of
# notebook 12. The probability of purchase knows nothing of it.
INTEREST = 1.0
# Batches of an epoch's pairs, without negatives: a cold model has as many or more, an update as
# many or fewer.
STEPS = 48
VALID = 0.1  # share of the cold pairs that say when to stop
# Outcomes that those of the cold pairs weigh for the probability's next step at most: histories
# tell of few products that were passed over.
COLD = 30


def labels(
    events: pd.DataFrame, bought: pd.MultiIndex | None = None, interest: float = INTEREST
) -> pd.DataFrame:
    """(user_id, item_id, label, bought).

    One row per pair of events. label: of interest, 1 where it was ever purchased, in them or in
    `bought` before. bought: whether these events hold its purchase.

    One row per pair, so the views before a purchase do not contradict it. A pair that was not
    purchased has the label 0 if it was removed from the cart, else `interest`, as its outcome is
    open. For a window that is over it is 0.
    """
    kinds = pd.DataFrame(
        {
            "bought": events["event_type"] == "purchase",
            "removed": events["event_type"] == "remove_from_cart",
        }
    )
    pairs = kinds.groupby([events["user_id"].astype(str), events["item_id"].astype(str)]).any()
    is_bought = pairs["bought"] | (bought is not None and pairs.index.isin(bought))
    pairs["label"] = np.where(is_bought, 1.0, np.where(pairs["removed"], 0.0, interest))
    return pairs[["label", "bought"]].rename_axis(["user_id", "item_id"]).reset_index()


@dataclass
class PurchaseNet:
    """Interest of shoppers in products, z = w₂·relu(W₁[u, v] + b₁) + b₂ (He et al. 2017).

    u and v are the embeddings of shopper and product; z orders lists. P(purchase) = σ(slope · z +
    offset), with a slope above 0, is calibrated on what was bought and what was passed over
    (`Platt`): a view raises z, but does not move this calibration.

    Each purchase is trained with `negatives` random unseen pairs. `memory` pairs met so far, a
    uniform sample of all (Vitter 1985), are replayed 1:1 with every update, so that new pairs do
    not erase what was learnt.
    """

    dim: int = 32
    hidden: int = 64
    negatives: int = 4
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    batch_size: int = 1024
    epochs: int = 30
    patience: int = 2
    update_rate: float = 4e-4
    update_batch: int = 256
    update_epochs: int = 3
    memory: int = 50_000
    replay: bool = True

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < (least := int(name in COUNTS)):
                raise LabError(f"PurchaseNet({name}={value}): {name} takes {least} or more")

    @classmethod
    def cold(cls, pairs: pd.DataFrame, seed: int = 42, **params: object) -> Self:
        """Train from scratch on (user_id, item_id, label).

        Training ends when the loss of a tenth of the pairs, held out, stops falling. On this tenth
        the probability of purchase is calibrated. A column `bought` has the outcomes; where it is
        missing in a row, the row has no outcome. Without the column, bought is what has the label
        1.
        """
        net = cls(**params)
        if not len(pairs):
            raise LabError(
                "the cold model was given no pairs: train it on a history that has events"
            )
        rng = np.random.default_rng(seed)
        net.user_ids = _ids(np.unique(pairs["user_id"].astype(str)), "user_id")
        net.item_ids = _ids(np.unique(pairs["item_id"].astype(str)), "item_id")
        net.weights = {
            "user": rng.normal(0, 0.1, (len(net.user_ids), net.dim)),
            "item": rng.normal(0, 0.1, (len(net.item_ids), net.dim)),
            "w1": rng.normal(0, net.dim**-0.5, (2 * net.dim, net.hidden)),
            "b1": np.zeros(net.hidden),
            "w2": rng.normal(0, net.hidden**-0.5, net.hidden),
            "b2": np.zeros(1),
        }
        net.weights = {name: w.astype(np.float32) for name, w in net.weights.items()}
        net.met = 0
        net.kept = np.zeros((3, 0))
        coded, bought = net._coded(pairs)
        held_out = rng.random(coded.shape[1]) < VALID
        seen = _keys(*coded[:2])
        valid = net._beside_negatives(coded[:, held_out], seen, rng)
        # Few pairs need their steps too.
        batch = int(np.clip(coded.shape[1] // STEPS, 1, net.batch_size))
        learnt = coded[:, ~held_out]
        net.curve = net._descend(learnt, seen, rng, net.epochs, net.learning_rate, batch, valid)
        net._remember(coded, rng)
        net.platt = Platt().learnt(*net._outcomes(coded[:, held_out], bought[held_out]), COLD)
        return net

    def updated(self, pairs: pd.DataFrame, seed: int = 0) -> Self:
        """A new network that has also learnt `pairs`, beside as many remembered ones.

        New ids start as the mean of the known. This one stays. The probability of purchase learns
        the outcomes of `pairs` by the interest from before them, as it would be asked.
        """
        net = copy(self)
        if not len(pairs):
            return net
        rng = np.random.default_rng(seed)
        net.user_ids, net.weights = _grown(self.user_ids, self.weights, "user", pairs["user_id"])
        net.item_ids, net.weights = _grown(self.item_ids, net.weights, "item", pairs["item_id"])
        new, bought = net._coded(pairs)
        net.platt = self.platt.learnt(*net._outcomes(new, bought))
        net.kept = self.kept.copy()
        net._reconcile(new)
        seen = np.concatenate([_keys(*new[:2]), _keys(*net.kept[:2])])
        rows = np.concatenate([new, net._replayed(new, rng)], axis=1)
        # A flood of events takes no more steps than a busy night.
        batch = max(net.update_batch, rows.shape[1] // STEPS)
        net._descend(rows, seen, rng, net.update_epochs, net.update_rate, batch)
        net._remember(new, rng)
        return net

    def scores(self, user_ids: Sequence[str], item_ids: Sequence[str] | None = None) -> np.ndarray:
        """(n, items) float32 interest in all products or the named ones, σ(z): no probability.

        Unknown ids are the mean of the known.
        """
        w = self.with_mean()
        users = w["user"][self.user_ids.get_indexer(_ids(user_ids))]
        items = w["item"][:-1]
        if item_ids is not None:
            items = w["item"][self.item_ids.get_indexer(_ids(item_ids))]
        return torch.sigmoid(torch.as_tensor(interest_of_all(w, users, items))).numpy()

    def pairs(self, user_ids: Sequence[str], item_ids: Sequence[str]) -> np.ndarray:
        """(n,) float32 interest of pairs, σ(z); unknown ids are the mean of the known."""
        return torch.sigmoid(torch.as_tensor(self._of_pairs(user_ids, item_ids))).numpy()

    def purchase_probability(self, user_ids: Sequence[str], item_ids: Sequence[str]) -> np.ndarray:
        """(n,) probability that a shopper who comes across the product buys it.

        Within what one update learns, such as a day. NaN while the log has told only purchases, or
        none. Unknown ids are the mean of the known.
        """
        return self.platt.probability(self._of_pairs(user_ids, item_ids))

    def _of_pairs(self, user_ids: Sequence[str], item_ids: Sequence[str]) -> np.ndarray:
        """(n,) float32 interest z of pairs."""
        w = {name: torch.as_tensor(x) for name, x in self.with_mean().items()}
        # −1, the unknown, is the last row.
        user = self.user_ids.get_indexer(_ids(user_ids)) % len(w["user"])
        item = self.item_ids.get_indexer(_ids(item_ids)) % len(w["item"])
        with torch.no_grad():
            return _logits(w, torch.as_tensor(user), torch.as_tensor(item)).numpy()

    def loss(self, pairs: pd.DataFrame) -> float:
        """Mean binary cross-entropy of the interest in (user_id, item_id, label)."""
        p = np.clip(self.pairs(pairs["user_id"], pairs["item_id"]).astype(float), 1e-7, 1 - 1e-7)
        return float(-np.mean(np.where(pairs["label"] > 0, np.log(p), np.log1p(-p))))

    def save(self, folder: Path) -> str:
        """Write model-<digest>.npz, completely and to the disk before it has its name.

        Returns the digest, the SHA-256 of its bytes. Other files stay as they are.
        """
        about = {
            "params": asdict(self),
            "met": self.met,
            "platt": asdict(self.platt),
            "users": list(self.user_ids),
            "items": list(self.item_ids),
        }
        buffer = io.BytesIO()
        np.savez(
            buffer,
            **self.weights,
            kept=self.kept,
            about=np.frombuffer(json.dumps(about).encode(), np.uint8),
        )
        sha = hashlib.sha256(buffer.getbuffer()).hexdigest()
        with atomic(model_path(folder, sha)) as temporary, temporary.open("wb") as file:
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        return sha

    @classmethod
    def load(cls, folder: Path, sha: str) -> Self:
        """Read the file of a digest.

        One that is missing, changed or without a probability of purchase is refused by name.
        """
        path = model_path(folder, sha)
        content = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(content).hexdigest() != sha:
            raise LabError(
                f"{path} is missing or was changed after it was saved: train the cold model again"
            )
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = dict(file)
        about = json.loads(arrays.pop("about").tobytes())
        if "platt" not in about:
            raise LabError(
                f"{path} is of an older version, whose probability of purchase counted looks as"
                " purchases: train the cold model again"
            )
        net = cls(**about["params"])
        net.met = about["met"]
        net.platt = Platt(**about["platt"] | {"information": tuple(about["platt"]["information"])})
        net.kept = arrays.pop("kept")
        net.weights = arrays
        net.user_ids = _ids(about["users"], "user_id")
        net.item_ids = _ids(about["items"], "item_id")
        return net

    def _coded(self, pairs: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """(3, n) user codes, item codes, labels, in the order of the codes; (n,) bought, or NaN."""
        result = np.stack(
            [
                codes(pairs["user_id"], self.user_ids),
                codes(pairs["item_id"], self.item_ids),
                pairs["label"].to_numpy(),
            ]
        )
        order = np.lexsort(result[1::-1])
        bought = pairs["bought"] if "bought" in pairs else pairs["label"] == 1
        return result[:, order], bought.to_numpy(float)[order]

    def _outcomes(self, rows: np.ndarray, bought: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n,) interest z of the rows that tell an outcome, and whether they were bought."""
        told = ~np.isnan(bought)
        return self._interest(rows[:, told]), bought[told] > 0

    def _interest(self, rows: np.ndarray) -> np.ndarray:
        """(n,) float32 interest z of rows of user and item codes."""
        user, item = torch.as_tensor(rows[:2].astype(np.int64))
        with torch.no_grad():
            return _logits({n: torch.as_tensor(w) for n, w in self.weights.items()}, user, item)

    def _descend(
        self,
        pairs: np.ndarray,
        seen: np.ndarray,
        rng: np.random.Generator,
        epochs: int,
        rate: float,
        batch: int,
        valid: np.ndarray | None = None,
    ) -> list[float]:
        """Train on the pairs of shoppers by Adam, with fresh negatives each epoch.

        With `valid` it keeps the best epoch. Returns the losses on `valid` by epoch.
        """
        users = np.unique(pairs[0]).astype(np.int64)
        curve = []
        best = self.weights
        tables = {
            name: torch.tensor(w[users] if name == "user" else w, requires_grad=True)
            for name, w in self.weights.items()
        }
        optimizer = torch.optim.Adam(
            tables.values(), lr=rate, weight_decay=self.weight_decay, fused=True
        )
        with small_batches():
            for _ in tqdm(
                range(epochs),
                desc="purchase network",
                leave=False,
                disable=None if valid is not None else True,
            ):
                self._epoch(
                    tables, users, self._beside_negatives(pairs, seen, rng), batch, optimizer, rng
                )
                self._put(tables, users)
                curve.append(self._bce(valid) if valid is not None else 0.0)
                best = self.weights if curve[-1] == min(curve) or valid is None else best
                if valid is not None and len(curve) - 1 - int(np.argmin(curve)) >= self.patience:
                    break
        self.weights = best
        return curve

    def _epoch(
        self,
        tables: dict,
        users: np.ndarray,
        rows: np.ndarray,
        batch: int,
        optimizer: torch.optim.Optimizer,
        rng: np.random.Generator,
    ) -> None:
        user = np.searchsorted(users, rows[0])
        item = rows[1].astype(np.int64)
        goal = rows[2].astype(np.float32)
        weight = rows[3].astype(np.float32)
        for at in np.split(rng.permutation(len(user)), range(batch, len(user), batch)):
            logits = _logits(tables, torch.as_tensor(user[at]), torch.as_tensor(item[at]))
            loss = binary_cross_entropy_with_logits(
                logits, torch.as_tensor(goal[at]), torch.as_tensor(weight[at])
            )
            step(optimizer, loss)

    def _beside_negatives(
        self, pairs: np.ndarray, seen: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """(4, n) users, items, goals, weights.

        The pairs and, for each that is part of a purchase, up to `negatives` random products not
        `seen` with its shopper. These weigh what it weighs: were a look worth less than its
        negatives, every update would lower all.
        """
        part = pairs[:, pairs[2] > 0]
        user, weight = np.repeat(part[[0, 2]], self.negatives, axis=1)
        item = rng.integers(0, len(self.item_ids), len(user))
        unseen = ~np.isin(_keys(user, item), seen)
        rows = np.stack([pairs[0], pairs[1], pairs[2] > 0, np.where(pairs[2] > 0, pairs[2], 1)])
        return np.concatenate(
            [rows, np.stack([user, item, np.zeros_like(user), weight])[:, unseen]], axis=1
        )

    def _put(self, tables: dict[str, torch.Tensor], users: np.ndarray) -> None:
        result = {name: t.detach().numpy().copy() for name, t in tables.items()}
        everyone = self.weights["user"].copy()
        everyone[users] = result["user"]
        self.weights = result | {"user": everyone}

    def _bce(self, rows: np.ndarray) -> float:
        goal, weight = torch.as_tensor(rows[2:], dtype=torch.float32)
        return float(binary_cross_entropy_with_logits(self._interest(rows), goal, weight))

    def _reconcile(self, new: np.ndarray) -> None:
        """Give each pair one label.

        Purchased once is purchased for ever, among remembered and new pairs.
        """
        old = _keys(*self.kept[:2])
        now = _keys(*new[:2])
        self.kept[2] = np.maximum(self.kept[2], np.isin(old, now[new[2] == 1]))
        new[2] = np.maximum(new[2], np.isin(now, old[self.kept[2] == 1]))

    def _replayed(self, new: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """As many remembered pairs as new ones, without those that are new."""
        free = np.flatnonzero(~np.isin(_keys(*self.kept[:2]), _keys(*new[:2])))
        count = min(len(free), new.shape[1]) if self.replay else 0
        return self.kept[:, rng.choice(free, count, replace=False)]

    def _remember(self, new: np.ndarray, rng: np.random.Generator) -> None:
        """Reservoir sampling: pair t takes a random place of t, if the memory has it."""
        new = new[:, ~np.isin(_keys(*new[:2]), _keys(*self.kept[:2]))]
        new = new[:, rng.permutation(new.shape[1])]
        room = self.memory - self.kept.shape[1]
        self.kept = np.concatenate([self.kept, new[:, :room]], axis=1)
        late = new[:, room:]
        place = rng.integers(0, self.met + room + 1 + np.arange(late.shape[1]))
        self.kept[:, place[place < self.memory]] = late[:, place < self.memory]
        self.met += new.shape[1]

    def with_mean(self) -> dict[str, np.ndarray]:
        """The weights, each table of embeddings with its mean as the last row.

        The code −1 of an unknown id finds it there.
        """
        return self.weights | {
            name: np.vstack([self.weights[name], self.weights[name].mean(axis=0)])
            for name in ("user", "item")
        }


def interest_of_all(
    weights: dict[str, np.ndarray], users: np.ndarray, items: np.ndarray
) -> np.ndarray:
    """(users, items) float32 interest z of every pair of two tables of embeddings."""
    w = {name: torch.as_tensor(x) for name, x in weights.items()}
    dim = users.shape[1]
    # once per id, not once per pair
    left = torch.as_tensor(users) @ w["w1"][:dim]
    right = torch.as_tensor(items) @ w["w1"][dim:] + w["b1"]
    size = max(1, BLOCK // max(right.numel(), 1))
    return np.concatenate(
        [
            (torch.relu_(left[at : at + size, None] + right) @ w["w2"] + w["b2"]).numpy()
            for at in range(0, len(left), size)
        ]
        or [np.zeros((0, len(items)), np.float32)]
    )


def _logits(
    tables: dict[str, torch.Tensor], user: torch.Tensor, item: torch.Tensor
) -> torch.Tensor:
    # Its gradient is far faster than an index's.
    both = torch.cat([embedding(user, tables["user"]), embedding(item, tables["item"])], dim=1)
    return torch.relu(both @ tables["w1"] + tables["b1"]) @ tables["w2"] + tables["b2"]


def _grown(
    known: pd.Index, weights: dict[str, np.ndarray], name: str, ids: pd.Series
) -> tuple[pd.Index, dict[str, np.ndarray]]:
    """Ids with the unknown ones appended in their order, whose embeddings begin as the mean."""
    new = _ids(np.unique(ids.astype(str))).difference(known)
    rows = np.repeat(weights[name].mean(axis=0, keepdims=True), len(new), axis=0)
    return known.append(new).rename(known.name), weights | {
        name: np.concatenate([weights[name], rows])
    }


def _ids(values: Sequence[str], name: str | None = None) -> pd.Index:
    return pd.Index(values, dtype=object, name=name)


def _keys(user: np.ndarray, item: np.ndarray) -> np.ndarray:
    return pair_ids(user, item.astype(np.int64), KEY)
