"""DuckDB and Spark Connect make the same tables and folds, cell for cell, and fail in a sentence.

The servers are real: Sail, in this process or started by hand.
"""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from servers import free_port

from recsys_utils import LabError, scalable
from recsys_utils.data import engine, folds, spark, tables
from recsys_utils.data.folds import Fold
from recsys_utils.data.interactions import Interactions
from recsys_utils.data.prefilter import Rules, prefilter
from recsys_utils.ensembles.features import aggregates
from recsys_utils.evaluation.metrics import per_user
from recsys_utils.evaluation.slices import warm
from recsys_utils.models import ALS, ItemCF, OwnPurchases, Popular, on_engine
from recsys_utils.store import data_dir

HAS_SAIL = all(find_spec(package) for package in spark.PACKAGES)
SERVERS = ["sail", *filter(None, [os.environ.get("SPARK_REMOTE")])]  # a Spark of the JVM
needs_sail = pytest.mark.skipif(
    not HAS_SAIL, reason="pysail or pyspark-client is missing: pip install -e '.[spark]'"
)

TOML = """
currency = "€"
[purchases]
files = ["receipts.csv"]
[purchases.columns]
user_id = "Customer ID"
item_id = "sku"
ts = "sold at"
basket_id = "receipt"
quantity = "units"
price = '"line total" / units'
store_id = "split_part(till, '-', 1)"
discount = "CASE WHEN regexp_matches(till, '-9$') THEN 0.25 ELSE 0 END"
[purchases.reject]
"test customer" = '''"Customer ID" LIKE 'TEST%' '''
"till of the canteen" = "list_contains(['K-1', 'K-2'], till)"
[items]
files = ["items.csv"]
[items.columns]
item_id = "code"
name = "title"
category = "dept"
weight = "grams"
[users.columns]
user_id = "Customer ID"
city = "town"
[events]
files = ["events.csv"]
[events.columns]
user_id = "who"
item_id = "what"
event_type = "kind"
ts = "at"
[stock]
files = ["stock.csv"]
[stock.columns]
item_id = "code"
country = "land"
quantity = "left"
[promotions]
files = ["promotions.csv"]
[promotions.columns]
item_id = "code"
week = "week"
place = "where"
"""
TRAPS = """1;10.0;2024-02-01 23:30:00.000001;r1;1;2,00;N-1;Ulm
1;10;2024-02-01 23:30:00.000001;r1;2;4,00;N-1;Ulm
1;11.0;2024-02-02 00:10:00;r2;3;1.234,50;N-9;Ulm
01;007;2024-02-02 00:10:00;r2;1;0,30;S-1;
01;7;2024-02-03 12:00:00;r2;8;0,07;S-1;Köln
TEST1;7;2024-02-03 12:00:00;r3;1;9,00;S-1;Bonn
2;12;2024-02-04 12:00:00;r4;inf;9,00;S-1;Bonn
2;12;2024-02-04 12:00:00;r4;nan;9,00;S-1;Bonn
2;12;2024-02-04 12:00:00;r5;-1;9,00;K-2;Bonn
;12;2024-02-04 12:00:00;r5;1;9,00;K-3;Bonn
3;12;1969-02-04 12:00:00;r6;1;9,00;N-1;Rom
café;13;2024-03-04 12:00:00;r8;1;9,00;N-1;Rom
 café ;13;2024-03-04 12:00:00;r8;1;9,00;N-1;Rom
CAFÉ;13;2024-03-04 12:00:00;r9;1;9,00;N-1;Rom
3;13;2025-11-04 12:00:00;r7;1;9,00;N-1;Rom
newcomer;13;2024-05-20 12:00:00;n1;1;9,00;N-1;Rom
newcomer;14;2024-05-21 12:00:00;n2;1;9,00;N-1;Rom
"""


