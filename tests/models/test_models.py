"""One contract for every model of the registry, then what each family promises by hand."""

import ast
import dataclasses
import json
import typing
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from shops import Shop, receipts

import recsys_utils
from recsys_utils import LabError, store
from recsys_utils.data.interactions import Interactions
from recsys_utils.ensembles.hybrid import Hybrid  # noqa: F401 - joins the registry
from recsys_utils.ensembles.two_stage import TwoStage  # noqa: F401 - joins the registry
from recsys_utils.models import (
    ALS,
    BPR,
    EASE,
    REGISTRY,
    CoPurchase,
    ItemCF,
    NotSupported,
    OwnPurchases,
    Popular,
    Recommender,
    load_model,
)
from recsys_utils.models.item_cf import signal
from recsys_utils.store import load_bundle, read_json, save_bundle

PACKAGE = Path(recsys_utils.__file__).parent
SMALL = {
    "NeighbourFinds": {"k": 10},
    "ALS": {"factors": 8, "iterations": 5},
    "BPR": {"factors": 8, "iterations": 300},
    "ItemCF": {"neighbours": 50},
    "PreferencePairs": {"negatives": 4, "learning_rate": 0.02, "epochs": 15},
    "Hybrid": {"als": {"factors": 8, "iterations": 5}},
    "TwoStage": {"windows": 3, "rounds": 30, "leaves": 7, "min_leaf": 5},
}  # by name; may lack any
SAME_FOR_ALL = {"Popular"}
K = 10


def concrete() -> list[str]:
    """Models with a family that can be fitted; a new one joins by being defined."""
    ours = (
        "recsys_utils.models",
        "recsys_utils.ensembles.two_stage",
        "recsys_utils.ensembles.hybrid",
    )
    return sorted(
        name
        for name, cls in REGISTRY.items()
        if cls.__module__.startswith(ours) and cls.family and cls._fit is not Recommender._fit
    )


def make(name: str) -> Recommender:
    return REGISTRY[name](**SMALL.get(name, {}))


every_model = pytest.mark.parametrize("name", concrete())


@pytest.fixture(scope="session")
def fitted(shop: Shop) -> Callable[[str], Recommender]:
    result: dict[str, Recommender] = {}
    return lambda name: result.get(name) or result.setdefault(name, make(name).fit(shop.history))


def same(a: pd.DataFrame, b: pd.DataFrame) -> None:
    """Equal to the last bit."""
    text = {"user_id": str, "item_id": str}
    pd.testing.assert_frame_equal(a.astype(text), b.astype(text), check_exact=True)


def same_lists(a: pd.DataFrame, b: pd.DataFrame, tolerance: float = 1e-5) -> None:
    """Equal up to the grain of float32, which may swap neighbours of the same score."""
    both = a.merge(b, on=["user_id", "rank"], how="outer")
    assert len(both) == len(a) == len(b)
    assert np.allclose(both["score_x"], both["score_y"], rtol=tolerance, atol=tolerance)
    moved = both["item_id_x"].astype(str) != both["item_id_y"].astype(str)
    assert moved.mean() < 0.02


def bought(data: Interactions) -> pd.MultiIndex:
    return pd.MultiIndex.from_frame(data.purchases[["user_id", "item_id"]].drop_duplicates())


def listed(recs: pd.DataFrame) -> pd.MultiIndex:
    return pd.MultiIndex.from_frame(recs[["user_id", "item_id"]].astype(str))


# ---- the contract


def test_the_contract_covers_the_families() -> None:
    assert {"ALS", "BPR", "EASE", "CoPurchase", "ItemCF", "OwnPurchases", "Popular"} <= set(
        concrete()
    )


@pytest.mark.spec("C8")
@every_model
def test_a_table_of_k_ranked_items_per_user(name: str, fitted, shop: Shop) -> None:
    recs = fitted(name).recommend(shop.history.user_ids, K)
    assert recs.columns.tolist() == ["user_id", "item_id", "score", "rank"]
    assert recs["score"].dtype == np.float32
    assert recs["user_id"].astype(str).tolist() == np.repeat(shop.history.user_ids, K).tolist()
    assert recs["rank"].tolist() == list(range(1, K + 1)) * len(shop.history.user_ids)
    assert not recs.duplicated(["user_id", "item_id"]).any()
    assert np.isfinite(recs["score"]).all()
    assert (recs.groupby("user_id", observed=True)["score"].diff().fillna(0) <= 0).all()


@pytest.mark.parametrize("name", sorted(set(concrete()) - SAME_FOR_ALL))
def test_trap_different_histories_get_different_lists(name: str, fitted, shop: Shop) -> None:
    """The whole matrix in the place of the users' rows would give one list for everybody.

    Shoppers of the last 90 days: a model may by design see recent purchases only.
    """
    mine = shop.history.purchases.groupby("user_id").agg(
        baskets=("basket_id", "nunique"), last=("ts", "max")
    )
    users = mine.index[
        (mine["baskets"] >= 3) & (mine["last"] > shop.history.as_of - pd.Timedelta(days=90))
    ]
    assert len(users) > 20
    lists = fitted(name).recommend(users, K).groupby("user_id", observed=True)["item_id"].agg(tuple)
    assert lists.nunique() > 0.8 * len(users)


