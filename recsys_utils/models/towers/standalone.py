"""Two towers in service: lists and ratings from a trained model's files alone.

This module imports nothing that trains.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from recsys_utils import LabError, __version__
from recsys_utils.data.attributes import text
from recsys_utils.models.towers.network import Encoder, TwoTowerHybrid
from recsys_utils.models.towers.retrieval import Vectors
from recsys_utils.store import read_json, read_manifest, save_bundle, verify_files

KIND = "two-tower recommender"
CURE = "train and save the recommender"
MODEL = "best_two_tower_model.safetensors"
ARTIFACTS = "preproc_artifacts.json"
FOLDER = "recommendation_assets"
ASSETS = ("item_catalog", "user_profiles", "user_histories")
LISTS = f"{FOLDER}/lists.npz"
PICKLES = (".pth", ".pt", ".pkl", ".joblib")
# of one update from events
STEPS = 20
RATE = 0.05


def save_recommender(
    model: TwoTowerHybrid,
    encoder: Encoder,
    assets: Mapping[str, pd.DataFrame],
    stats: Mapping,
    folder: Path,
    cut: object = None,
    lists: Vectors | None = None,
) -> dict[str, Path]:
    """Write the model, its encoder and recommendation_assets/ with a manifest of all.

    assets: item_catalog, user_profiles, user_histories.
    cut: the time before which everything lies that was learnt.
    lists: towers that were fitted for lists, with the names of the encoder's columns and products.
    Returns the paths by the names of StandaloneRecommender's arguments.
    """
    config = {"config": json.dumps(model.config, sort_keys=True)}
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    frames = {f"{FOLDER}/{name}.parquet": assets[name].reset_index(drop=True) for name in ASSETS}
    parts = {
        MODEL: save(weights, config),
        ARTIFACTS: encoder.to_json(),
        f"{FOLDER}/rating_stats.json": dict(stats),
        **frames,
    }
    meta = {"version": __version__}
    if lists is not None:
        parts[LISTS] = lists.arrays()
        meta["lists"] = lists.shape
    save_bundle(
        folder, KIND, parts, meta, cut, manifest=f"{FOLDER}/manifest.json", fixed_names=True
    )
    return {
        "model_path": folder / MODEL,
        "artifacts_path": folder / ARTIFACTS,
        "assets_path": folder / FOLDER,
    }


class StandaloneRecommender:
    """Lists and ratings from saved files, for known customers and for new ones by profile.

    The first of `user_cat_cols` is the customer's id, the first of `item_cat_cols` the product.
    A rating is 1 + 4p, p = σ(t·⟨u, v⟩ + b). Lists are [(item, rating), …], the highest rating
    first, equal ratings by the product's name. Where towers for lists were saved with the rating
    towers, they choose which products are listed: what people buy is not what they rate highly.
    """

    def __init__(
        self,
        model_path: Path | str,
        artifacts_path: Path | str,
        assets_path: Path | str,
        user_cat_cols: Iterable[str],
        user_num_cols: Iterable[str],
        item_cat_cols: Iterable[str],
        device: str = "cpu",
    ) -> None:
        self.paths = {
            "model_path": Path(model_path),
            "artifacts_path": Path(artifacts_path),
            "assets_path": Path(assets_path),
        }
        if self.paths["model_path"].suffix in PICKLES:
            raise LabError(
                f"{model_path} is a pickle, which may run code when it is opened: this version"
                f" reads {MODEL}. Save the model again with save_recommender"
            )
        manifest = read_manifest(self.paths["assets_path"] / "manifest.json", KIND, CURE)
        verify_files(manifest, _files(**self.paths, lists="lists" in manifest), CURE)
        self.encoder = Encoder.from_json(self.paths["artifacts_path"].read_text())
        for name, given in (
            ("user_cat_cols", user_cat_cols),
            ("user_num_cols", user_num_cols),
            ("item_cat_cols", item_cat_cols),
        ):
            if list(given) != getattr(self.encoder, name):
                raise LabError(
                    f"{name} is {list(given)}, the model was trained with"
                    f" {getattr(self.encoder, name)}: give the same columns"
                )
        self.who, *_ = self.encoder.user_cat_cols
        self.product, *_ = self.encoder.item_cat_cols
        self.fields = [*self.encoder.user_cat_cols[1:], *self.encoder.user_num_cols]
        self.device = torch.device(device)
        self.model = _load_model(self.paths["model_path"]).to(device)
        self.catalog, profiles, self.histories = (
            pd.read_parquet(self.paths["assets_path"] / f"{name}.parquet") for name in ASSETS
        )
        self.profiles = profiles.set_index(self.who, drop=False)
        self.stats = read_json(self.paths["assets_path"] / "rating_stats.json")
        self.names = pd.Index(self.catalog[self.product])
        self.cut = manifest["cut"]
        self.lists = None
        if "lists" in manifest:
            with np.load(self.paths["assets_path"] / "lists.npz", allow_pickle=False) as arrays:
                self.lists = Vectors.of_arrays(arrays, manifest["lists"])
        self._refresh()

    def recommend_for_user(
        self, customer_id: object, top_k: int = 10, exclude_purchased: bool = True
    ) -> list[tuple[dict, float]]:
        """A customer's best products.

        Those bought before the model's cut are left out unless asked for.
        """
        customer = self._known(customer_id)
        bought = self._bought(customer) if exclude_purchased else []
        return self._best(self.profiles.loc[[customer]], top_k, bought)

    def recommend_for_new_user(self, profile: Mapping, top_k: int = 10) -> list[tuple[dict, float]]:
        """The best products for a profile: any of the model's fields.

        What is missing or never seen counts as unknown, a number as the mean.
        """
        return self._best(self._profile(profile), top_k, [])

    def predict_rating(self, user: object, item: str | Mapping) -> float:
        """A rating in [1, 5].

        user: a customer's id or a profile; item: a product's name or its attributes.
        """
        if self.stats.get("mode", "rating") != "rating":
            raise LabError(
                "these towers learnt what is bought, not how it is rated: train with"
                " prepare(…, mode='rating')"
            )
        row = (
            self._profile(user)
            if isinstance(user, Mapping)
            else self.profiles.loc[[self._known(user)]]
        )
        with torch.inference_mode():
            found = self.model.items(self._tensor(self._item(item)))
            return float(self._rate(self.model.matrix(self._user(row), found))[0, 0])

    def ratings(self, profiles: pd.DataFrame) -> np.ndarray:
        """(rows, products) ratings of the whole catalogue.

        Each row is a profile, with or without a customer's id.
        """
        with torch.inference_mode():
            return self._rate(self.model.matrix(self._user(profiles), self.items)).cpu().numpy()

    def get_user_info(self, customer_id: object) -> dict | None:
        """A customer's profile, purchase_history and num_purchases, as of the cut.

        None for an unknown one.
        """
        customer = _text_id(customer_id)
        if customer not in self.profiles.index:
            return None
        history = self.histories[self.histories[self.who] == customer].drop(columns=self.who)
        return {
            "profile": self.profiles.loc[customer].to_dict(),
            "purchase_history": history.to_dict("records"),
            "num_purchases": int(history["times"].sum()),
        }

    def search_items(self, query: str, limit: int = 20) -> list[dict]:
        """Products that have the words in their name or an attribute, upper or lower case alike."""
        found = np.zeros(len(self.catalog), bool)
        for column in self.encoder.item_cat_cols:
            found |= (
                self.catalog[column]
                .str.casefold()
                .str.contains(str(query).strip().casefold(), regex=False)
                .to_numpy()
            )
        return self.catalog[found].head(limit).to_dict("records")

    def save(self, folder: Path | str) -> dict[str, Path]:
        """Write the recommender as it is now, with what `partial_fit` taught it."""
        assets = dict(zip(ASSETS, (self.catalog, self.profiles, self.histories)))
        return save_recommender(
            self.model, self.encoder, assets, self.stats, Path(folder), self.cut, self.lists
        )

    def partial_fit(self, events: pd.DataFrame, seed: int = 0) -> None:
        """Learn from new purchases in place.

        Only the ids' embeddings of the customers and products in them move.

        events: rows of customer id and product, optional `Ratings`. A new customer starts as the
        unknown one. Nothing is written.
        """
        who = text(events[self.who])
        product = text(events[self.product])
        if len(odd := product[~product.isin(self.names)]):
            raise LabError(
                f"events name the product '{odd.iloc[0]}', which is not in the catalogue of"
                f" {len(self.names):,}: train again with it"
            )
        self._welcome(pd.unique(who))
        label = (
            (pd.to_numeric(events["Ratings"]) - 1) / 4
            if "Ratings" in events
            else pd.Series(1.0, events.index)
        )
        self._descend(
            self.profiles.loc[who],
            self.names.get_indexer(product),
            label.to_numpy(np.float32),
            np.random.default_rng(seed),
        )
        new = pd.DataFrame({self.who: who, self.product: product, "times": 1})
        if "Ratings" in events and "rating" in self.histories:
            new["rating"] = pd.to_numeric(events["Ratings"])
        self.histories = (
            pd.concat([self.histories, new])
            .groupby([self.who, self.product], as_index=False)
            .agg(
                {
                    c: "sum" if c == "times" else "first"
                    for c in self.histories.columns.difference([self.who, self.product])
                }
            )
        )
        self._refresh()

    def _descend(
        self, profiles: pd.DataFrame, item: np.ndarray, label: np.ndarray, rng: np.random.Generator
    ) -> None:
        """Update the first column's embeddings of both towers by gradient steps.

        Each event is set against one random product.
        """
        tables = [self.model.user_tower.embedding.weight, self.model.item_tower.embedding.weight]
        user_cat, user_num = map(self._tensor, self.encoder.users(profiles))
        touched = [user_cat[:, 0].unique(), self._tensor(self.codes[item])[:, 0].unique()]
        item_cat = self._tensor(
            self.codes[np.concatenate([item, rng.integers(0, len(self.names), len(item))])]
        )
        goal = self._tensor(np.concatenate([label, np.zeros_like(label)]))
        for _ in range(STEPS):
            logits = self.model(user_cat.repeat(2, 1), user_num.repeat(2, 1), item_cat)
            loss = torch.nn.functional.binary_cross_entropy(logits, goal, reduction="sum")
            for table, rows, grad in zip(tables, touched, torch.autograd.grad(loss, tables)):
                table.data[rows] -= RATE * grad[rows]

    def _welcome(self, customers: np.ndarray) -> None:
        """Give new customers an id whose embedding begins as the unknown one's.

        Row 0 of the table, repeated after the last id.
        """
        if not len(new := [c for c in customers if c not in self.profiles.index]):
            return
        tower = self.model.user_tower
        ids = self.encoder.mappings[self.who]
        at = len(ids) + 1
        size = len(new)
        for table in (tower.embedding, tower.bias):
            w = table.weight.data
            table.weight = torch.nn.Parameter(torch.cat([w[:at], w[:1].repeat(size, 1), w[at:]]))
        tower.offset[1:] += size
        self.model.config["user_cat_sizes"][0] += size
        ids |= {customer: at + n for n, customer in enumerate(new)}
        self.profiles = pd.concat(
            [
                self.profiles,
                pd.DataFrame({self.who: new}, index=new).reindex(columns=self.profiles.columns),
            ]
        )

    def _refresh(self) -> None:
        """Run the item tower over the catalogue once.

        Every request multiplies with what it gives.
        """
        self.codes = self.encoder.items(self.catalog)
        with torch.inference_mode():
            self.items = self.model.items(self._tensor(self.codes))

    def _user(self, profiles: pd.DataFrame) -> tuple[torch.Tensor, ...]:
        return self.model.users(*(self._tensor(a) for a in self.encoder.users(profiles)))

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(array, device=self.device)

    def _rate(self, logits: torch.Tensor) -> torch.Tensor:
        return 1 + 4 * torch.sigmoid(logits)

    def _best(
        self, profile: pd.DataFrame, top_k: int, banned: Iterable[str]
    ) -> list[tuple[dict, float]]:
        """The k products to list for one row of a profile, the highest rating first."""
        if isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1:
            raise LabError(f"top_k is {top_k!r}: ask for 1 product or more")
        ratings = self.ratings(profile)[0]
        choice = ratings if self.lists is None else self._listed(profile)
        open_ = np.flatnonzero(~self.names.isin(list(banned)))
        chosen = np.sort(open_[np.argsort(-choice[open_], kind="stable")[:top_k]])
        best = chosen[np.argsort(-ratings[chosen], kind="stable")]
        return list(
            zip(self.catalog.iloc[best].to_dict("records"), ratings[best].astype(float).tolist())
        )

    def _listed(self, profile: pd.DataFrame) -> np.ndarray:
        """(products,) scores of the towers for lists; what they do not know comes last."""
        known = self.lists.item_ids.get_indexer(self.names)
        scores = self.lists.of_anybody(profile)[0]
        return np.where(known >= 0, scores[known], -np.inf)

    def _bought(self, customer: str) -> pd.Series:
        return self.histories.loc[self.histories[self.who] == customer, self.product]

    def _known(self, customer_id: object) -> str:
        customer = _text_id(customer_id)
        if customer not in self.profiles.index:
            raise LabError(
                f"customer '{customer}' is unknown: for someone without purchases call"
                " recommend_for_new_user(profile)"
            )
        return customer

    def _profile(self, profile: Mapping) -> pd.DataFrame:
        """One row of a profile, checked field by field."""
        if not isinstance(profile, Mapping):
            raise LabError(
                f"a profile is a dictionary of {', '.join(self.fields)}; this is"
                f" {type(profile).__name__}"
            )
        faults = [f"'{key}' is no field" for key in profile if key not in self.fields]
        faults += [
            f"{key} is {value!r}, not {kind}"
            for key, value in profile.items()
            if key in self.fields and (kind := self._fault(key, value))
        ]
        if faults:
            raise LabError(
                f"profile: {'; '.join(faults)}. It takes any of {', '.join(self.fields)}"
            )
        return pd.DataFrame(
            [{key: value for key, value in profile.items() if value is not None}], index=[0]
        )

    def _fault(self, key: str, value: object) -> str:
        if value is None:
            return ""
        if key in self.encoder.user_num_cols:
            number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
            return "" if number and np.isfinite(value) else "a finite number"
        return (
            ""
            if isinstance(value, str | int | float | np.number) and not isinstance(value, bool)
            else "a text"
        )

    def _item(self, item: str | Mapping) -> np.ndarray:
        """Codes of one product, by name or by attributes.

        A new product is rated by what is known of it.
        """
        given = dict(item) if isinstance(item, Mapping) else {self.product: item}
        if odd := [key for key in given if key not in self.encoder.item_cat_cols]:
            raise LabError(
                f"item: '{odd[0]}' is no attribute, it takes any of"
                f" {', '.join(self.encoder.item_cat_cols)}"
            )
        listed = self.catalog[self.names == str(given.get(self.product))].to_dict("records")
        codes = self.encoder.items(pd.DataFrame([(listed[0] if listed else {}) | given]))
        if not codes.any():
            raise LabError(
                f"item {given} is unknown in name and attributes: name a product of the catalogue,"
                " or one of its attributes"
            )
        return codes


def format_rating(rating: float) -> str:
    """A rating as people read it: 3.80/5.0."""
    return f"{rating:.2f}/5.0"


def _text_id(customer_id: object) -> str:
    return text(pd.Series([customer_id])).iloc[0]


def _files(
    model_path: Path, artifacts_path: Path, assets_path: Path, lists: bool
) -> dict[str, Path]:
    """Where each part of the manifest lies; the three places may be anywhere."""
    frames = {f"{FOLDER}/{name}.parquet": assets_path / f"{name}.parquet" for name in ASSETS}
    return {
        MODEL: model_path,
        ARTIFACTS: artifacts_path,
        f"{FOLDER}/rating_stats.json": assets_path / "rating_stats.json",
        **({LISTS: assets_path / "lists.npz"} if lists else {}),
        **frames,
    }


def _load_model(path: Path) -> TwoTowerHybrid:
    try:
        with safe_open(path, framework="pt") as file:
            model = TwoTowerHybrid(**json.loads(file.metadata()["config"]))
            model.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 - safetensors' own
    except (SafetensorError, KeyError, TypeError, RuntimeError) as error:
        raise LabError(f"{path} is no two-tower model of this version: train again") from error
    return model.eval()
