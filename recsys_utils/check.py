"""`python -m recsys_utils.check my_shop.toml`: what was understood of a shop's receipts.

`--draft receipts.csv` writes a first TOML from a file's columns, for a person to correct.
"""

import argparse
import re
import sys
from pathlib import Path

import pandas as pd

from recsys_utils import LabError
from recsys_utils.data import folds, tables
from recsys_utils.data.engine import local
from recsys_utils.data.files import FILE, ROW, likely_encoding, read_file
from recsys_utils.data.registry import Layout
from recsys_utils.pipeline.estimate import counted, estimate
from recsys_utils.pipeline.plan import incumbent_doubt, make_plan, parse_options
from recsys_utils.report.verdict import LEAST_SHOPPERS
from recsys_utils.store import atomic

# What a column may be, by how the words of its name begin; the first that fits is taken.
HINTS = {
    "basket_id": r"receipt|invoice|basket|order|transaction|ticket|bill|bon\b",
    "ts": r"date|time|day|sold ?at|datum",
    "user_id": r"customer|client|user|member|card|shopper|household|kunde",
    "item_id": r"sku|stock ?code|item|product|article|artikel|ean|upc|good",
    "quantity": r"quantity|qty|units|pieces|count|menge",
    "price": r"unit ?price|price|preis",
    "total": r"total|amount|sales|revenue|spend|sum",
    "store_id": r"store|shop|branch|filiale",
    "category": r"category|department|group|class",
}
NAMES = r"name|description|title|desc"
NOBODY = (
    "no shopper of the test part has an earlier receipt, so no list for a shopper can be judged:"
    " map user_id to something that lasts, such as a card or an account, or take receipts over a"
    " longer time"
)


def main(arguments: list[str] | None = None) -> int:
    """Print what was understood. Returns 0, or 2 for bad input and where no run is possible."""
    parser = argparse.ArgumentParser(
        "python -m recsys_utils.check", description="Read a shop's receipts and say what they are."
    )
    parser.add_argument(
        "dataset", help="a shop's .toml, a built-in data set, or with --draft a file"
    )
    parser.add_argument("--draft", action="store_true", help="write a first .toml from a file")
    options = parser.parse_args(arguments)
    try:
        if options.draft:
            print(draft(Path(options.dataset)))
            return 0
        text, lack = report(options.dataset)
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(text)
    return 2 if lack else 0


def report(dataset: str) -> tuple[str, str]:
    """What was understood of a data set, as text: rows, dates, ids, money, folds, warnings.

    And what a run lacks, "" if nothing.
    """
    data = tables.load(dataset)
    buys = data.purchases
    parts = [
        f"{data.spec.title} ({data.spec.name})",
        "\nFive lines as they will be used\n" + _table(_five(buys)),
        "\nDates\n" + _dates(data),
        "\nWhat the receipts hold\n" + _pairs(_facts(data)),
        "\nRows that cleaning kept and rejected\n" + _table(_audit(data)),
    ]
    sizes, warnings, lack = _folds(data)
    if sizes is not None:
        parts.append("\nHow they are cut for the judgement\n" + _table(sizes))
    warnings += data.manifest.get("notes", [])
    if doubt := incumbent_doubt(data.spec):
        warnings.append(f"{doubt}.")
    if warnings:
        parts.append("\nTo look at, the weightiest first\n" + _bullets(warnings))
    if lack:
        parts.append(f"\nNo run is possible yet: {lack}. Then check again.")
        return "\n".join(parts), lack
    tasks = make_plan(parse_options(["--dataset", dataset]))
    parts.append("\nWhat a run will cost\n" + _bullets(estimate(dataset, tasks, False, 2)[1]))
    parts.append(f"\nNext: ./run_all.sh --dataset {dataset}")
    return "\n".join(parts), ""