@pytest.mark.parametrize("name", sorted(set(concrete()) - SAME_FOR_ALL))
def test_lists_follow_the_own_history(name: str, fitted, shop: Shop) -> None:
    """A list fits its own shopper better than the next one.

    Rows are not shifted against their users.
    """
    users = shop.history.user_ids
    recs = fitted(name).recommend(users, K)
    right = listed(recs).isin(bought(shop.history)).mean()
    shifted = recs.assign(user_id=np.repeat(np.roll(users, 1), K))
    assert right > 1.3 * listed(shifted).isin(bought(shop.history)).mean()


@every_model
def test_batch_equals_single(name: str, fitted, shop: Shop) -> None:
    users = [*shop.history.user_ids[:8], "stranger"]
    single = pd.concat(
        [
            fitted(name).recommend([user], K).astype({"user_id": str, "item_id": str})
            for user in users
        ]
    )
    same_lists(fitted(name).recommend(users, K).astype({"user_id": str}), single)


@every_model
def test_users_come_in_the_order_asked_and_once(name: str, fitted, shop: Shop) -> None:
    users = shop.history.user_ids[[5, 2, 5, 9]]
    recs = fitted(name).recommend(users, 1)
    assert recs["user_id"].astype(str).tolist() == shop.history.user_ids[[5, 2, 9]].tolist()
    assert fitted(name).recommend([], K).columns.tolist() == recs.columns.tolist()
    assert fitted(name).recommend([], K).empty


@pytest.mark.spec("C6")
@every_model
def test_saved_and_loaded_is_the_same_model(name: str, fitted, shop: Shop, tmp_path: Path) -> None:
    users = [*shop.history.user_ids[:20], "stranger"]
    loaded = load_model(fitted(name).save(tmp_path / name))
    assert type(loaded) is type(fitted(name))
    assert loaded.params == fitted(name).params
    same(loaded.recommend(users, K), fitted(name).recommend(users, K))
    same(
        loaded.recommend(users, K, exclude="bought"),
        fitted(name).recommend(users, K, exclude="bought"),
    )


@pytest.mark.spec("C7")
@every_model
def test_fitting_twice_gives_equal_tables(name: str, fitted, shop: Shop, tmp_path: Path) -> None:
    again = make(name).fit(shop.history)
    same(
        again.recommend(shop.history.user_ids, K), fitted(name).recommend(shop.history.user_ids, K)
    )
    digests = {
        read_json(model.save(tmp_path / str(i)) / "manifest.json")["sha256"]["arrays.npz"]
        for i, model in enumerate((again, fitted(name)))
    }
    assert len(digests) == 1


@every_model
def test_refitting_forgets_what_was_learnt_before(
    name: str, fitted, shop: Shop, tiny: pd.DataFrame
) -> None:
    model = make(name).fit(Interactions.of(tiny)).fit(shop.history)
    same(
        model.recommend(shop.history.user_ids, K), fitted(name).recommend(shop.history.user_ids, K)
    )


@pytest.mark.spec("C5")
@every_model
def test_the_same_as_of_gives_the_same_output_and_only_it_is_the_clock(
    name: str, fitted, shop: Shop
) -> None:
    """All dates and the cut moved by a thousand days: the same lists."""
    move = pd.Timedelta(days=1_000)
    rows = shop.history.purchases
    moved = Interactions.of(
        rows.assign(ts=rows["ts"] + move),
        shop.tables["items"],
        shop.tables["users"],
        shop.history.as_of + move,
    )
    same(
        make(name).fit(moved).recommend(moved.user_ids, K),
        fitted(name).recommend(moved.user_ids, K),
    )


@pytest.mark.spec("C4")
@every_model
def test_ties_go_to_the_more_popular_item_then_the_lower_id(name: str, fitted, shop: Shop) -> None:
    """Items are numbered by popularity, then id: among equal scores the codes ascend."""
    recs = fitted(name).recommend([*shop.history.user_ids, "stranger"], 10_000)
    code = pd.Series(shop.history.item_ids.get_indexer(recs["item_id"]), recs.index)
    tied = (recs["score"].diff() == 0) & (recs["rank"] > 1)
    assert tied.any()
    assert (code.diff()[tied] > 0).all()


