"""Two towers: network, data sets, training, and the two towers as a model of receipts."""

import logging

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lab import rating_towers
from scipy import sparse
from shops import Shop, receipts, synthetic_tables
from test_standalone import ITEM_CAT, USER_CAT, USER_NUM, df_clean

from recsys_utils import LabError
from recsys_utils.data.attributes import vocabulary
from recsys_utils.data.interactions import Interactions
from recsys_utils.models.towers.network import Encoder, TwoTowerHybrid, text
from recsys_utils.models.towers.ratings import RATING
from recsys_utils.models.towers.training import (
    Prepared,
    TwoTowerDataset,
    batch_loss,
    date_split,
    item_catalogue,
    prepare,
    train_two_tower_model,
    transactions,
    unbought,
)
from recsys_utils.models.towers.two_tower import TwoTower, _pooled, _without


@pytest.fixture(scope="module")
def clean() -> pd.DataFrame:
    return df_clean()


@pytest.fixture(scope="module")
def made(clean: pd.DataFrame) -> Prepared:
    return prepare(clean, USER_CAT, USER_NUM, ITEM_CAT)


def tower(**options: object) -> TwoTowerHybrid:
    torch.manual_seed(0)
    return TwoTowerHybrid({"id": 5, "city": 3}, [4, 2], ["age"], **options).eval()


USER = torch.tensor([[1, 2], [4, 0]])
NUM = torch.tensor([[0.5], [-1.0]])
ITEM = torch.tensor([[3, 1], [0, 1]])


# ---- network


@pytest.mark.spec("S2-01", "S2-02", "S2-08")
def test_any_columns_make_vectors_of_one_size() -> None:
    for users, items, numbers in (
        ([7], [3], 0),
        ([5, 2, 9], [4, 4, 4, 2], 3),
        ({"a": 5}, {"b": 2}, ["x", "y"]),
    ):
        model = TwoTowerHybrid(users, items, numbers, dim=24)
        n = len(numbers) if isinstance(numbers, list) else numbers
        u = model.users(torch.zeros(6, len(users), dtype=torch.int64), torch.zeros(6, n))[0]
        assert u.shape == (6, 24)
        assert model.items(torch.zeros(5, len(items), dtype=torch.int64))[0].shape == (5, 24)


@pytest.mark.spec("S2-01")
def test_every_column_and_number_matters_and_columns_do_not_share_values() -> None:
    model = tower()
    base = model.users(USER, NUM)[0]
    for other in (
        model.users(torch.tensor([[1, 1], [4, 2]]), NUM)[0],
        model.users(USER, NUM + 1)[0],
    ):
        assert not torch.allclose(base, other)
    assert not torch.allclose(
        *(model.users(torch.tensor([pair]), NUM[:1])[0] for pair in ([1, 2], [2, 1]))
    )


@pytest.mark.spec("S2-03")
def test_cosine_ignores_the_length_of_a_tower_and_dot_does_not() -> None:
    for similarity, same in (("cosine", True), ("dot", False)):
        model = tower(similarity=similarity, biases=False)
        before = model(USER, NUM, ITEM)
        with torch.no_grad():
            model.item_tower.mlp[-1].weight *= 3
            model.item_tower.mlp[-1].bias *= 3
        assert torch.allclose(before, model(USER, NUM, ITEM), atol=1e-6) is same
    with pytest.raises(LabError, match="choose cosine, dot"):
        tower(similarity="euclid")


@pytest.mark.spec("S2-04")
def test_p_is_the_sigmoid_of_t_times_cosine_plus_b() -> None:
    model = tower(biases=False)
    u = model.users(USER, NUM)[0]
    v = model.items(ITEM)[0]
    cosine = torch.cosine_similarity(u, v)
    with torch.no_grad():
        model.b.fill_(0.3)
        for log_t in (-2.0, 0.0, 3.0):
            model.log_t.fill_(log_t)
            assert torch.allclose(
                model(USER, NUM, ITEM), torch.sigmoid(np.exp(log_t) * cosine + 0.3), atol=1e-6
            )
    assert model.log_t.requires_grad
    assert model.b.requires_grad
    # What t = 1 could reach at most.
    assert 1 + 4 * torch.sigmoid(torch.tensor(1.0)) == pytest.approx(3.92, abs=0.005)


