"""What was trained, checked byte by byte and held in memory: a request reads no file."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import pandas as pd
from scipy import sparse

from recsys_utils import LabError
from recsys_utils.data.interactions import codes
from recsys_utils.ensembles.hybrid import Hybrid
from recsys_utils.ensembles.training import load_models
from recsys_utils.store import read_json, read_manifest, read_parquet, verify_files

if TYPE_CHECKING:
    from recsys_utils.models.towers.standalone import StandaloneRecommender

KIND = "service"
CURE = "run python -m recsys_utils.serving train --dataset NAME"
LETTERS = 100  # characters that slips of the hand are tried with
# of stock
UNKNOWN = -1
OUT = 0
IN = 1


class NotTrained(LabError):
    """Nothing is there to serve."""


@dataclass
class Lists:
    """One model's table as arrays: row by user code, −1 where a list has ended."""

    items: np.ndarray  # (users, depth) int32
    scores: np.ndarray  # (users, depth) float32

    @classmethod
    def of(cls, recs: pd.DataFrame, users: pd.Index, items: pd.Index) -> Self:
        """Spread a recommendation table by user and rank."""
        row = codes(recs["user_id"], users)
        column = recs["rank"].to_numpy() - 1
        shape = len(users), int(recs["rank"].max()) if len(recs) else 0
        result = cls(np.full(shape, -1, np.int32), np.zeros(shape, np.float32))
        result.items[row, column] = codes(recs["item_id"], items)
        result.scores[row, column] = recs["score"].to_numpy(np.float32)
        return result

    def of_user(self, user: int) -> tuple[np.ndarray, np.ndarray]:
        """Item codes and scores of one user, best first."""
        kept = self.items[user] >= 0
        return self.items[user][kept], self.scores[user][kept]