def receipts() -> str:
    """Receipts with what silent errors come from, then a few hundred plain ones."""
    rng = np.random.default_rng(7)
    n = 900
    days = pd.Timestamp("2024-01-01 08:00") + pd.to_timedelta(rng.integers(0, 150, n), "D")
    lines = pd.DataFrame(
        {
            "Customer ID": rng.integers(1, 40, n),
            "sku": rng.integers(1, 60, n),
            "sold at": days.strftime("%Y-%m-%d %H:%M:%S"),
            "receipt": days.strftime("%j"),
            "units": rng.integers(1, 9, n),
            "line total": [
                f"{cents / 100:.2f}".replace(".", ",") for cents in rng.integers(1, 9999, n)
            ],
            "till": rng.choice(["N-1", "N-9", "S-1", "K-1"], n),
            "town": rng.choice(["Ulm", "Bonn", ""], n),
        }
    )
    head, _, rest = lines.to_csv(index=False, sep=";").partition("\n")
    return f"{head}\n{TRAPS}{rest}"


def write_shop(folder: Path) -> str:
    """The TOML that --dataset takes, beside its files."""
    codes = [*range(1, 70), "007"]
    rows = [f"{code},item {code},d{n % 4},1.5\n" for n, code in enumerate(codes)]
    items = "code,title,dept,grams\n" + "".join(rows) + "7,other,d9,2.5\n"
    events = "who,what,kind,at\n" + "".join(
        f"{n % 9 + 1},{n % 50 + 1},{('view', 'cart')[n % 2]},2024-03-01 10:{n:02d}:00\n"
        for n in range(60)
    )
    files = {
        "receipts": receipts(),
        "items": items,
        "events": events,
        "stock": "code,land,left\n1,DE,3\n2,DE,0\n1,FR,\n",
        "promotions": "code,week,where\n1,2024-01-01,front\n9,2024-01-08,\n2,2024-01-08,back\n",
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.csv").write_text(text)
    (folder / "corner.toml").write_text(TOML)
    return str(folder / "corner.toml")


@pytest.fixture
def on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Choose an engine and a home of its own."""
    monkeypatch.delenv("RECSYS_DATA", raising=False)

    def choose(name: str, label: str = "") -> Path:
        home = tmp_path / (label or name.split(":")[0])
        monkeypatch.setenv("RECSYS_ENGINE", name)
        monkeypatch.setenv("RECSYS_HOME", str(home))
        return home

    return choose


def build(dataset: str, **overrides: object) -> dict[str, bytes | dict | list]:
    """What a build leaves: every file of tables and folds, and what the manifest tells."""
    made = tables.load(dataset)
    written = folds.write_folds(dataset, **overrides)
    files = [*data_dir(made.spec.name, "tables").glob("*.parquet")]
    files += [path for folder in written for path in folder.glob("*.parquet")]
    result = {f"{path.parent.name}/{path.name}": path for path in files}
    told = ("audit", "notes", "readings", "summary", "personal_columns_dropped")
    return result | {name: made.manifest[name] for name in told}


def same(one: dict, other: dict) -> None:
    """Equal names, types and cells of all tables, and equal words."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        if not isinstance(value, Path):
            assert value == other[name], name
            continue
        left = pd.read_parquet(value)
        right = pd.read_parquet(other[name])
        by = list(left.columns)
        pd.testing.assert_frame_equal(
            left.sort_values(by, ignore_index=True),
            right.sort_values(by, ignore_index=True),
            check_exact=True,
            obj=name,
        )
        assert pq.read_schema(value).equals(pq.read_schema(other[name])), name


@contextmanager
def sail_server(*before: str) -> Iterator[str]:
    """A server started by hand, by its address; `before` is put before its command."""
    port = free_port()
    sail = Path(sys.executable).with_name("sail")
    command = [*before, str(sail), "spark", "server", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield f"sc://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


# ---- equal tables


@needs_sail
@pytest.mark.parametrize("protocol", ["window", "next_basket"])
@pytest.mark.parametrize("server", SERVERS)
def test_tables_and_folds_are_equal_cell_for_cell(
    on: Callable, tmp_path: Path, server: str, protocol: str
) -> None:
    shop = write_shop(tmp_path / "shop")
    on("duckdb")
    expected = build(shop, protocol=protocol)
    on(server)
    same(build(shop, protocol=protocol), expected)
    assert len(expected["audit"]) >= 8, "the shop breaks too few rules to show anything"
    assert any("come again" in note for note in expected["notes"])
    assert any("without a receipt" in note for note in expected["notes"])
    assert any("more than once" in note for note in expected["notes"])
    assert any("two spellings" in note for note in expected["notes"])
    assert any("but case" in note for note in expected["notes"])


@needs_sail
def test_a_server_started_by_hand_makes_the_same_tables(on: Callable, tmp_path: Path) -> None:
    shop = write_shop(tmp_path / "shop")
    on("duckdb")
    expected = build(shop)
    with sail_server() as address:
        on(address)
        same(build(shop), expected)


@needs_sail
def test_cutting_on_an_engine_is_cutting_frames(on: Callable, tmp_path: Path) -> None:
    """The engine's parts hold the rows of the parts of frames in memory, in their order."""
    shop = write_shop(tmp_path / "shop")
    for name in ("duckdb", "sail"):
        on(name)
        for protocol, parts_of in (("window", None), ("next_basket", folds.basket_parts)):
            folds.write_folds(shop, protocol=protocol)
            fold = folds.load_fold(shop)
            bought = tables.load(shop).purchases
            names = folds.basket_names(fold).to_numpy()
            borders = {key: pd.Timestamp(value) for key, value in fold.borders.items()}
            expected = parts_of(bought) if parts_of else folds.window_parts(bought, borders)
            for part in folds.PARTS:
                rows = getattr(fold, part)
                named = rows.assign(basket_id=names[rows["basket_id"]])
                pd.testing.assert_frame_equal(
                    named.astype({"user_id": str, "item_id": str, "basket_id": str}),
                    expected[part].astype({"user_id": str, "item_id": str, "basket_id": str}),
                    check_categorical=False,
                )


@needs_sail
@pytest.mark.parametrize("server", SERVERS)
def test_the_prefilter_and_what_is_known_of_pairs_are_equal(
    on: Callable, shop_fold: Fold, server: str
) -> None:
    """Aggregates to the last digit of the float32 that features are."""
    history = shop_fold.tuning.history
    rules = Rules(min_user_share=0.01, min_category_items=2)
    results = {}
    for name in ("duckdb", server):
        on(name)
        kept, funnel = prefilter(history.purchases, shop_fold.items, rules)
        known = aggregates(history)
        pair = engine.fetch(known.pair).set_index(["user", "item"]).sort_index()
        frames = {"pair": pair, "user": known.user, "item": known.item}
        frames = {side: t.astype(np.float32) for side, t in frames.items()}
        results[name] = (kept, funnel, frames)
    one, other = results.values()
    pd.testing.assert_index_equal(one[0], other[0])
    pd.testing.assert_frame_equal(one[1].round({"money": 6}), other[1].round({"money": 6}))
    assert 0 < len(one[0]) < history.shape[1]
    for side, expected in one[2].items():
        pd.testing.assert_frame_equal(expected, other[2][side], check_exact=True)


# ---- models where the receipts lie


class FoldedALS(ALS):
    """ALS whose shoppers are all folded in, as the engines' is."""

    def _fit(self, data: Interactions) -> None:
        super()._fit(data)
        self.user_factors_ = self.folded_in(data.matrix(self.tau))


MODELS = {
    "popular_28d": Popular(),
    "own_purchases": OwnPurchases(),
    "item_bm25": ItemCF(),
    "als": FoldedALS(),
}


@needs_sail
@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("protocol", ["window", "next_basket"])
def test_lists_and_leaderboard_are_those_of_memory(
    on: Callable, tmp_path: Path, server: str, protocol: str
) -> None:
    """Every item, rank and score; the board to its last digit. BM25 sums its scores in another
    order, so these agree to float32's grain.
    """
    shop = write_shop(tmp_path / "shop")
    boards = {}
    for name in ("duckdb", server):
        on(name)
        folds.write_folds(shop, protocol=protocol)
        boards[name] = scalable.run(shop, list(MODELS), 12).drop(columns="seconds")
        fold = folds.load_fold(shop)
        stage = fold.testing
        assert set(stage.users) - set(stage.history.user_ids) or protocol == "next_basket"
        for row in boards[name].itertuples():
            expected = MODELS[row.model].fit(stage.history).recommend(stage.users, 12)
            written = pd.read_parquet(
                data_dir("corner", "scalable", fold.name, f"{row.model}.parquet")
            )
            columns = ["user_id", "item_id", "rank"]
            pd.testing.assert_frame_equal(
                written[columns].astype(str), expected[columns].astype(str).reset_index(drop=True)
            )
            grain = 1e-5 if row.model == "item_bm25" else 0
            np.testing.assert_allclose(written["score"], expected["score"], rtol=grain)
            values = per_user(expected, warm(stage.truth, stage.history), 5)
            means = values[["precision", "recall", "mrr", "hit_rate"]].mean().round(4)
            shown = boards[name].set_index("model").loc[row.model]
            assert [shown[f"{metric}@5"] for metric in means.index] == means.tolist()
    pd.testing.assert_frame_equal(*boards.values(), check_exact=True)


@needs_sail
def test_als_learns_from_the_same_shoppers_everywhere_and_lists_for_all(
    on: Callable, tmp_path: Path
) -> None:
    """Who was not learnt from has a list too; the size of blocks changes a score's last digits."""
    shop = write_shop(tmp_path / "shop")
    found = []
    for name, block in (("duckdb", 20_000), ("duckdb", 7), ("sail", 7)):
        on(name)
        folds.write_folds(shop)
        fold = folds.load_fold(shop)
        stage = scalable.on_fold(tables.ready(shop), fold.name)
        lists = engine.fetch(on_engine.als(stage.receipts, stage.users, 5, learners=9, block=block))
        found.append(lists.sort_values(["user_id", "rank"], ignore_index=True))
        assert set(lists["user_id"]) == set(fold.testing.users)
        assert lists.groupby("user_id").size().eq(5).all()
    pd.testing.assert_frame_equal(found[0], found[1], rtol=1e-5)
    pd.testing.assert_frame_equal(found[1], found[2], check_exact=True)
    whole = FoldedALS().fit(fold.testing.history).recommend(fold.testing.users, 5)
    assert not whole["item_id"].astype(str).equals(found[0]["item_id"].astype(str))


def test_the_command_prints_a_board_or_one_line(
    on: Callable, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    on("duckdb")
    shop = write_shop(tmp_path / "shop")
    assert scalable.main(["--dataset", shop]) == 0
    assert "own_purchases" in capfd.readouterr().out
    for arguments, words in (
        (["--models", "oracle"], "'oracle' is unknown: choose popular_28d"),
        (["-k", "3"], "ask for 5 or more"),
        (["--engine", "oracle"], "engine 'oracle' is unknown"),
    ):
        assert scalable.main(["--dataset", shop, *arguments]) == 2
        told = capfd.readouterr().err
        assert told.startswith("error: ") and words in told and told.count("\n") == 1
    on("duckdb")
    (tmp_path / "shop" / "once.toml").write_text("repeats = false\n" + TOML)
    assert scalable.main(["--dataset", str(tmp_path / "shop" / "once.toml")]) == 2
    assert "nothing is bought twice" in capfd.readouterr().err


# ---- silent traps


@needs_sail
def test_trap_a_quoted_column_is_no_text(on: Callable, tmp_path: Path) -> None:
    """Spark takes "Customer ID" for a text; a TOML's SQL is DuckDB's on every engine."""
    on("sail")
    bought = tables.load(write_shop(tmp_path / "shop")).purchases
    assert "Customer ID" not in set(bought["user_id"])
    assert bought["user_id"].nunique() > 30
    assert bought["price"].max() > 400, "1.234,50 is read as the shop writes it"


@needs_sail
def test_trap_ids_keep_their_zeros_and_are_not_merged(on: Callable, tmp_path: Path) -> None:
    """Inference would make 7 of 007; a back-reference read as text would make one id of many."""
    on("sail")
    bought = tables.load(write_shop(tmp_path / "shop")).purchases
    assert {"007", "7", "10", "11"} <= set(bought["item_id"])
    assert {"01", "1"} <= set(bought["user_id"])
    assert not bought["item_id"].astype(str).str.endswith(".0").any()


@needs_sail
def test_trap_times_have_no_zone_whatever_the_clock_here(
    on: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        home = on("sail")
        bought = tables.load(write_shop(tmp_path / "shop")).purchases
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()
    assert bought["ts"].dtype == "datetime64[us]"
    assert pd.Timestamp("2024-02-01 23:30:00.000001") in set(bought["ts"])
    file = home / "data" / "corner" / "tables" / "purchases.parquet"
    assert file.is_file(), "one file, not a folder of parts"


@pytest.fixture(params=SERVERS)
def both(
    on: Callable, request: pytest.FixtureRequest
) -> Callable[[pa.Table, Callable], list[pd.DataFrame]]:
    """Run an expression over the same rows on DuckDB and on a server, kept once; both results."""

    def run(rows: pa.Table, ask: Callable[[ibis.Table], ibis.Table]) -> list[pd.DataFrame]:
        results = []
        for name in ("duckdb", request.param):
            on(name)
            results.append(engine.fetch(engine.keep(ask(engine.given(rows, engine.connect())))))
        return results

    return run


@needs_sail
@pytest.mark.parametrize(
    "ask",
    [
        lambda t: t.select("n", x=(t.n + 1) / (t.n / 3.25 + 1)),
        lambda t: t.select("n", x=ibis.literal(1.0)),
        lambda t: t.select("n", x=ibis.literal(0.1) + ibis.literal(0.2)),
        lambda t: t.select("n", x=t.f.isinf(), y=t.f.isnan()),
        lambda t: t.select("n", x=t.text.re_replace(r"^(\d+)\.0$", r"\1")),
        lambda t: t.select("n", x=t.text.re_replace(r"(\d)(\d)", r"\2-\1")),
        lambda t: t.select("n", x=(t.n / 8).round(2)),
        lambda t: t.select("n", x=t.when.truncate("D"), y=t.when.date(), z=t.when),
        lambda t: t.select("n", x=ibis.null("string"), y=ibis.null("float64")),
        lambda t: t.filter(t.n < 0),
        lambda t: t.agg(n=t.n.sum(), x=t.n.quantile(0.5), y=t.n.mean()),
    ],
)
def test_trap_an_expression_means_the_same_and_has_the_same_types(
    both: Callable, ask: Callable
) -> None:
    """A float in an expression is a decimal for Spark, infinity none for Ibis, \\1 the text 1."""
    rows = pa.table(
        {
            "n": pa.array(range(5), pa.int64()),
            "f": pa.array([0.5, float("nan"), float("inf"), -float("inf"), None]),
            "text": ["10.0", "007", "1.05", "", None],
            "when": pa.array([0, 1, 10**15, -(10**12), None], pa.timestamp("us")),
        }
    )
    one, other = both(rows, ask)
    by = list(one.columns)
    pd.testing.assert_frame_equal(
        one.sort_values(by, ignore_index=True), other.sort_values(by, ignore_index=True)
    )


@needs_sail
def test_trap_times_beyond_nanoseconds_come_home(both: Callable) -> None:
    """Arrow's way to pandas refuses the year 24, by which a misread date is told."""
    rows = pa.table({"when": pa.array([-61_409_491_200_000_000], pa.timestamp("us"))})
    one, other = both(rows, lambda t: t)
    assert str(one["when"][0]) == str(other["when"][0]) == "0024-01-05 00:00:00"


# ---- errors, a sentence each


def refusal(name: str, on: Callable) -> str:
    on(name)
    with pytest.raises(LabError) as error:
        engine.connect()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_an_unknown_engine_is_named_with_those_there_are(on: Callable) -> None:
    assert "'oracle' is unknown" in refusal("oracle", on)
    assert "duckdb, sail or sc://host:port" in refusal("http://somewhere", on)


@pytest.mark.parametrize(
    ("name", "package", "pip"),
    [("sail", "pysail", "pysail"), ("sc://127.0.0.1:1", "pyspark", "pyspark-client")],
)
def test_a_missing_package_is_named_with_the_command(
    on: Callable, monkeypatch: pytest.MonkeyPatch, name: str, package: str, pip: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    spark.connect.cache_clear()
    if package != "pyspark" and not find_spec("pyspark"):
        pytest.skip("pyspark-client is missing: pip install -e '.[spark]'")
    assert f"needs the Python package {pip}" in (told := refusal(name, on))
    assert f"-m pip install {pip}" in told


@needs_sail
@pytest.mark.parametrize("name", ["sc://host:port", "sc://"])
def test_an_address_that_is_none_is_refused(on: Callable, name: str) -> None:
    assert "is no address" in refusal(name, on)


@needs_sail
def test_a_server_that_is_not_there_is_told_without_the_token(
    on: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spark, "SECONDS", 1)
    told = refusal(f"sc://127.0.0.1:{free_port()}/;token=geheim", on)
    assert "does not answer within 1 s" in told
    assert "geheim" not in told


@contextmanager
def grpc_server(version: str | None) -> Iterator[str]:
    """A gRPC server that knows only which Spark it is, or not even that."""
    import grpc
    from pyspark.sql.connect.proto import base_pb2, base_pb2_grpc

    class Old(base_pb2_grpc.SparkConnectServiceServicer):
        def AnalyzePlan(self, request, context):  # noqa: N802 - gRPC's own name
            answer = base_pb2.AnalyzePlanResponse(session_id=request.session_id)
            answer.spark_version.version = version
            return answer

    server = grpc.server(futures.ThreadPoolExecutor(2))
    port = server.add_insecure_port("127.0.0.1:0")
    if version:
        base_pb2_grpc.add_SparkConnectServiceServicer_to_server(Old(), server)
    server.start()
    try:
        yield f"sc://127.0.0.1:{port}"
    finally:
        server.stop(None)


@needs_sail
def test_an_old_spark_and_another_server_are_refused(on: Callable) -> None:
    with grpc_server("3.5.1") as address:
        assert "runs Spark 3.5.1: this needs 4.0 or later" in refusal(address, on)
    with grpc_server(None) as address:
        assert "not as a Spark Connect server" in refusal(address, on)


@needs_sail
def test_a_server_that_does_not_see_the_files_is_refused(on: Callable, tmp_path: Path) -> None:
    """Sail reads a file that is not there as an empty table: no silent empty shop."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    alone = ("unshare", "--map-root-user", "--mount", "--")
    hide = ("sh", "-c", f'mount -t tmpfs none {hidden} && exec "$@"', "sh")
    if subprocess.run([*alone, *hide, "true"], capture_output=True).returncode:
        pytest.skip("this machine gives no process a view of its own")
    with sail_server(*alone, *hide) as address:
        told = refusal(address, lambda name: on(name, "hidden"))
    assert f"does not see {hidden}: set RECSYS_HOME" in told


@needs_sail
def test_a_function_that_the_engine_lacks_is_told_in_a_sentence(on: Callable) -> None:
    on("sail")
    asked = engine.connect().sql("SELECT nosuch(1) AS a", schema={"a": "int64"})
    with pytest.raises(LabError) as error, engine.explained():
        engine.keep(asked)
    assert re.fullmatch("engine sail cannot do this .*NOSUCH.* duckdb", str(error.value))


@needs_sail
def test_a_server_that_dies_leaves_nothing_half_written(on: Callable, tmp_path: Path) -> None:
    shop = write_shop(tmp_path / "shop")
    with sail_server() as address:
        home = on(address)
        engine.connect()
    with pytest.raises(LabError, match="stopped answering"):
        tables.load(shop)
    left = [path for path in (home / "data" / "corner").rglob("*") if path.is_file()]
    assert left == []


PROGRAM = """
import pyarrow as pa
from recsys_utils.data import engine, spark
t = engine.given(pa.table({"a": [1, 2]}), engine.connect())
print(engine.keep(t.filter(t.a > 1)).count().to_pandas())
print(len(list(spark.scratch().iterdir())))
"""


@needs_sail
@pytest.mark.parametrize("place", ["in this process", "by hand"])
def test_what_engines_hand_over_goes_with_the_process(on: Callable, place: str) -> None:
    """Also of a process that was killed. And `python -c` may use a server, and ends."""
    with sail_server() as address:
        home = on("sail" if place == "in this process" else address, "home")
        of_killed = home / "data" / f".engine-{socket.gethostname()}-999999999"
        of_another_machine = of_killed.with_name(".engine-elsewhere-999999999")
        of_killed.mkdir(parents=True)
        of_another_machine.mkdir()
        ended = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            capture_output=True,
            text=True,
            env=os.environ,
            timeout=60,
        )
    assert ended.stdout.split() == ["1", "2"], ended.stderr
    assert list(of_killed.parent.glob(".engine-*")) == [of_another_machine]


@needs_sail
def test_processes_that_start_after_sail_look_for_no_file_of_main(tmp_path: Path) -> None:
    """As in a notebook, whose `__main__` has none."""
    code = (
        "import __main__, os; os.environ['RECSYS_ENGINE'] = 'sail';"
        "from recsys_utils.data import engine; engine.connect();"
        "print(hasattr(__main__, '__file__'))"
    )
    told = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"RECSYS_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.split() == ["False"]