@pytest.mark.spec("S2-25")
def test_unknown_values_have_an_embedding_that_training_reaches() -> None:
    data = TwoTowerDataset(
        np.arange(4) % 2,
        np.arange(4),
        np.ones((4, 2)),
        np.zeros((4, 1)),
        np.ones((4, 1)),
        np.ones((9, 1)),
        negatives=1,
    )
    for tokens, reached in ((0.5, True), (0.0, False)):
        model = TwoTowerHybrid([3, 3], [3], 1, tokens=tokens).train()
        batch_loss(model, data, torch.arange(4), "bce")[0].backward()
        assert bool(model.user_tower.embedding.weight.grad[[0, 3]].abs().sum() > 0) is reached


@pytest.mark.parametrize("sizes", [[], [0], [4, -1]])
def test_bad_sizes_are_named(sizes: list[int]) -> None:
    with pytest.raises(LabError, match="user_cat_sizes"):
        TwoTowerHybrid(sizes, [3], 0)


# ---- negatives and data sets


@pytest.mark.spec("S2-09")
@settings(max_examples=60, deadline=None)
@given(st.lists(st.sets(st.integers(0, 7), max_size=7), min_size=1, max_size=6))
def test_the_nth_unbought_item_is_exact(bought: list[set[int]]) -> None:
    cells = [(u, i) for u, items in enumerate(bought) for i in items]
    row, column = np.array(cells, int).reshape(-1, 2).T
    matrix = sparse.csr_matrix((np.ones(len(row)), (row, column)), shape=(len(bought), 8))
    matrix.sum_duplicates()
    for user, items in enumerate(bought):
        others = sorted(set(range(8)) - items)
        assert (
            unbought(matrix, np.full(len(others), user), np.arange(len(others))).tolist() == others
        )


@pytest.mark.spec("S2-09", "S2-18")
@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5)), min_size=1, max_size=25),
    st.integers(1, 5),
    st.integers(0, 3),
)
def test_negatives_are_never_positives_and_the_length_is_told(
    pairs: list[tuple[int, int]], k: int, epoch: int
) -> None:
    user, item = np.array(pairs).T
    data = TwoTowerDataset(
        user,
        item,
        user[:, None],
        np.zeros((len(user), 0)),
        item[:, None],
        np.arange(6)[:, None],
        negatives=k,
    )
    full = {u for u in set(user) if len({i for v, i in pairs if v == u}) == 6}
    assert len(data) == sum(u not in full for u in user) * (1 + k)
    data.redraw(epoch)
    for n in range(len(data)):
        who, _, what, label = data[n]
        assert ((int(who[0]), int(what[0])) in pairs) == bool(label == 1) == (n % (1 + k) == 0)


@pytest.mark.spec("S2-09")
def test_negatives_are_seeded_redrawn_each_epoch_and_uniform(made: Prepared) -> None:
    data = made.train
    data.redraw(1)
    first = data.drawn.clone()
    data.redraw(2)
    assert not torch.equal(first, data.drawn)
    data.redraw(1)
    assert torch.equal(first, data.drawn)
    one = np.zeros(1, int)
    five = np.arange(5)[:, None]
    free = TwoTowerDataset(
        one, one, np.zeros((1, 1)), np.zeros((1, 0)), np.zeros((1, 1)), five, negatives=8000
    )
    counts = np.bincount(free.drawn.ravel(), minlength=5)
    assert counts[0] == 0
    assert np.abs(counts[1:] / 8000 - 0.25).max() < 0.02