@pytest.mark.spec("C4")
@every_model
def test_rows_in_another_order_change_nothing(name: str, fitted, shop: Shop) -> None:
    """Provable where sums are of whole numbers.

    Elsewhere float64 sums, cut to float32, hide their last bits.
    """
    rows = shop.history.purchases.sample(frac=1, random_state=3)
    mixed = Interactions.of(rows, shop.tables["items"], shop.tables["users"], shop.history.as_of)
    same_lists(
        *(
            model.recommend(mixed.user_ids, K).astype({"user_id": str})
            for model in (make(name).fit(mixed), fitted(name))
        )
    )


@every_model
def test_k_above_the_catalogue_gives_every_item_once(name: str, fitted, shop: Shop) -> None:
    users = shop.history.user_ids[:3]
    recs = fitted(name).recommend(users, 10_000)
    assert len(recs) == 3 * shop.history.shape[1]
    assert not recs.duplicated(["user_id", "item_id"]).any()
    same_lists(recs[recs["rank"] <= K], fitted(name).recommend(users, K))


@every_model
def test_trap_nothing_bought_is_filtered_by_default(name: str, fitted, shop: Shop) -> None:
    recs = fitted(name).recommend(shop.history.user_ids, 10_000)
    assert bought(shop.history).isin(listed(recs)).all()


@every_model
def test_unknown_users_get_what_is_popular_now(name: str, fitted, shop: Shop) -> None:
    recs = fitted(name).recommend(["stranger", shop.history.user_ids[0]], K)
    if type(fitted(name))._all_scores is Recommender._all_scores:
        assert recs["item_id"].tolist()[:K] == shop.history.item_ids[:K].tolist()
        assert recs["score"].tolist()[:K] == shop.history.recent[:K].tolist()
    same_lists(
        recs[K:].astype({"user_id": str}),
        fitted(name).recommend(shop.history.user_ids[:1], K).astype({"user_id": str}),
    )


@pytest.mark.spec("S1-10", "S2-24")
@every_model
def test_profiles_are_for_strangers_only(name: str, fitted, shop: Shop) -> None:
    """A profile changes no known user's list.

    A stranger without one, or whose profile says nothing, gets what is popular.
    """
    users = [*shop.history.user_ids[:3], "stranger", "mute"]
    profile = (
        shop.tables["users"]
        .set_index("user_id")
        .iloc[[0]]
        .rename({shop.tables["users"]["user_id"][0]: "stranger"})
    )
    free = fitted(name).recommend(users, K)
    told = fitted(name).recommend(
        users, K, profiles=pd.concat([profile, shop.tables["users"].set_index("user_id")[3:6]])
    )
    at = told["user_id"].astype(str)
    same_lists(
        told[at != "stranger"].astype({"user_id": str}),
        free[at != "stranger"].astype({"user_id": str}),
    )
    learns = type(fitted(name))._cold_scores is not Recommender._cold_scores
    assert (
        told[at == "stranger"]["item_id"].tolist() != free[at == "stranger"]["item_id"].tolist()
    ) == learns
    pairs = told[at == "stranger"][["user_id", "item_id"]]
    assert np.allclose(
        fitted(name).score(pairs, profile), told[at == "stranger"]["score"], rtol=1e-5, atol=1e-6
    )


@every_model
def test_exclude_bought_leaves_only_new_items_and_full_lists(name: str, fitted, shop: Shop) -> None:
    users = [*shop.history.user_ids, "stranger"]
    recs = fitted(name).recommend(users, K, exclude="bought")
    assert not listed(recs).isin(bought(shop.history)).any()
    assert len(recs) == K * len(users)
    everything = fitted(name).recommend(users, 10_000)
    new = everything[~listed(everything).isin(bought(shop.history))]
    expected = new[new.groupby("user_id", observed=True).cumcount() < K]
    assert recs["item_id"].astype(str).tolist() == expected["item_id"].astype(str).tolist()


@every_model
def test_exclude_takes_items_or_a_table(name: str, fitted, shop: Shop) -> None:
    users = shop.history.user_ids[:4]
    free = fitted(name).recommend(users, K)
    best = free[free["rank"] == 1]
    recs = fitted(name).recommend(users, K, exclude=[*best["item_id"].unique(), "no such item"])
    assert not recs["item_id"].isin(best["item_id"].unique()).any()
    assert len(recs) == 4 * K
    recs = fitted(name).recommend(users, K - 1, exclude=best[["user_id", "item_id"]])
    assert (
        recs["item_id"].astype(str).tolist()
        == free[free["rank"] > 1]["item_id"].astype(str).tolist()
    )


@every_model
def test_only_is_all_that_may_appear(name: str, fitted, shop: Shop) -> None:
    allowed = {*shop.history.item_ids[3:40:4]}
    recs = fitted(name).recommend([*shop.history.user_ids[:9], "stranger"], 50, only=allowed)
    assert len(recs) == 10 * len(allowed)
    assert set(recs["item_id"].astype(str)) == allowed
    assert fitted(name).recommend(["stranger"], 50, exclude=allowed, only=allowed).empty