@dataclass
class Artifacts:
    """One trained version. Rows of `items` and `users` are in the order of the hybrid's codes."""

    manifest: dict
    folder: Path
    hybrid: Hybrid
    lists: dict[str, Lists]
    clients: pd.DataFrame  # attributes by user_id, of those in the shop's file without a receipt
    newcomers: dict[str, Lists]  # by model, rows in the order of `clients`
    items: pd.DataFrame
    users: pd.DataFrame
    stock: pd.DataFrame | None
    cells: pd.DataFrame | None
    catalogue: pd.DataFrame | None  # item_id that the shop's [prefilter] keeps
    costs: pd.DataFrame | None  # what each business rule costs, as a notebook recorded it

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the version that the manifest names; refuse a missing or changed file by name."""
        manifest = service_manifest(folder)
        try:
            return cls._read(folder / manifest["folder"], manifest)
        except (LabError, OSError):
            if service_manifest(folder)["folder"] == manifest["folder"]:
                raise
            return cls.load(folder)  # a newer version took its place while we were reading

    @classmethod
    def _read(cls, folder: Path, manifest: dict) -> Self:
        there = manifest["sha256"]
        verify_files(manifest, {name: folder / name for name in there}, CURE)
        hybrid = load_models(folder / "hybrid")
        lists = {
            name: _lists(folder / "lists" / f"{name}.parquet", hybrid.user_ids_, hybrid.item_ids_)
            for name in manifest["lists"]
        }
        clients = pd.DataFrame(index=pd.Index([], dtype=object, name="user_id"))
        if "newcomers/clients.parquet" in there:
            clients = read_parquet(folder / "newcomers" / "clients.parquet")
            clients = clients.astype({"user_id": str}).set_index("user_id")
        newcomers = {
            name: _lists(folder / "newcomers" / f"{name}.parquet", clients.index, hybrid.item_ids_)
            for name in manifest.get("newcomers", [])
        }
        items, users = (
            read_parquet(folder / f"{name}.parquet").astype({key: str}).set_index(key)
            for name, key in (("items", "item_id"), ("users", "user_id"))
        )
        stock, cells, catalogue, costs = (
            read_parquet(folder / f"{name}.parquet") if f"{name}.parquet" in there else None
            for name in ("stock", "confidence", "catalogue", "knob_costs")
        )
        result = cls(
            manifest,
            folder,
            hybrid,
            lists,
            clients,
            newcomers,
            items,
            users,
            stock,
            cells,
            catalogue,
            costs,
        )
        for name in (
            "buyers",
            "names",
            "name_of",
            "text",
            "categories",
            "by_units",
            "stocks",
            "folded_ids",
            "code_of_name",
        ):  # now, not in somebody's request
            getattr(result, name)
        return result

    @cached_property
    def tower(self) -> "StandaloneRecommender | None":
        """What rates products for new customers; None where the data hold no ratings.

        It brings in torch, which takes seconds and no list needs.
        """
        return _tower(self.folder / "tower")

    @cached_property
    def buyers(self) -> sparse.csc_matrix:
        """Users × items by item: who bought it."""
        return (self.hybrid.seen_ > 0).tocsc()

    @cached_property
    def names(self) -> np.ndarray:
        """(items,) what people call them; the id where the shop gives no name."""
        ids = self.items.index.to_series()
        return (
            self.items["name"].astype("object").where(self.items["name"].notna(), ids)
            if "name" in self.items
            else ids
        ).to_numpy(object)

    @cached_property
    def name_of(self) -> dict[str, str]:
        """Names by id."""
        return dict(zip(self.items.index, self.names))

    @cached_property
    def text(self) -> pd.Series:
        """(items,) what a search looks in: name, id and category."""
        parts = (
            pd.DataFrame({"name": self.names, "id": self.items.index, "category": self.categories})
            .fillna("")
            .astype(str)
        )
        return parts.agg("\n".join, axis=1).str.casefold()

    @cached_property
    def categories(self) -> np.ndarray:
        """(items,) category or None."""
        column = (
            self.items["category"].astype("object")
            if "category" in self.items
            else pd.Series(None, self.items.index, dtype=object)
        )
        return column.where(column.notna(), None).to_numpy(object)

    @cached_property
    def by_units(self) -> np.ndarray:
        """Item codes by units sold, most first: what strangers are offered."""
        return np.argsort(-self.items["units"].to_numpy(), kind="stable")

    @cached_property
    def stocks(self) -> dict[str | None, np.ndarray]:
        """(items,) in, out of stock or unknown, by country; None: in any."""
        if self.stock is None:
            return {}
        sums = (
            self.stock.astype({"item_id": str, "country": str})
            .groupby(["country", "item_id"])["quantity"]
            .sum()
        )
        result = {
            country: _in_stock(rows.droplevel(0), self.items.index)
            for country, rows in sums.groupby(level=0)
        }
        return result | {None: _in_stock(sums.groupby(level=1).sum(), self.items.index)}

    @cached_property
    def outside_catalogue(self) -> np.ndarray:
        """(items,) bool: what the shop's prefilter leaves out; nothing where it has none."""
        if self.catalogue is None:
            return np.zeros(len(self.items), bool)
        return ~self.items.index.isin(self.catalogue["item_id"].astype(str))

    def cells_of(self, setting: str) -> pd.DataFrame | None:
        """Cells of confidence for lists with ("any") or without ("new") what was bought before."""
        if self.cells is None or "behind" not in self.cells:
            return None  # an older version learnt confidence by score
        return self.cells[self.cells["setting"] == setting]

    def lists_of_newcomer(self, user: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Item codes and scores by model for a client without a receipt; empty for others."""
        row = self.clients.index.get_indexer([user])[0]
        if row < 0:
            return {}
        found = {name: lists.of_user(row) for name, lists in self.newcomers.items()}
        return {name: listed for name, listed in found.items() if len(listed[0])}

    @cached_property
    def folded_ids(self) -> tuple[dict[str, str], list[str]]:
        """Known ids by their lower case without leading zeros too; the characters they are of."""
        ids = [*self.hybrid.user_ids_, *self.clients.index]
        folded = {one.casefold(): one for one in reversed(ids)}
        bare = {one.lstrip("0"): full for one, full in folded.items()}
        return bare | folded, sorted(set("".join(folded)))[:LETTERS]

    @cached_property
    def code_of_name(self) -> dict[str, int]:
        """Item codes by name, and by name and id as the towers call what shares its name."""
        named = list(enumerate(zip(self.names, self.items.index)))
        both = {f"{name} · {item}": code for code, (name, item) in named}
        return {name: code for code, (name, _) in reversed(named)} | both

    def attributes(self, user: str) -> dict:
        """What the shop knows of a user, with or without a receipt; nothing of a stranger."""
        for table in (self.users, self.clients):
            if user in table.index:
                return table.loc[user].to_dict()
        return {}

    def stock_of(self, user: str) -> np.ndarray:
        """(items,) stock for a user's country, of any country where that is not known."""
        country = self.attributes(user).get("country")
        absent = np.full(len(self.items), UNKNOWN, np.int8)
        return self.stocks.get(
            country if isinstance(country, str) and country in self.stocks else None, absent
        )


def service_manifest(folder: Path) -> dict:
    """What was trained, when and on what, checked; NotTrained where there is nothing."""
    path = folder / "manifest.json"
    if not path.is_file():
        raise NotTrained(f"{folder} holds nothing to serve: {CURE}")
    return read_manifest(path, KIND, CURE)


def _lists(path: Path, users: pd.Index, items: pd.Index) -> Lists:
    return Lists.of(read_parquet(path), users, items)


def _in_stock(quantity: pd.Series, items: pd.Index) -> np.ndarray:
    there = quantity.reindex(items).to_numpy(float)
    return np.where(np.isnan(there), UNKNOWN, there > 0).astype(np.int8)


def _tower(folder: Path) -> "StandaloneRecommender | None":
    if not folder.is_dir():
        return None
    from recsys_utils.models.towers.standalone import StandaloneRecommender  # brings in torch

    columns = read_json(folder / "preproc_artifacts.json")
    return StandaloneRecommender(
        folder / "best_two_tower_model.safetensors",
        folder / "preproc_artifacts.json",
        folder / "recommendation_assets",
        columns["user_cat_cols"],
        columns["user_num_cols"],
        columns["item_cat_cols"],
    )