@pytest.mark.spec("S2-18")
def test_all_parts_have_sampled_negatives_of_the_same_share(made: Prepared) -> None:
    for part in (made.train, made.val, made.test):
        labels = torch.stack([part[n][3] for n in range(50)])
        assert labels.tolist() == [1.0, 0.0, 0.0, 0.0, 0.0] * 10
    with pytest.raises(IndexError):
        made.train[len(made.train)]
    loader = torch.utils.data.DataLoader(made.train, batch_size=10)
    user_cat, user_num, item_cat, label = next(iter(loader))
    assert user_cat.shape == (10, len(USER_CAT))
    assert user_num.shape == (10, 3)
    assert item_cat.shape == (10, 4)
    assert label.shape == (10,)


@pytest.mark.spec("S2-09")
def test_validation_negatives_are_no_train_positives(made: Prepared) -> None:
    bought = set(zip(made.train.user.tolist(), made.train.item.tolist())) | set(
        zip(made.val.user.tolist(), made.val.item.tolist())
    )
    drawn = {(int(u), int(i)) for u, row in zip(made.val.user, made.val.drawn) for i in row}
    assert drawn
    assert not drawn & bought


@pytest.mark.spec("S2-19")
def test_rating_mode_has_soft_labels(clean: pd.DataFrame) -> None:
    data = prepare(clean, USER_CAT, USER_NUM, ITEM_CAT, mode="rating", negatives=1)
    train = date_split(clean)[0]
    assert torch.allclose(
        data.train.label[:, 0],
        torch.tensor(((train["Ratings"] - 1) / 4).to_numpy(), dtype=torch.float32),
    )
    assert data.train.label[:, 1].unique().tolist() == pytest.approx([0.2])
    with pytest.raises(LabError, match="needs a column Ratings"):
        prepare(clean.drop(columns="Ratings"), USER_CAT, USER_NUM, ITEM_CAT, mode="rating")


# ---- preparation


@pytest.mark.spec("S2-16")
def test_parts_are_strictly_ordered_by_date(clean: pd.DataFrame) -> None:
    train, val, test = date_split(clean.sample(frac=1, random_state=0))
    assert train["Date"].max() < val["Date"].min()
    assert val["Date"].max() < test["Date"].min()
    assert len(train) + len(val) + len(test) == len(clean)
    assert abs(len(train) / len(clean) - 0.7) < 0.02
    assert abs(len(test) / len(clean) - 0.15) < 0.02
    with pytest.raises(LabError, match="need more dates"):
        date_split(clean.assign(Date=clean["Date"].min()))


@pytest.mark.spec("S2-11")
def test_codes_are_one_to_one_and_zero_is_unknown() -> None:
    rows = pd.DataFrame({"id": [3.0, 1.0, 3.0], "city": ["b", None, "a"], "item": ["x", "y", "x"]})
    encoder = Encoder.fit(rows, ["id", "city"], [], ["item"])
    assert encoder.mappings == {
        "id": {"1": 1, "3": 2},
        "city": {"a": 1, "b": 2},
        "item": {"x": 1, "y": 2},
    }
    assert encoder.users(pd.DataFrame({"id": [3, 9], "city": ["never", "a"]}))[0].tolist() == [
        [2, 0],
        [0, 1],
    ]
    assert encoder.items(pd.DataFrame(index=[0])).tolist() == [[0]]
    assert encoder.user_cat_sizes == {
        "id": 3,
        "city": 3,
    }
    assert Encoder.from_json(encoder.to_json()) == encoder
    with pytest.raises(LabError, match="lack the column 'town'"):
        Encoder.fit(rows, ["town"], [], ["item"])


@pytest.mark.spec("S2-12")
def test_scalers_by_hand() -> None:
    rows = pd.DataFrame(
        {
            "id": 1,
            "item": 1,
            "Age": [20.0, 40, 60],
            "Total_Purchases": [2, 4, 10],
            "Amount": np.expm1([1.0, 2, 3]),
        }
    )
    encoder = Encoder.fit(rows, ["id"], USER_NUM, ["item"])
    spread = np.sqrt(2 / 3)
    assert encoder.users(rows)[1] == pytest.approx(
        np.array([[-1 / spread, 0, -1 / spread], [0, 0.25, 0], [1 / spread, 1, 1 / spread]]),
        abs=1e-6,
    )
    odd = encoder.users(pd.DataFrame({"Age": [np.nan, 500], "Amount": ["?", -5]}))[1]
    assert odd == pytest.approx(
        np.array([[0, (16 / 3 - 2) / 8, 0], [1 / spread, (16 / 3 - 2) / 8, -1 / spread]]), abs=1e-6
    )