@every_model
def test_k_and_exclude_are_checked(name: str, fitted) -> None:
    with pytest.raises(LabError, match="k is 0"):
        fitted(name).recommend(["u"], 0)
    with pytest.raises(LabError, match="exclude is 'seen'"):
        fitted(name).recommend(["u"], 5, exclude="seen")


@pytest.mark.spec("C8")
@every_model
def test_score_of_pairs_is_the_score_in_the_table(name: str, fitted, shop: Shop) -> None:
    recs = (
        fitted(name)
        .recommend([*shop.history.user_ids, "stranger"], 30)
        .sample(frac=1, random_state=0)
    )
    assert np.allclose(
        fitted(name).score(recs[["user_id", "item_id"]]), recs["score"], rtol=1e-5, atol=1e-6
    )
    odd = pd.DataFrame(
        {"user_id": ["stranger", shop.history.user_ids[0]], "item_id": ["no such item"] * 2}
    )
    assert np.isnan(fitted(name).score(odd)).all()
    assert len(fitted(name).score(odd[:0])) == 0


@pytest.mark.spec("C8")
@every_model
def test_similar_items_exclude_the_item_itself(name: str, fitted, shop: Shop) -> None:
    item = shop.history.item_ids[0]
    n = shop.history.shape[1]
    if type(fitted(name))._similar is Recommender._similar:
        with pytest.raises(NotSupported, match=name):
            fitted(name).similar(item)
        return
    result = fitted(name).similar(item, 10_000)
    assert len(result) == n - 1 == result["item_id"].nunique()
    assert item not in set(result["item_id"])
    assert result["score"].is_monotonic_decreasing
    assert result["score"].nunique() > 1
    pd.testing.assert_frame_equal(fitted(name).similar(item, 7), result.head(7))
    with pytest.raises(LabError, match="no such item"):
        fitted(name).similar("no such item")


@pytest.mark.spec("C8")
@pytest.mark.parametrize(
    "name", [n for n in concrete() if REGISTRY[n]._similar is not Recommender._similar]
)
def test_similar_checks_k_and_survives_a_single_item(name: str, fitted, shop: Shop) -> None:
    with pytest.raises(LabError, match="k is 0"):
        fitted(name).similar(shop.history.item_ids[0], 0)
    lonely = Interactions.of(
        receipts("u x b1 2024-01-01 1 1\nu x b2 2024-01-02 1 1\nv x b3 2024-01-03 1 1")
    )
    assert make(name).fit(lonely).similar("x").empty


@every_model
def test_a_shop_of_a_few_receipts_is_served(name: str, tiny: pd.DataFrame) -> None:
    recs = (
        make(name)
        .fit(Interactions.of(tiny.drop(columns="price")))
        .recommend(["ann", "bob", "cat"], 4)
    )
    assert len(recs) == 12
    assert np.isfinite(recs["score"]).all()


@every_model
def test_a_single_shopper_is_served(name: str, tiny: pd.DataFrame) -> None:
    recs = (
        make(name).fit(Interactions.of(tiny[tiny["user_id"] == "ann"])).recommend(["ann", "bob"], 3)
    )
    assert len(recs) == 6
    assert np.isfinite(recs["score"]).all()


@every_model
def test_an_empty_history_is_refused_by_name(name: str, tiny: pd.DataFrame) -> None:
    with pytest.raises(LabError, match=f"{name} was given no purchases"):
        make(name).fit(Interactions.of(tiny[:0], as_of=pd.Timestamp("2024-01-01")))


def bad_parameters() -> list[tuple[str, str, object]]:
    """Every number below its range and not a number, every choice out of its options."""
    result = []
    for name in concrete():
        hints = typing.get_type_hints(REGISTRY[name])
        for field in (f.name for f in dataclasses.fields(REGISTRY[name]) if f.name != "seed"):
            options = {hints[field], *typing.get_args(hints[field])}
            if options & {int, float}:
                result += [(name, field, -1), (name, field, float("nan"))]
            elif typing.get_origin(hints[field]) is typing.Literal:
                result.append((name, field, "nonsense"))
    return result


@pytest.mark.parametrize(("name", "field", "value"), bad_parameters())
def test_a_parameter_out_of_range_is_named(name: str, field: str, value: object) -> None:
    with pytest.raises(LabError, match=field):
        REGISTRY[name](**{field: value})


@every_model
def test_a_mistyped_parameter_is_an_error(name: str) -> None:
    with pytest.raises(TypeError, match="factorz"):
        REGISTRY[name](factorz=8)


# ---- artifacts


@pytest.fixture
def artifact(shop: Shop, tmp_path: Path) -> Path:
    return Popular().fit(shop.history).save(tmp_path / "popular")


@pytest.mark.spec("C6")
def test_the_manifest_says_what_it_vouches_for(artifact: Path) -> None:
    meta = read_json(artifact / "manifest.json")
    assert {"schema", "kind", "cut", "sha256", "libraries", "model", "params"} <= meta.keys()
    assert meta["model"] == "Popular"
    files = {path.name for path in artifact.iterdir()}
    assert files == {"manifest.json", meta["names"]["arrays.npz"]}


