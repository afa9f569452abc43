"""Training of the two towers: examples with sampled negatives, losses, and what is saved."""

import logging
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset

from recsys_utils import LabError
from recsys_utils.data.attributes import text
from recsys_utils.models.torch_training import small_batches
from recsys_utils.models.towers.loop import epochs_of, mean_loss
from recsys_utils.models.towers.losses import Loss, pair_losses, without_twins
from recsys_utils.models.towers.network import Encoder, Sizes, TwoTowerHybrid

CUTS = (0.70, 0.85)  # of the rows' dates: train | val | test
NEGATIVE_RATING = 0.2  # soft label of what was never bought, in rating mode: 1.8 stars
NAMES = {
    "user_id": "Customer_ID",
    "ts": "Date",
    "rating": "Ratings",
    "age": "Age",
    "gender": "Gender",
    "country": "Country",
    "city": "City",
    "state": "State",
    "income": "Income",
    "segment": "Customer_Segment",
    "feedback": "Feedback",
    "shipping_method": "Shipping_Method",
    "payment_method": "Payment_Method",
    "order_status": "Order_Status",
    "total_purchases": "Total_Purchases",
    "amount": "Amount",
    "category": "Product_Category",
    "brand": "Product_Brand",
    "type": "Product_Type",
}
USER_NUM_COLS = ("Age", "Total_Purchases", "Amount")
# What a transaction itself decides: it enters with its value before the row to be predicted.
TRANSACTION_COLS = (
    "Feedback",
    "Shipping_Method",
    "Payment_Method",
    "Order_Status",
    "Total_Purchases",
    "Amount",
)
log = logging.getLogger(__name__)