@pytest.mark.spec("S2-13", "S2-14")
def test_profiles_are_of_the_last_train_row_and_histories_of_train() -> None:
    rows = pd.DataFrame(
        {
            "Customer_ID": ["a", "a", "b", "a", "b", "a"],
            "City": ["old", "mid", "x", "late", "y", "future"],
            "Date": pd.date_range("2024-01-01", periods=6),
            "products": ["p", "p", "q", "p", "q", "r"],
            "Ratings": [1, 2, 3, 5, 4, 5],
        }
    )
    assets = prepare(rows, ["Customer_ID", "City"], [], ["products"], negatives=0).assets
    assert assets["user_profiles"].set_index("Customer_ID")["City"].to_dict() == {
        "a": "late",
        "b": "x",
    }
    history = assets["user_histories"].set_index(["Customer_ID", "products"])
    assert history["times"].to_dict() == {("a", "p"): 3, ("b", "q"): 1}
    assert history.loc[("a", "p"), "rating"] == pytest.approx(8 / 3)
    assert history.loc[("a", "p"), "last"] == pd.Timestamp("2024-01-04")


@pytest.mark.spec("S2-15")
def test_a_product_has_one_row_with_its_most_frequent_attributes() -> None:
    rows = pd.DataFrame(
        {"products": list("xxxyyz"), "brand": ["B", "A", "B", "D", "C", None], "type": ["t"] * 6}
    )
    catalogue, conflicts = item_catalogue(rows, ["products", "brand", "type"])
    assert catalogue.set_index("products")["brand"].to_dict() == {"x": "B", "y": "C", "z": ""}
    assert conflicts == 2


@pytest.mark.spec("S2-17")
def test_what_comes_after_the_cut_changes_nothing_that_was_fitted(
    clean: pd.DataFrame, made: Prepared
) -> None:
    late = clean["Date"] >= date_split(clean)[1]["Date"].min()
    other = clean.copy()
    other.loc[late, ["City", "products", "Customer_ID", "Amount"]] = [
        "Atlantis",
        "new thing",
        99.0,
        1e6,
    ]
    again = prepare(other, USER_CAT, USER_NUM, ITEM_CAT)
    made.train.redraw(0)
    assert again.encoder == made.encoder
    assert again.stats == made.stats
    for name, frame in made.assets.items():
        pd.testing.assert_frame_equal(frame, again.assets[name])
    assert torch.equal(again.train.drawn, made.train.drawn)
    assert (again.val.user_cat[:, 0] == 0).all()
    assert (again.val.item_cat[:, 0] == 0).all()


@pytest.mark.spec("S2-28")
def test_the_labs_tables_become_system_2s_transactions() -> None:
    data = synthetic_tables(lines=3_000, seed=2)
    rows = transactions(data["purchases"], data["users"], data["items"])
    assert len(rows) == len(data["purchases"])
    assert {
        *USER_CAT,
        *USER_NUM,
        *ITEM_CAT,
        "Date",
        "Ratings",
    } <= set(rows)
    assert rows["products"].nunique() == data["purchases"]["item_id"].nunique()


# ---- training


def losses(model: TwoTowerHybrid) -> tuple[list[float], list[float]]:
    return [row["train_loss"] for row in model.log], [row["val_loss"] for row in model.log]


@pytest.mark.spec("S2-20")
def test_five_arguments_are_enough(made: Prepared) -> None:
    model = train_two_tower_model(
        made.train, made.val, made.encoder.user_cat_sizes, made.encoder.item_cat_sizes, USER_NUM
    )
    train, val = losses(model)
    assert isinstance(model, TwoTowerHybrid)
    assert not model.training
    assert train[-1] < train[0]
    assert min(val) < val[0] < 0.7