@pytest.mark.spec("C6")
def test_the_manifest_holds_the_cut(artifact: Path, shop: Shop) -> None:
    assert str(shop.history.as_of.date()) in json.dumps(read_json(artifact / "manifest.json"))


@pytest.mark.spec("C6")
@settings(max_examples=40, deadline=None)
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_changed_byte_is_refused_by_name(
    where: float, bit: int, tmp_path_factory: pytest.TempPathFactory, shop: Shop
) -> None:
    folder = Popular().fit(shop.history).save(tmp_path_factory.mktemp("changed"))
    path = next(folder.glob("*.npz"))
    assert isinstance(load_model(folder), Popular)
    raw = bytearray(path.read_bytes())
    raw[int(where * len(raw))] ^= 1 << bit
    path.write_bytes(raw)
    with pytest.raises(LabError, match=path.name):
        load_model(folder)


@pytest.mark.spec("C6")
def test_a_missing_file_is_refused_by_name(artifact: Path) -> None:
    arrays = next(artifact.glob("*.npz"))
    arrays.unlink()
    with pytest.raises(LabError, match=arrays.name):
        load_model(artifact)
    (artifact / "manifest.json").unlink()
    with pytest.raises(LabError, match="manifest.json is missing"):
        load_model(artifact)


@pytest.mark.spec("C6")
def test_an_unknown_model_is_refused_by_name(tmp_path: Path) -> None:
    meta = {"model": "Oracle", "module": "recsys_utils.models.base", "params": {}}
    folder = save_bundle(tmp_path, "model", {"arrays.npz": {"x_": np.zeros(3)}}, meta, None)
    with pytest.raises(LabError, match="unknown model 'Oracle'"):
        load_model(folder)


@pytest.mark.spec("C6")
def test_another_schema_is_refused(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as later:
        later.setattr(store, "SCHEMA", 99)
        folder = Popular().fit(shop.history).save(tmp_path)
    with pytest.raises(LabError, match="schema 99"):
        load_model(folder)


@pytest.mark.spec("C6")
@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace('"days": 28', '"days": 29'),
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"sha256"', '"sha265"'),
    ],
    ids=["a parameter", "half a file", "a key"],
)
def test_a_damaged_manifest_is_refused_by_name(
    artifact: Path, damage: Callable[[str], str]
) -> None:
    path = artifact / "manifest.json"
    before = path.read_text()
    path.write_text(damage(before))
    assert path.read_text() != before
    with pytest.raises(LabError, match=r"manifest\.json"):
        load_model(artifact)


@pytest.mark.spec("C6")
def test_saving_again_replaces_the_old_arrays(artifact: Path, tiny: pd.DataFrame) -> None:
    Popular().fit(Interactions.of(tiny)).save(artifact)
    assert len(list(artifact.glob("*.npz"))) == 1
    assert load_model(artifact).item_ids_.tolist() == [
        "jam",
        "milk",
        "beer",
        "bread",
    ]


@pytest.mark.spec("C6")
@given(
    st.dictionaries(
        st.text("abc_", min_size=1),
        st.tuples(st.integers(1, 4), st.integers(1, 4), st.booleans()),
        max_size=4,
    )
)
@settings(max_examples=25, deadline=None)
def test_arrays_survive_the_round_trip(
    tmp_path_factory: pytest.TempPathFactory, shapes: dict
) -> None:
    rng = np.random.default_rng(0)
    dense = {
        name: rng.integers(0, 3, (r, c)).astype(np.float32) for name, (r, c, _) in shapes.items()
    }
    arrays = {name: sparse.csr_matrix(a) if shapes[name][2] else a for name, a in dense.items()}
    folder = tmp_path_factory.mktemp("arrays")
    save_bundle(folder, "arrays", {"a.npz": arrays}, {}, None)
    read = load_bundle(folder, "arrays", "save")[0]["a.npz"]
    assert read.keys() == arrays.keys()
    for name, a in read.items():
        assert sparse.issparse(a) == shapes[name][2]
        assert np.array_equal(a.toarray() if sparse.issparse(a) else a, dense[name])


# ---- over the source


def calls(tree: ast.AST) -> list[tuple[str, set[str]]]:
    """Dotted names of everything called, with the keywords given."""
    return [
        (ast.unparse(node.func), {k.arg for k in node.keywords})
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    ]