def draft(path: Path) -> str:
    """Write a first TOML for a receipts file, next to it; returns what to do with it.

    Raises LabError where the file cannot be read, or where a TOML is there already.
    """
    if not path.is_file():
        raise LabError(f"{path} does not exist: --draft takes a file of receipts")
    stem = re.sub(r"[^\w-]+", "_", path.name.split(".")[0]).lower()
    target = path.with_name(f"{stem}.toml")
    if target.exists():
        raise LabError(f"{target} is there already: correct it, or remove it first")
    encoding, sample = _sample(path)
    mapping = _guess(list(sample))
    lines = [
        f"# A first draft from the columns of {path.name}. Correct it, then run",
        f"#     python -m recsys_utils.check {target.name}",
        f'title = "{path.name.split(".")[0]}"',
        'currency = ""',
        "",
        "[purchases]",
        f'files = ["{path.name}"]',
        *([] if encoding == "utf-8" else [f'encoding = "{encoding}"']),
        "[purchases.columns]",
    ]
    for name in ("user_id", "item_id", "ts", "basket_id", "quantity", "price", "store_id"):
        lines.append(_mapping_line(name, mapping.get(name), sample))
    attributes = [(name, mapping[name]) for name in ("name", "category") if name in mapping]
    if attributes and "item_id" in mapping:
        lines += ["", "[items.columns]", f'item_id = "{mapping["item_id"]}"']
        lines += [f'{name} = "{column}"' for name, column in attributes]
    lines += ["", f"# Columns of the file: {', '.join(sample)}"]
    with atomic(target) as temporary:
        temporary.write_text("\n".join(lines) + "\n")
    missing = [name for name in ("user_id", "item_id", "ts") if name not in mapping]
    rest = f" It could not tell {', '.join(missing)}: fill these in." if missing else ""
    return f"wrote {target}; read it, then: python -m recsys_utils.check {target}.{rest}"


def _sample(path: Path) -> tuple[str, pd.DataFrame]:
    """The encoding of a file, and its first rows, all as text."""
    for encoding in ("utf-8", likely_encoding(path)):
        layout = Layout(files=[path.name], encoding=encoding)
        try:
            rows = read_file(local(), path, layout, [], [])
        except LabError as error:
            if "set encoding" in str(error) and encoding == "utf-8":
                continue
            raise
        break
    return encoding, rows.drop(ROW, FILE).limit(50).to_pandas().astype("string")


def _guess(columns: list[str]) -> dict[str, str]:
    """The likely column of each canonical name."""
    result: dict[str, str] = {}
    left = list(columns)
    for name, words in HINTS.items():
        fitting = [c for c in left if _begins(words, c)]
        plain = [c for c in fitting if not re.search(NAMES, c, re.IGNORECASE)]
        if plain:
            result[name] = plain[0]
            left.remove(plain[0])
    described = [
        column
        for column in left
        if re.search(NAMES, column, re.IGNORECASE) and not _begins(HINTS["user_id"], column)
    ]
    if described and "item_id" not in result:
        result["item_id"] = described[0]
    elif described:
        result["name"] = described[0]
    total = result.pop("total", None)
    if total and "price" not in result:
        quoted = f'"{total}"' if not re.fullmatch(r"\w+", total) else total
        units = result.get("quantity", "1")
        units = f'"{units}"' if not re.fullmatch(r"\w+", units) else units
        result["price"] = f"{quoted} / {units}"
    return result


def _begins(words: str, column: str) -> bool:
    """Whether a word of a column's name begins so: `cardNo` with card, `Discard` does not."""
    parts = re.findall(r"[A-ZÄÖÜ]?[a-zäöüß]+|[A-ZÄÖÜ]+|\d+", column)
    return bool(re.search(rf"\b(?:{words})", " ".join(parts).lower()))


def _mapping_line(name: str, column: str | None, sample: pd.DataFrame) -> str:
    if column is None:
        hint = "" if name in ("user_id", "item_id", "ts") else "  # optional"
        return f'# {name} = "?"{hint}'
    values = sample[column].dropna().unique()[:3] if column in sample else []
    examples = f"  # such as {', '.join(map(str, values))}" if len(values) else ""
    quoted = f"'{column}'" if '"' in column else f'"{column}"'
    return f"{name} = {quoted}{examples}"