def fit(made: Prepared, **options: object) -> TwoTowerHybrid:
    return train_two_tower_model(
        made.train,
        made.val,
        made.encoder.user_cat_sizes,
        made.encoder.item_cat_sizes,
        USER_NUM,
        **options,
    )


@pytest.mark.spec("S2-19", "S2-20")
def test_stops_early_lowers_the_rate_logs_and_restores_the_best(
    made: Prepared, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        model = fit(made, epochs=40, lr=0.02, dropout=0.0, tokens=0.0, patience=4)
    val = losses(model)[1]
    events = [row["event"] for row in model.log]
    best = int(np.argmin(val))
    assert len(val) == best + 1 + 4 < 40
    assert events[-1].endswith("stopped early")
    assert events[best].startswith("best")
    assert any("rate lowered" in e for e in events)
    assert model.log[-1]["lr"] < 0.02
    assert len(caplog.records) == len(val)
    made.val.redraw(0)
    with torch.no_grad():
        again = batch_loss(model, made.val, torch.arange(len(made.val.user)), "bce")[0]
    assert float(again) == pytest.approx(val[best], abs=1e-5)
    assert val[-1] > val[best]


@pytest.mark.spec("S2-29")
@pytest.mark.parametrize("loss", ["bce", "bpr", "softmax"])
def test_each_loss_learns_who_likes_what(made: Prepared, clean: pd.DataFrame, loss: str) -> None:
    liked = clean[clean["Ratings"] >= 4]
    data = prepare(liked, USER_CAT, USER_NUM, ITEM_CAT)
    model = fit(data, loss=loss, epochs=10)
    woman, man = (data.encoder.users(pd.DataFrame({"Gender": [g]})) for g in ("Female", "Male"))
    gadget = torch.as_tensor(
        data.encoder.items(pd.DataFrame({"Product_Category": ["Electronics"]}))
    )
    with torch.no_grad():
        p = [
            float(model(torch.as_tensor(cat), torch.as_tensor(num), gadget))
            for cat, num in (woman, man)
        ]
    assert p[0] > 1.2 * p[1]


@pytest.mark.spec("S2-29")
def test_losses_by_hand() -> None:
    """Equal scores: BCE and BPR are ln 2, the softmax over a batch of equally frequent items is ln
    n.
    """
    data = TwoTowerDataset(
        np.arange(4),
        np.arange(4),
        np.zeros((4, 1)),
        np.zeros((4, 0)),
        np.zeros((4, 1)),
        np.zeros((9, 1)),
        negatives=2,
    )
    model = TwoTowerHybrid([1], [1], 0, biases=False).eval()
    with torch.no_grad():
        model.log_t.fill_(-30.0)
    for loss, value in (("bce", np.log(2)), ("bpr", np.log(2)), ("softmax", np.log(4))):
        assert batch_loss(model, data, torch.arange(4), loss)[0].item() == pytest.approx(
            value, abs=1e-5
        )


@pytest.mark.spec("S2-29")
def test_the_softmax_corrects_for_how_often_an_item_is_a_negative() -> None:
    item = np.array([0, 0, 0, 1])
    data = TwoTowerDataset(
        np.arange(4),
        item,
        np.zeros((4, 1)),
        np.zeros((4, 0)),
        item[:, None],
        np.arange(3)[:, None],
        negatives=0,
    )
    assert data.log_q(torch.tensor([0, 3])).exp().tolist() == pytest.approx([0.75, 0.25])
    model = TwoTowerHybrid([1], [3], 0, biases=False).eval()
    with torch.no_grad():
        model.log_t.fill_(-30.0)
    # Row 3: its item weighs 1/.25 against three times 1/.75; rows 0 to 2: 1/.75 against 1/.25,
    # their twins left out.
    expected = (np.log((4 + 4) / 4) + 3 * np.log((4 / 3 + 4) / (4 / 3))) / 4
    assert batch_loss(model, data, torch.arange(4), "softmax")[0].item() == pytest.approx(
        expected, abs=1e-5
    )


@pytest.mark.spec("S2-26")
def test_ratings_beat_the_constant_mean(clean: pd.DataFrame) -> None:
    data = prepare(clean, USER_CAT, USER_NUM, ITEM_CAT, mode="rating", negatives=0)
    model = fit(data)
    with torch.no_grad():
        user_cat, user_num, item_cat, label = data.test.rows(torch.arange(len(data.test.user)))
        error = (model(user_cat, user_num, item_cat[:, 0]) - label[:, 0]).abs().mean() * 4
    constant = ((data.train.label.mean() - label[:, 0]).abs().mean() * 4).item()
    assert error < 0.6 < 1.2 < constant


@pytest.mark.spec("C7")
def test_the_same_seed_gives_the_same_model_and_the_global_one_is_left_alone(
    made: Prepared,
) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    threads = torch.get_num_threads()
    a, b, c = (fit(made, epochs=2, seed=s).state_dict() for s in (1, 1, 2))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not all(torch.equal(a[k], c[k]) for k in a)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loss": "mse"}, "loss is 'mse'"),
        ({"epochs": 0}, "epochs is 0"),
        ({"epochs": 5, "patience": 5}, "patience 5"),
        ({"similarity": "l2"}, "choose cosine, dot"),
    ],
)
def test_bad_options_are_named(made: Prepared, options: dict, words: str) -> None:
    with pytest.raises(LabError, match=words):
        fit(made, **options)