def imports(tree: ast.AST) -> set[str]:
    whole = {
        alias.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    return whole | {
        (node.module or "").split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
    }


def forbidden(source: str) -> list[str]:
    """What could run code while an artifact is read."""
    tree = ast.parse(source)
    found = sorted(imports(tree) & {"pickle", "joblib", "dill", "cloudpickle", "shelve", "marshal"})
    found += [
        f
        for f, keywords in calls(tree)
        if f.endswith("torch.load") and "weights_only" not in keywords
    ]
    found += [f for f, _ in calls(tree) if f.split(".")[-1] in ("read_pickle", "to_pickle")]
    return found + [
        ast.unparse(k)
        for k in ast.walk(tree)
        if isinstance(k, ast.keyword)
        and ast.unparse(k) in ("allow_pickle=True", "weights_only=False")
    ]


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@pytest.mark.spec("C6")
@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "pd.read_pickle(f)",
        "np.load(f, allow_pickle=True)",
    ],
)
def test_the_search_for_pickles_finds_one(line: str) -> None:
    assert forbidden(line)
    assert not forbidden("torch.load(f, weights_only=True); np.load(f, allow_pickle=False)")


@pytest.mark.spec("C6")
@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nothing_is_unpickled(path: Path) -> None:
    assert forbidden(path.read_text()) == []


@pytest.mark.spec("C5")
@pytest.mark.parametrize(
    "path",
    [
        p
        for p in sources()
        if p.parent.name == "models"
        or p.stem in ("interactions", "split", "prefilter", "metrics", "eda", "topk")
    ],
    ids=lambda p: str(p.relative_to(PACKAGE)),
)
def test_no_model_reads_the_wall_clock(path: Path) -> None:
    clocks = {"now", "today", "utcnow", "time", "time_ns"}
    assert [
        f for f, _ in calls(ast.parse(path.read_text())) if "." in f and f.split(".")[-1] in clocks
    ] == []


# ---- by hand: popularity and repeat


def best(
    model: Recommender, rows: pd.DataFrame, user: str = "ann", k: int = 9, **options: object
) -> list[str]:
    return (
        model.fit(Interactions.of(rows))
        .recommend([user], k, **options)["item_id"]
        .astype(str)
        .tolist()
    )


def test_popular_counts_lines_or_users_of_the_last_days_or_ever(tiny: pd.DataFrame) -> None:
    assert best(Popular(28), tiny) == ["jam", "milk", "beer", "bread"]
    assert best(Popular(None), tiny) == ["milk", "jam", "beer", "bread"]  # 4, 2, 2, 2
    assert best(Popular(None, "users"), tiny) == ["jam", "milk", "bread", "beer"]  # 2, 2, 2, 1
    assert best(Popular(2), tiny)[:3] == ["jam", "milk", "beer"]


def test_popular_is_one_list_for_everybody(tiny: pd.DataFrame) -> None:
    assert (
        best(Popular(), tiny, "ann")
        == best(Popular(), tiny, "bob")
        == best(Popular(), tiny, "nobody")
    )


def test_own_purchases_by_count_then_popularity(tiny: pd.DataFrame) -> None:
    assert best(OwnPurchases(None), tiny) == ["milk", "jam", "bread", "beer"]
    assert best(OwnPurchases(None), tiny, "bob") == ["beer", "bread", "jam", "milk"]


def test_own_purchases_decay_prefers_the_recent() -> None:
    rows = receipts("u old b1 2024-01-01 1 1\nu old b2 2024-01-02 1 1\nu new b3 2024-03-01 1 1")
    assert best(OwnPurchases(None), rows, "u") == ["old", "new"]
    assert best(OwnPurchases(30), rows, "u") == ["new", "old"]


def test_own_purchases_ties_may_go_to_all_time_shoppers_but_never_beat_a_basket() -> None:
    others = "\n".join(f"v{i} ever c{i} 2023-01-01 1 1" for i in range(50))
    rows = receipts(
        "u twice b1 2024-01-01 1 1\nu twice b2 2024-03-01 1 1\nu now b3 2024-03-01 1 1\nu ever b4"
        f" 2024-01-01 1 1\n{others}"
    )
    assert best(OwnPurchases(None), rows, "u") == ["twice", "now", "ever"]
    assert best(OwnPurchases(None, "all_time"), rows, "u") == ["twice", "ever", "now"]


# ---- by hand: neighbours


@pytest.mark.spec("S5-02", "S5-03", "S5-04")
def test_the_signal_of_each_line_by_hand() -> None:
    """Mean prices: u 2, v 10; mean quantities: a 2, b 6."""
    rows = receipts("u a b1 2024-01-01 1 1\nu b b2 2024-01-02 6 3\nv a b3 2024-01-03 3 10")
    spending = np.array([1 / 2, 3 / 2, 1])
    quantity = np.array([1 / 2, 1, 3 / 2])
    assert np.allclose(
        signal(Interactions.of(rows)), np.sqrt(np.log1p(spending) * np.log1p(quantity))
    )


@pytest.mark.spec("S5-02")
def test_a_mean_of_zero_or_no_prices_count_as_one() -> None:
    rows = receipts("u a b1 2024-01-01 2 0\nu a b2 2024-01-02 2 0")
    assert np.allclose(signal(Interactions.of(rows)), np.log1p(1))
    assert np.allclose(signal(Interactions.of(rows.drop(columns="price"))), np.log1p(1))