class TwoTowerDataset(Dataset):
    """Positives, each followed by k sampled negatives.

    An entry is (user codes, user numbers, item codes, label).

    user, item: (n,) codes of the positives, item −1 if not in the catalogue. user_cat, user_num,
    item_cat: their features. catalogue: (items, columns) features of what a negative may be.
    bought: users × items CSR, never drawn (default: the positives). ratings: 1 to 5, for soft
    labels (r − 1) / 4. `redraw(epoch)` takes other negatives, the same ones for the same seed and
    epoch. A user who bought the whole catalogue has no negatives and is left out.
    """

    def __init__(
        self,
        user: np.ndarray,
        item: np.ndarray,
        user_cat: np.ndarray,
        user_num: np.ndarray,
        item_cat: np.ndarray,
        catalogue: np.ndarray,
        *,
        ratings: np.ndarray | None = None,
        negatives: int = 4,
        bought: sparse.csr_matrix | None = None,
        seed: int = 42,
    ) -> None:
        if negatives < 0:
            raise LabError(f"negatives is {negatives}: take 0 or more per positive")
        if bought is None:
            inside = item >= 0
            bought = sparse.csr_matrix(
                (np.ones(inside.sum()), (user[inside], item[inside])),
                shape=(user.max(initial=0) + 1, len(catalogue)),
            )
        bought.sum_duplicates()
        self.free = len(catalogue) - np.diff(bought.indptr)
        kept = np.flatnonzero(self.free[user] > 0) if negatives else np.arange(len(user))
        self.user = user[kept]
        self.item = item[kept]
        self.bought = bought
        self.negatives = negatives
        self.seed = seed
        self.user_cat = torch.as_tensor(user_cat[kept], dtype=torch.int64)
        self.item_cat = torch.as_tensor(item_cat[kept], dtype=torch.int64)
        self.catalogue = torch.as_tensor(catalogue, dtype=torch.int64)
        self.user_num = torch.as_tensor(user_num[kept], dtype=torch.float32)
        positive = (
            np.ones(len(kept)) if ratings is None else (np.asarray(ratings, float)[kept] - 1) / 4
        )
        self.label = torch.full(
            (len(kept), 1 + negatives), 0.0 if ratings is None else NEGATIVE_RATING
        )
        self.label[:, 0] = torch.as_tensor(positive)
        self.redraw(0)

    def redraw(self, epoch: int) -> None:
        """Draw the negatives of an epoch: uniform over what the user has not bought."""
        rng = np.random.default_rng([self.seed, epoch])
        shape = (len(self.user), self.negatives)
        nth = (
            rng.integers(0, np.maximum(self.free[self.user], 1)[:, None], shape)
            if len(self.user)
            else np.zeros(shape, int)
        )
        self.drawn = torch.as_tensor(unbought(self.bought, self.user[:, None], nth))

    def __len__(self) -> int:
        return len(self.user) * (1 + self.negatives)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        row, nth = divmod(index, 1 + self.negatives)
        if not 0 <= row < len(self.user):
            raise IndexError(index)
        item = self.item_cat[row] if nth == 0 else self.catalogue[self.drawn[row, nth - 1]]
        return self.user_cat[row], self.user_num[row], item, self.label[row, nth]

    def rows(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features and labels of some positives, each item before its negatives.

        Shapes: user codes (n, U), user numbers (n, N), item codes (n, 1 + k, I), labels (n, 1 + k).
        """
        items = torch.cat([self.item_cat[index][:, None], self.catalogue[self.drawn[index]]], 1)
        return self.user_cat[index], self.user_num[index], items, self.label[index]

    def log_q(self, index: Tensor) -> Tensor:
        """Log of the share of each positive's item among the positives.

        That is how likely the item is in a batch.
        """
        counts = np.bincount(self.item + 1, minlength=len(self.catalogue) + 1)
        return torch.as_tensor(np.log(counts / counts.sum() + 1e-12), dtype=torch.float32)[
            torch.as_tensor(self.item + 1)[index]
        ]


def unbought(bought: sparse.csr_matrix, user: np.ndarray, nth: np.ndarray) -> np.ndarray:
    """The nth (from 0) item that each user has not bought: exact, without rejection.

    Before the j-th bought item b_j (sorted) lie b_j − j others, so as many bought items come before
    the nth other as have b_j − j ≤ nth.
    """
    items = bought.shape[1]
    length = np.diff(bought.indptr)
    row = np.repeat(np.arange(len(length)), length)
    before = bought.indices - (np.arange(bought.nnz) - bought.indptr[row])
    keys = row.astype(np.int64) * (items + 1) + before
    return (
        nth
        + np.searchsorted(keys, user.astype(np.int64) * (items + 1) + nth, side="right")
        - bought.indptr[user]
    )


def train_two_tower_model(
    train_dataset: TwoTowerDataset,
    val_dataset: TwoTowerDataset | None,
    user_cat_sizes: Sizes,
    item_cat_sizes: Sizes,
    user_num_cols: Sequence[str] | int,
    *,
    loss: Loss = "bce",
    epochs: int = 15,
    patience: int | None = None,
    batch_size: int = 512,
    lr: float = 3e-3,
    weight_decay: float = 1e-6,
    l2: float = 0.0,
    seed: int = 42,
    **network: object,
) -> TwoTowerHybrid:
    """Fit the towers, keep the epoch of the lowest validation loss.

    Without a val_dataset all epochs are trained and the last is kept: a refit on everything.

    `model.log` has a row per epoch: losses, rate, event.

    loss: bce (labels 1/0 or soft), bpr (Rendle et al. 2009), softmax (in the batch, corrected by
    log q: Yi et al. 2019). patience: epochs without a better one before stopping, a third of all by
    default. l2: on the embeddings that a batch looks up. network: parameters of TwoTowerHybrid.
    """
    datasets = [train_dataset] if val_dataset is None else [train_dataset, val_dataset]
    patience = _checked(loss, epochs, patience, *datasets)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]), small_batches():
        torch.manual_seed(seed)
        model = TwoTowerHybrid(user_cat_sizes, item_cat_sizes, user_num_cols, **network)
        optimizer = torch.optim.Adam(
            model.parameters(), lr=lr, weight_decay=weight_decay, fused=True
        )
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=0.7, patience=max(0, patience // 2 - 1)
        )

        def batches(epoch: int) -> Sequence[Tensor]:
            train_dataset.redraw(epoch)
            return torch.randperm(len(train_dataset.user), generator=generator).split(batch_size)

        def reported_and_minimised(index: Tensor) -> tuple[Tensor, Tensor]:
            value, norms = batch_loss(model, train_dataset, index, loss)
            return value, value + l2 * norms

        best = (np.inf, -1, None)
        model.log = []
        for epoch, losses in epochs_of(
            model, optimizer, epochs, batches, reported_and_minimised, longest=1.0
        ):
            shown = {"epoch": epoch, "train_loss": mean_loss(losses)}
            shown["lr"] = optimizer.param_groups[0]["lr"]
            shown["val_loss"] = shown["train_loss"]
            if val_dataset is not None:
                shown["val_loss"] = _validation_loss(model, val_dataset, loss, batch_size)
            scheduler.step(shown["val_loss"])
            if val_dataset is None or shown["val_loss"] < best[0]:
                best = (shown["val_loss"], epoch, deepcopy(model.state_dict()))
            model.log.append(shown | {"event": _event(shown, best[1], patience, optimizer)})
            log.info("two tower %s", model.log[-1])
            if "stopped" in model.log[-1]["event"]:
                break
    model.load_state_dict(best[2])
    return model.eval()


def _checked(loss: str, epochs: int, patience: int | None, *datasets: TwoTowerDataset) -> int:
    if loss not in Loss.__args__:
        raise LabError(f"loss is '{loss}': choose {', '.join(Loss.__args__)}")
    if epochs < 1 or (patience is not None and not 1 <= patience < max(epochs, 2)):
        raise LabError(
            f"epochs is {epochs} and patience {patience}: take 1 epoch or more and a patience below"
            " them, else nothing stops early"
        )
    for name, data in zip(("train_dataset", "val_dataset"), datasets):
        if not len(data) or (loss == "bpr" and not data.negatives):
            raise LabError(
                f"{name} has {len(data)} rows and {data.negatives} negatives per positive: loss"
                f" '{loss}' cannot be computed"
            )
    return patience or max(1, epochs // 3)


def _event(shown: dict, best: int, patience: int, optimizer: torch.optim.Optimizer) -> str:
    result = ["best"] if best == shown["epoch"] else []
    result += ["rate lowered"] if optimizer.param_groups[0]["lr"] < shown["lr"] else []
    return ", ".join(result + ["stopped early"] if shown["epoch"] - best >= patience else result)


@torch.no_grad()
def _validation_loss(
    model: TwoTowerHybrid, data: TwoTowerDataset, loss: Loss, batch_size: int
) -> float:
    """Mean loss over a data set's positives."""
    model.eval()
    losses = []
    for index in torch.arange(len(data.user)).split(batch_size):
        value, _ = batch_loss(model, data, index, loss)
        losses.append((value.item(), len(index)))
    return mean_loss(losses)


def batch_loss(
    model: TwoTowerHybrid, data: TwoTowerDataset, index: Tensor, loss: Loss
) -> tuple[Tensor, Tensor]:
    """Loss of some positives and the mean squared norm of the embeddings that they look up."""
    user_cat, user_num, item_cat, label = data.rows(index)
    user = model.users(user_cat, user_num)
    item = model.items(item_cat if loss != "softmax" else item_cat[:, 0])
    norms = user[2].mean() + item[2].mean()
    if loss == "softmax":
        scores = model.matrix(user, item) - data.log_q(index)
        alone = without_twins(scores, torch.as_tensor(data.item[index.numpy()]))
        return cross_entropy(alone, torch.arange(len(index))), norms
    logits = model.logits(tuple(part.unsqueeze(1) for part in user), item)
    return pair_losses(logits, loss, label), norms


@dataclass
class Prepared:
    """Encoded data sets by date, the encoder, and what serving needs.

    assets: item catalogue, profiles and histories. stats: rating statistics. Without a split val
    and test are None.
    """

    train: TwoTowerDataset
    val: TwoTowerDataset | None
    test: TwoTowerDataset | None
    encoder: Encoder
    assets: dict[str, pd.DataFrame]
    stats: dict


def transactions(purchases: pd.DataFrame, users: pd.DataFrame, items: pd.DataFrame) -> pd.DataFrame:
    """Canonical tables as transactions with ratings (`df_clean`).

    One row per receipt line, with the column names of the two towers; products go by name.
    """
    items = items.astype({"item_id": str})
    items = items.assign(products=items["item_id"].map(product_names(items)))
    users = users.astype({"user_id": str})
    lines = purchases[[c for c in ("user_id", "item_id", "ts", "rating") if c in purchases]].astype(
        {"user_id": str, "item_id": str}
    )
    rows = lines.merge(users, on="user_id", how="left").merge(
        items[["products", *items.columns.difference(["products", "name", "price"])]],
        on="item_id",
        how="left",
    )
    return rows.drop(columns="item_id").rename(columns=NAMES)


def product_names(items: pd.DataFrame) -> dict[str, str]:
    """What each item is called among transactions: its name, with the id where names repeat."""
    ids = items["item_id"].astype(str)
    names = items["name"].fillna(ids).astype(str) if "name" in items else ids
    names = names.where(~names.duplicated(keep=False), names + " · " + ids)
    return dict(zip(ids, names))


def date_split(rows: pd.DataFrame, cuts: Sequence[float] = CUTS) -> list[pd.DataFrame]:
    """Train, val and test rows by quantiles of `Date`, each strictly before the next."""
    dates = dates_of(rows)
    first, second = dates.quantile(list(cuts), interpolation="higher")
    parts = [rows[dates < first], rows[(dates >= first) & (dates < second)], rows[dates >= second]]
    if not all(map(len, parts)):
        raise LabError(
            f"{len(rows):,} transactions of {dates.nunique():,} dates cannot be cut at {cuts}: they"
            " need more dates"
        )
    return parts


def dates_of(rows: pd.DataFrame) -> pd.Series:
    """`Date` as timestamps, so that text dates have the order of time and not of letters."""
    try:
        return pd.to_datetime(rows["Date"])
    except ValueError as error:
        raise LabError(
            f"column Date cannot be read as dates: {error}. Give dates of one form, such as"
            " 2023-09-18"
        ) from error


def as_before(rows: pd.DataFrame, who: str, columns: Iterable[str]) -> pd.DataFrame:
    """The rows, with columns of the transaction as the customer's last earlier date left them.

    Missing where there is no earlier date: what a row itself says is not known before it.

    >>> rows = pd.DataFrame({"who": "a", "Date": ["9/18/2023", "10/2/2023"], "Amount": [5, 7]})
    >>> as_before(rows, "who", ["Amount"])["Amount"].tolist()
    [nan, 5.0]
    """
    columns = [column for column in columns if column in rows]
    days = pd.DataFrame({"who": text(rows[who]), "date": dates_of(rows)})
    last = pd.concat([days, rows[columns]], axis=1).sort_values("date", kind="stable")
    last = last.drop_duplicates(["who", "date"], keep="last")
    last[columns] = last.groupby("who")[columns].shift()
    known = days.merge(last, on=["who", "date"], how="left").set_axis(rows.index)
    return rows.assign(**{column: known[column] for column in columns})


def prepare(
    df_clean: pd.DataFrame,
    user_cat_cols: Iterable[str],
    user_num_cols: Iterable[str],
    item_cat_cols: Iterable[str],
    *,
    mode: Literal["interaction", "rating"] = "interaction",
    negatives: int = 4,
    seed: int = 42,
    parts: Sequence[pd.DataFrame] | None = None,
) -> Prepared:
    """Split by date, fit the encoder and every asset on train rows, encode all three parts.

    Columns of the transaction (`TRANSACTION_COLS`) are learnt from as they were before each row.
    Rows without a rating teach no ratings; they stand in the histories all the same.
    parts: a split of your own, or everything as one part, for the refit that is served.
    """
    if mode == "rating" and "Ratings" not in df_clean:
        raise LabError(
            "mode 'rating' needs a column Ratings: the transactions have none, take mode"
            " 'interaction'"
        )
    everything = df_clean.assign(Date=dates_of(df_clean))
    if mode == "interaction":
        rows, unrated = everything, everything[:0]
    else:
        has_rating = everything["Ratings"].notna()
        rows, unrated = everything[has_rating], everything[~has_rating]
    # One part is everything: there is nothing later to keep apart.
    split = [part.assign(Date=dates_of(part)) for part in parts or date_split(rows)]
    encoder = Encoder.fit(split[0], user_cat_cols, user_num_cols, item_cat_cols)
    # Bought is bought, rated or not: it stands in the catalogue and in the histories.
    known = pd.concat([split[0], unrated[unrated["Date"] <= split[0]["Date"].max()]])
    catalogue, conflicts = item_catalogue(known, encoder.item_cat_cols)
    ratings = "Ratings" if mode == "rating" else None
    encoded = _encoded(_as_known(split, encoder), encoder, catalogue, ratings, negatives, seed)
    train, val, test = (*encoded, None, None)[:3]
    stats = _stats(known) | {"mode": mode, "catalogue_conflicts": conflicts}
    return Prepared(train, val, test, encoder, _assets(known, encoder, catalogue), stats)


def _as_known(split: list[pd.DataFrame], encoder: Encoder) -> list[pd.DataFrame]:
    """The parts, with what a transaction decides as it was before each row, whatever its part."""
    columns = (*encoder.user_cat_cols, *encoder.user_num_cols)
    varying = [column for column in columns if column in TRANSACTION_COLS]
    rows = as_before(pd.concat(split), encoder.user_cat_cols[0], varying)
    ends = np.cumsum([len(part) for part in split])
    return [rows[end - len(part) : end] for part, end in zip(split, ends)]


def _encoded(
    split: list[pd.DataFrame],
    encoder: Encoder,
    catalogue: pd.DataFrame,
    ratings: str | None,
    negatives: int,
    seed: int,
) -> list[TwoTowerDataset]:
    """A data set for each part; what was bought in it or before is never a negative of it.

    ratings: the column of the labels, None for what is bought.
    """
    who, product = encoder.user_cat_cols[0], encoder.item_cat_cols[0]
    customers = pd.Index(np.unique(np.concatenate([text(part[who]) for part in split])))
    names = pd.Index(catalogue[product])
    listed = encoder.items(catalogue)
    seen = sparse.csr_matrix((len(customers), len(names)))
    result = []
    for part in split:
        user = customers.get_indexer(text(part[who]))
        item = names.get_indexer(text(part[product]))
        inside = item >= 0
        bought = (np.ones(inside.sum()), (user[inside], item[inside]))
        seen = seen + sparse.csr_matrix(bought, shape=seen.shape)
        result.append(
            TwoTowerDataset(
                user,
                item,
                *encoder.users(part),
                np.where(inside[:, None], listed[item], encoder.items(part)),
                listed,
                ratings=part[ratings].to_numpy(float) if ratings else None,
                negatives=negatives,
                bought=seen.copy(),
                seed=seed,
            )
        )
    return result


def item_catalogue(train: pd.DataFrame, item_cat_cols: Sequence[str]) -> tuple[pd.DataFrame, int]:
    """One row per product, each attribute the most frequent in train.

    Of equally frequent ones the first in the alphabet. The second value is how many products had
    several.
    """
    product, *others = item_cat_cols
    rows = pd.DataFrame({c: text(train[c]) for c in item_cat_cols})
    rows = rows[rows[product] != ""]
    result = pd.DataFrame({product: sorted(rows[product].unique())})
    odd = set()
    for column in others:
        counts = rows[rows[column] != ""].value_counts([product, column]).rename("n").reset_index()
        odd |= set(counts.loc[counts[product].duplicated(), product])
        top = counts.sort_values(
            [product, "n", column], ascending=[True, False, True]
        ).drop_duplicates(product)
        result[column] = result[product].map(top.set_index(product)[column]).fillna("")
    return result, len(odd)


def _assets(
    train: pd.DataFrame, encoder: Encoder, catalogue: pd.DataFrame
) -> dict[str, pd.DataFrame]:
    who = encoder.user_cat_cols[0]
    product = encoder.item_cat_cols[0]
    rows = train.assign(
        **{c: text(train[c]) for c in (*encoder.user_cat_cols, product)}
    ).sort_values("Date", kind="stable")
    profiles = rows.drop_duplicates(who, keep="last")[
        [*encoder.user_cat_cols, *encoder.user_num_cols]
    ].sort_values(who, ignore_index=True)
    counts = {"times": (product, "size"), "last": ("Date", "max")} | (
        {"rating": ("Ratings", "mean")} if "Ratings" in rows else {}
    )
    return {
        "item_catalog": catalogue,
        "user_profiles": profiles,
        "user_histories": rows.groupby([who, product]).agg(**counts).reset_index(),
    }


def _stats(train: pd.DataFrame) -> dict:
    stats = {"rows": len(train), "cut": str(train["Date"].max())}
    if "Ratings" in train:
        stats |= {
            "rating_mean": float(train["Ratings"].mean()),
            "rating_std": float(train["Ratings"].std()),
        }
    return stats