def test_bpr_without_negatives_is_refused(clean: pd.DataFrame) -> None:
    with pytest.raises(LabError, match="0 negatives per positive: loss 'bpr'"):
        fit(prepare(clean, USER_CAT, USER_NUM, ITEM_CAT, negatives=0), loss="bpr")
    with pytest.raises(LabError, match="negatives is -1"):
        prepare(clean, USER_CAT, USER_NUM, ITEM_CAT, negatives=-1)


def test_text_makes_ids_of_any_kind_alike() -> None:
    assert text(pd.Series([3.0, np.nan])).tolist() == ["3", ""]
    assert text(pd.Series([3])).tolist() == ["3"]
    assert text(pd.Series([" a ", None, "b"], index=[7, 8, 9])).to_dict() == {7: "a", 8: "", 9: "b"}


# ---- on receipts


def test_a_pooled_past_has_unit_length_and_forgets_what_faded() -> None:
    x = sparse.csr_matrix(np.array([[np.e - 1, np.e - 1, 0.001], [0, 0, 0]]))
    assert _pooled(x).toarray() == pytest.approx(np.array([[0.5, 0.5, 0], [0, 0, 0]]) ** 0.5)
    assert _without(_pooled(x)[[0, 0]], np.array([0, 2])).toarray() == pytest.approx(
        np.array([[0, 0.5, 0], [0.5, 0.5, 0]]) ** 0.5
    )


def test_examples_are_what_was_bought_within_from_what_was_bought_before() -> None:
    data = Interactions.of(
        receipts("u a 1 2024-01-01 1 1\nu b 2 2024-01-25 1 1\nv a 3 2024-01-28 1 1"),
        as_of=pd.Timestamp("2024-01-31"),
    )
    user, item, weight, past, row = TwoTower(windows=2, days=7, tau=10)._examples(data)
    names = [(data.user_ids[u], data.item_ids[i]) for u, i in zip(user, item)]
    assert names == [("u", "b"), ("v", "a")]
    assert weight.tolist() == [1, 1]
    seen = past[row].toarray() > 0
    assert seen[0].tolist() == (data.item_ids == "a").tolist()
    assert not seen[1].any()