@pytest.mark.spec("S5-04")
def test_both_ratios_are_clipped() -> None:
    many = "\n".join(f"u a b{i} 2024-01-01 1 1" for i in range(999))
    strong = signal(Interactions.of(receipts(f"{many}\nu a c 2024-01-02 1 1e9")))
    assert strong[-1] == pytest.approx(np.sqrt(5 * np.log1p(1)))
    assert strong[0] == pytest.approx(np.sqrt(0.1 * np.log1p(1)))


def dense_copurchase(data: Interactions) -> tuple[pd.DataFrame, pd.DataFrame]:
    """In loops: similarity and user scores."""
    s = pd.Series(
        signal(data), pd.MultiIndex.from_frame(data.purchases[["user_id", "basket_id", "item_id"]])
    )
    items = data.item_ids
    total = s.groupby("item_id").sum()
    similarity = pd.DataFrame(0.0, items, items)
    for _, basket in s.groupby(["user_id", "basket_id"]):
        for a, b in ((a, b) for a in basket.index for b in basket.index):
            similarity.loc[a[2], b[2]] += np.sqrt(s[a] * s[b]) / np.sqrt(total[a[2]] * total[b[2]])
    taste = s.groupby(["user_id", "item_id"]).sum().unstack(fill_value=0)[items]
    return similarity, (taste @ similarity).div(taste.sum(axis=1), axis=0)


@pytest.mark.spec("S5-05")
def test_similarity_and_scores_are_those_of_the_formula(tiny: pd.DataFrame) -> None:
    data = Interactions.of(tiny)
    similarity, scores = dense_copurchase(data)
    model = CoPurchase(tau=None, threshold=0).fit(data)
    assert np.allclose(model.similarity_.toarray(), similarity, atol=1e-6)
    recs = model.recommend(["ann", "bob", "cat"])
    assert np.allclose(
        recs["score"],
        [scores.loc[u, i] for u, i in zip(recs["user_id"], recs["item_id"])],
        atol=1e-6,
    )


@pytest.mark.spec("S5-05")
def test_similarity_is_at_most_one_single_item_baskets_included(shop: Shop) -> None:
    result = CoPurchase(threshold=0, neighbours=1_000).fit(shop.history).similarity_.toarray()
    assert result.max() <= 1 + 1e-6
    assert np.allclose(np.diag(result), 1, atol=1e-6)
    assert np.allclose(result, result.T, atol=1e-6)


@pytest.mark.spec("S5-05")
def test_single_item_baskets_lower_a_similarity() -> None:
    pair = "u a b1 2024-01-01 1 1\nu b b1 2024-01-01 1 1\nv c b2 2024-01-01 1 1"
    alone = f"{pair}\nv a b3 2024-01-02 1 1"
    near = [
        CoPurchase(tau=None)
        .fit(Interactions.of(receipts(text)))
        .similar("a")
        .set_index("item_id")["score"]["b"]
        for text in (pair, alone)
    ]
    assert near[0] == pytest.approx(1)
    assert near[1] == pytest.approx(np.sqrt(0.5))


@pytest.mark.spec("S5-05")
def test_the_same_basket_number_of_two_users_is_two_baskets() -> None:
    rows = receipts("u a 1 2024-01-01 1 1\nv b 1 2024-01-01 1 1")
    assert CoPurchase().fit(Interactions.of(rows)).similar("a")["score"].tolist() == [0]


def test_item_cosine_is_the_cosine_of_buyers(shop: Shop) -> None:
    x = (shop.history.matrix().toarray() > 0).astype(float)
    unit = x / np.linalg.norm(x, axis=0)
    model = ItemCF("cosine", "binary", neighbours=10_000, tau=60).fit(shop.history)
    assert np.allclose(model.similarity_.toarray(), unit.T @ unit, atol=1e-6)
    expected = shop.history.matrix(60).toarray() @ (unit.T @ unit)
    recs = model.recommend(shop.history.user_ids, 5)
    assert np.allclose(
        recs["score"].to_numpy().reshape(-1, 5), -np.sort(-expected, axis=1)[:, :5], rtol=1e-4
    )


def test_neighbours_are_so_many_per_item_itself_included(shop: Shop) -> None:
    model = ItemCF("cosine", "binary", neighbours=7).fit(shop.history)
    assert np.diff(model.similarity_.indptr).max() == 7
    assert (model.similarity_.diagonal() > 0.99).all()


def test_trap_one_neighbour_is_the_item_itself_and_bought_items_stay_out_when_excluded(
    shop: Shop,
) -> None:
    """implicit's ItemItemRecommender(K=1) with its filter on returns bought items."""
    model = ItemCF("cosine", "binary", neighbours=1).fit(shop.history)
    free = model.recommend(shop.history.user_ids, 3)
    assert listed(free[free["score"] > 0]).isin(bought(shop.history)).all()
    assert (
        not listed(model.recommend(shop.history.user_ids, 3, exclude="bought"))
        .isin(bought(shop.history))
        .any()
    )