def _five(buys: pd.DataFrame) -> pd.DataFrame:
    """Lines from the beginning, the middle and the end."""
    places = sorted({round(share * (len(buys) - 1)) for share in (0, 0.25, 0.5, 0.75, 1)})
    return buys.iloc[places].reset_index(drop=True)


def _audit(data: tables.Tables) -> pd.DataFrame:
    audit = data.audit
    money = ["–" if pd.isna(value) else f"{value:,.2f}" for value in audit["money"]]
    return audit.assign(rows=audit["rows"].map("{:,}".format), money=money)


def _dates(data: tables.Tables) -> str:
    ts = data.purchases["ts"]
    lines = [f"from {ts.min():%-d %B %Y} to {ts.max():%-d %B %Y}"]
    lines += [f"'{text}' is read as {when}" for text, when in data.manifest.get("readings", [])]
    return _bullets(lines)


def _facts(data: tables.Tables) -> dict[str, str]:
    """Numbers that show at a glance whether the receipts were understood."""
    buys = data.purchases
    audit = data.audit[data.audit["table"] == "purchases"].set_index("rule")["rows"]
    rows = audit[audit.index != audit.index[-1]].sum() if len(audit) > 1 else audit.sum()
    guests = audit.get("no customer", 0)
    pairs = buys.groupby(["user_id", "item_id"], observed=True)["basket_id"].nunique()
    per_basket = len(buys) / buys["basket_id"].nunique()
    facts = {
        "lines": f"{len(buys):,}",
        "shoppers": f"{buys['user_id'].nunique():,}",
        "products": f"{buys['item_id'].nunique():,}",
        "baskets": f"{buys['basket_id'].nunique():,}, {per_basket:.1f} products each",
        "rows without a customer": f"{guests:,} ({guests / max(rows, 1):.0%})",
        "bought again by the same shopper": f"{(pairs > 1).mean():.0%} of shopper and product",
    }
    if "price" in buys:
        low, middle, high = buys["price"].quantile([0, 0.5, 1])
        facts["price per unit"] = f"{low:g} to {high:g}, half below {middle:g}"
        facts["money"] = f"{data.spec.currency}{(buys['price'] * buys['quantity']).sum():,.0f}"
    return facts


def _folds(data: tables.Tables) -> tuple[pd.DataFrame | None, list[str], str]:
    """Sizes of the parts, what weakens a judgement, and what makes it impossible."""
    try:
        _, parts = folds.cut(data.purchases, data.spec)
        if data.spec.folds > 1:
            folds.cut(data.purchases, data.spec, data.spec.folds - 1)
    except LabError as error:
        return None, [], str(error)
    sizes = pd.DataFrame(
        [
            {
                "part": part,
                "lines": len(rows),
                "shoppers": rows["user_id"].nunique(),
                "baskets": rows["basket_id"].nunique(),
                "from": rows["ts"].min(),
                "to": rows["ts"].max(),
            }
            for part, rows in parts.items()
        ]
    )
    judged = len(folds.returning(parts))
    if not judged:
        return sizes, [], NOBODY
    warnings = []
    if judged < LEAST_SHOPPERS:
        have = "has" if judged == 1 else "have"
        warnings.append(
            f"{counted(judged, 'shopper')} of the test part {have} an earlier receipt; with fewer"
            f" than {LEAST_SHOPPERS} the report recommends nothing."
        )
    if not len(parts["valid"]):
        warnings.append("The validation part is empty: parameters cannot be chosen.")
    return sizes, warnings, ""


def _table(frame: pd.DataFrame) -> str:
    return "\n".join(f"  {line}" for line in frame.to_string(index=False).splitlines())


def _pairs(facts: dict[str, str]) -> str:
    width = max(map(len, facts))
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in facts.items())


def _bullets(lines: list[str]) -> str:
    return "\n".join(f"  - {line}" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