@pytest.mark.spec("S2-06")
def test_strangers_with_a_profile_are_served_by_it(shop: Shop) -> None:
    model = TwoTower(epochs=3).fit(shop.history)
    users = shop.tables["users"].astype({"user_id": str}).set_index("user_id").head(30)
    strangers = users.set_index("new " + users.index).rename_axis("user_id")
    recs = model.recommend([*strangers.index, "nothing known"], 5, profiles=strangers)
    lists = recs.groupby("user_id", observed=True)["item_id"].agg(tuple)
    assert lists.nunique() > 5
    assert list(lists["nothing known"]) == shop.history.item_ids[:5].tolist()
    odd = strangers.assign(**dict.fromkeys(strangers))
    assert np.isnan(model._cold_scores(odd)).all()
    assert len(vocabulary(shop.history.users))


def test_items_that_never_sold_are_scored_by_their_attributes(shop: Shop) -> None:
    """Twins of one item, unsold: equal to each other, nearer to the item than others are."""
    twin = shop.tables["items"].iloc[[0, 0]].assign(item_id=["twin 1", "twin 2"])
    items = pd.concat([shop.tables["items"], twin])
    data = Interactions.of(
        shop.history.purchases, items, shop.tables["users"], shop.history.as_of, items["item_id"]
    )
    model = TwoTower(epochs=3).fit(data)
    scores = pd.DataFrame(model._scores(np.arange(50)), columns=data.item_ids)
    assert np.array_equal(scores["twin 1"], scores["twin 2"])
    alike = model.similar("twin 1", 20)["item_id"].tolist()
    kind = shop.tables["items"].set_index("item_id")["category"]
    assert alike[0] == "twin 2"
    assert (
        kind.reindex(alike[1:]).eq(twin["category"].iloc[0]).mean()
        > 2 * kind.eq(twin["category"].iloc[0]).mean()
    )


def test_own_purchases_are_added_to_standardised_scores(shop: Shop) -> None:
    model = TwoTower(epochs=1).fit(shop.history)
    pure = model._scores(np.arange(9))
    model.own = 2.0
    mixed = model._scores(np.arange(9))
    unit = (pure - pure.mean(1, keepdims=True)) / pure.std(1, keepdims=True)
    assert mixed - unit == pytest.approx(2 * shop.history.matrix(model.tau)[:9].toarray(), abs=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "bce"},
        {"loss": "bpr"},
        {"past": "around"},
        {"past": "none"},
        {"similarity": "dot", "hidden": 16},
    ],
)
def test_every_variant_learns(shop: Shop, options: dict) -> None:
    model = TwoTower(epochs=4, **options).fit(shop.history)
    assert model.curve_[-1] < model.curve_[0]
    assert np.isfinite(model._scores(np.arange(5))).all()


def test_around_has_no_user_ids_which_would_give_the_hidden_purchase_away(shop: Shop) -> None:
    """An id remembers the whole list, the past lacks one item of it.

    Their difference would be the answer.
    """
    seen = [TwoTower(past=past) for past in ("around", "before")]
    for model in seen:
        model.user_vocab_ = vocabulary(shop.history.users)
    ids = [model._user_codes(shop.history)[:, 0] for model in seen]
    assert not ids[0].any()
    assert ids[1].tolist() == list(range(1, shop.history.shape[0] + 1))


def test_an_old_history_is_refused_with_the_cure(tiny: pd.DataFrame) -> None:
    with pytest.raises(LabError, match="no purchase in the last 168 days: raise windows or days"):
        TwoTower().fit(Interactions.of(tiny, as_of=pd.Timestamp("2026-01-01")))


@pytest.mark.spec("S2-31")
def test_a_search_starts_with_the_defaults_and_chooses_by_validation_alone(
    clean: pd.DataFrame,
) -> None:
    data = prepare(clean, USER_CAT, USER_NUM, ITEM_CAT, mode="rating", negatives=0)
    table = rating_towers.search(data, trials=3, seed=5, epochs=2)
    names = ["dim", "l2", "lr", "similarity"]
    assert table["val_loss"].is_monotonic_increasing
    assert {name: RATING[name] for name in names} in table[names].to_dict("records")
    data.test.label[:] = 1 - data.test.label
    again = rating_towers.search(data, trials=3, seed=5, epochs=2)
    pd.testing.assert_frame_equal(table.drop(columns="model"), again.drop(columns="model"))