@pytest.mark.parametrize("model", [ItemCF(own=0), CoPurchase(own=0)])
def test_own_weight_of_zero_takes_an_item_out_of_its_own_score(model: Recommender) -> None:
    rows = receipts("u a b1 2024-01-01 1 1\nv c b2 2024-01-01 1 1\nw c b3 2024-01-01 1 1")
    assert model.fit(Interactions.of(rows)).score(
        pd.DataFrame({"user_id": ["u"], "item_id": ["a"]})
    ).tolist() == [0]


# ---- factors: planted tastes


@pytest.fixture(scope="module")
def clans() -> tuple[Interactions, pd.DataFrame]:
    """60 shoppers of two clans, each buying 12 of its clan's 20 items.

    The rest of the clan's items is the truth.
    """
    rng = np.random.default_rng(0)
    rows = []
    rest = []
    for u in range(60):
        items = [f"{'ab'[u % 2]}{i:02d}" for i in rng.permutation(20)]
        rows += [(f"u{u:02d}", i, f"b{u}", "2024-01-01", 1, 1) for i in items[:12]]
        rest += [(f"u{u:02d}", i) for i in items[12:]]
    return (
        Interactions.of(receipts("\n".join(" ".join(map(str, row)) for row in rows))),
        pd.DataFrame(rest, columns=["user_id", "item_id"]),
    )


@pytest.mark.spec("S5-01")
@pytest.mark.parametrize(
    "model",
    [
        ALS(8, iterations=10),
        BPR(8, iterations=200),
        EASE(10.0),
        ItemCF(),
        EASE(10.0, "log"),
        ALS(8, weighting="signal"),
    ],
    ids=lambda m: f"{type(m).__name__}-{m.params.get('weighting', '')}",
)
def test_planted_tastes_are_found_and_beat_popularity(model: Recommender, clans) -> None:
    data, truth = clans
    right = pd.MultiIndex.from_frame(truth)
    share = [
        listed(m.fit(data).recommend(data.user_ids, 5, exclude="bought")).isin(right).mean()
        for m in (model, Popular())
    ]
    assert share[0] > 0.9
    assert share[0] > share[1] + 0.2


@pytest.mark.spec("S5-01")
@pytest.mark.parametrize("base", [1, 0])
def test_als_solves_hu_koren_volinsky(clans, base: float) -> None:
    """At convergence each user's factors solve (YᵀCY + λI)x = YᵀCp over all items, unobserved ones
    with confidence 1.
    """
    data, _ = clans
    model = ALS(4, regularization=0.5, alpha=3, iterations=200, tau=None, base=base).fit(data)
    y = model.item_factors_.astype(float)
    confidence = np.where(data.matrix().toarray() > 0, base + 3 * data.matrix().toarray(), 1)
    bought_ = data.matrix().toarray() > 0
    solved = [
        np.linalg.solve((y.T * c) @ y + 0.5 * np.eye(4), (y.T * c) @ p)
        for c, p in zip(confidence, bought_)
    ]
    assert np.allclose(model.user_factors_, solved, atol=1e-2)


def test_ease_is_steck_s_closed_form(shop: Shop) -> None:
    model = EASE(50.0, tau=None).fit(shop.history)
    x = shop.history.matrix().toarray().astype(float)
    p = np.linalg.inv(x.T @ x + 50 * np.eye(x.shape[1]))
    expected = -p / np.diag(p)
    np.fill_diagonal(expected, 0)
    assert np.allclose(model.weights_, expected, atol=1e-4)


def test_ease_own_adds_the_diagonal_back(clans) -> None:
    data, _ = clans
    assert np.allclose(np.diag(EASE(own=0.7).fit(data).weights_), 0.7)
    assert not np.diag(EASE().fit(data).weights_).any()


@pytest.mark.spec("C7")
@pytest.mark.parametrize("cls", [ALS, BPR])
def test_another_seed_gives_other_factors(cls: type[Recommender], clans) -> None:
    data, _ = clans
    a, b, again = (
        cls(factors=8, iterations=3, seed=seed).fit(data).item_factors_ for seed in (1, 2, 1)
    )
    assert np.array_equal(a, again)
    assert not np.allclose(a, b)


def test_bpr_sees_recent_purchases_only(clans) -> None:
    data, _ = clans
    old = receipts("late z b 2026-01-01 1 1")
    late = Interactions.of(pd.concat([data.purchases, old], ignore_index=True))
    assert not np.array_equal(
        BPR(8, iterations=3, days=5).fit(late).item_factors_,
        BPR(8, iterations=3, days=None).fit(late).item_factors_,
    )
