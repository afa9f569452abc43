"""Every notebook by glob: how it is built, and that its words agree with its stored outputs.

`test_notebook_outputs.py` runs them and compares the outputs.
"""

import ast
import json
import re
from pathlib import Path

import pytest

from recsys_utils.serving.app import create_app

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
MODELS = [path for path in NOTEBOOKS if 3 <= int(path.stem[:2]) <= 12]

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path: Path, kind: str | None = None) -> list[dict]:
    found = json.loads(path.read_text())["cells"]
    return [cell for cell in found if kind in (None, cell["cell_type"])]


def source(cell: dict) -> str:
    return "".join(cell["source"])


def code_lines(path: Path) -> list[list[str]]:
    return [source(cell).splitlines() for cell in cells(path, "code")]


@every_notebook
class TestHowItIsBuilt:
    def test_begins_with_title_subtitle_links_and_card(self, path: Path) -> None:
        title, card = (source(cell) for cell in cells(path)[:2])
        assert re.match(rf"# {path.stem[:2]} · .+\n\*.+\?.*\*\n", title)
        assert "[contents](README.md)" in title.splitlines()[-1]
        for word in ("Question", "Answer", "Reads", "Writes"):
            assert f"**{word}**" in card

    def test_its_links_lead_to_files(self, path: Path) -> None:
        links = re.findall(r"\]\(([\w./-]+)\)", source(cells(path)[0]))
        assert len(links) >= 2
        for link in links:
            assert (path.parent / link).is_file(), link

    def test_has_one_parameters_cell_with_the_shared_names(self, path: Path) -> None:
        tagged = [c for c in cells(path, "code") if "parameters" in c["metadata"].get("tags", [])]
        assert len(tagged) == 1
        names = {line.targets[0].id for line in ast.parse(source(tagged[0])).body}
        assert {"DATASET", "FAST", "SEED"} <= names

    def test_cells_are_short_and_a_third_of_them_are_words(self, path: Path) -> None:
        assert 15 <= len(cells(path)) <= 45
        assert 0.35 <= len(cells(path, "markdown")) / len(cells(path)) <= 0.65
        for lines in code_lines(path):
            assert len(lines) <= 20, lines[0]

    def test_no_line_of_code_is_wider_than_a_page(self, path: Path) -> None:
        wide = [line for lines in code_lines(path) for line in lines if len(line) > 100]
        assert not wide

    def test_defines_no_function(self, path: Path) -> None:
        for cell in cells(path, "code"):
            for node in ast.walk(ast.parse(source(cell))):
                assert not isinstance(node, ast.FunctionDef | ast.ClassDef), node.name

    def test_imports_no_private_name(self, path: Path) -> None:
        for cell in cells(path, "code"):
            for node in ast.walk(ast.parse(source(cell))):
                if isinstance(node, ast.ImportFrom):
                    private = [alias.name for alias in node.names if alias.name.startswith("_")]
                    assert not private

    def test_was_run_whole_in_order_and_without_error(self, path: Path) -> None:
        code = cells(path, "code")
        assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
        outputs = [output for cell in code for output in cell["outputs"]]
        assert outputs
        for output in outputs:
            assert output["output_type"] != "error"
            assert output.get("name") != "stderr"

    def test_is_small_and_names_no_folder_of_ours(self, path: Path) -> None:
        text = path.read_text()
        assert len(text) < 400_000
        assert not re.search(r"/(home|root|work|tmp|Users)/", text)

    def test_ends_with_three_takeaways(self, path: Path) -> None:
        last = source(cells(path)[-1])
        assert last.startswith("## Takeaways")
        assert len(re.findall(r"^\d\. ", last, re.MULTILINE)) == 3

    def test_the_systems_go_by_their_names(self, path: Path) -> None:
        text = "\n".join(source(cell) for cell in cells(path))
        assert not re.search(r"\bsystems? ?[1-5]\b", text, re.IGNORECASE)


# ---- the numbers in the words


def claims(text: str) -> list[tuple[str, float, float, bool]]:
    """Numbers that a text claims: as written, value, half a unit of the last digit, in percent.

    Decimals without a leading zero (.308) and percentages (57 %, 0.8 %) are claims.
    """
    found = []
    for number in re.findall(r"(?<![\w.])\.(\d{3,4})\b(?! %)", text):
        found.append((f".{number}", float(f"0.{number}"), 0.5 * 10 ** -len(number), False))
    for whole, part in re.findall(r"(?<![\w.])(\d+)(\.\d+)? %", text):
        half_unit = 0.5 * 10 ** -len(part[1:]) if part else 0.5
        found.append((f"{whole}{part} %", float(whole + part), half_unit, True))
    return found


def numbers(text: str) -> tuple[list[float], list[float]]:
    """Plain numbers and percentages of an output."""
    plain, percent = [], []
    for number, sign in re.findall(r"(\d[\d,]*\.?\d*)(\s?%)?", text):
        (percent if sign else plain).append(float(number.replace(",", "")))
    return plain, percent


def is_in(claim: tuple[str, float, float, bool], text: str) -> bool:
    """Whether an output holds the number, rounded as the claim rounds it.

    A percentage may stand in the output as one, or as a share with at least two digits.
    """
    _, value, half_unit, is_percent = claim
    plain, percent = numbers(text)
    near = half_unit * 1.02
    if not is_percent:
        return any(abs(number - value) <= near for number in plain)
    shares = [100 * float(share) for share in re.findall(r"\b0\.\d{2,}", text)]
    return any(abs(share - value) <= near for share in percent + shares)


@every_notebook
def test_numbers_in_answer_and_takeaways_stand_in_the_outputs(path: Path) -> None:
    text = source(cells(path)[1]) + source(cells(path)[-1])
    outputs = []
    for cell in cells(path, "code"):
        for output in cell["outputs"]:
            outputs.append(
                "".join(output.get("text", output.get("data", {}).get("text/plain", "")))
            )
    shown = " ".join(outputs)
    missing = [claim[0] for claim in claims(text) if not is_in(claim, shown)]
    assert not missing


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("precision@5 is .308", "own_decayed 0.3078"),
        ("it leads (.3475)", "0.3475"),
        ("57 % of the lines", "57% of the lines repeat"),
        ("57 % of the lines", "share 0.571"),
        ("0.8 % of the test lines", "0.8% of them"),
        ("98.5 %", "0.9852"),
    ],
)
def test_a_right_number_is_found(text: str, output: str) -> None:
    [claim] = claims(text)
    assert is_in(claim, output)


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("precision@5 is .308", "0.3092"),
        ("it leads (.3475)", "0.3479"),
        ("0.8 % of the test lines", "8% of them"),
        ("8 % of the test lines", "0.8% of them"),
        ("57 % of the lines", "57 shoppers"),
        (".308", "308"),
        ("43 % are left", "57% are gone"),
        ("100 % of them", "1 shopper"),
    ],
)
def test_a_wrong_number_is_not_found(text: str, output: str) -> None:
    [claim] = claims(text)
    assert not is_in(claim, output)


# ---- claims that their own intervals do not carry

HEDGE = re.compile(r"noise|chance|level with|cannot be told|no better|not certain|zero inside")
CHANGES = ("change", "lead")


def intervals(output: str) -> list[tuple[float, float, float]]:
    """(change, low, high) of every row of the tables in an output that tell changes."""
    rows = []
    columns: list[str] = []
    for line in output.splitlines():
        words = line.split()
        if {"low", "high"} <= set(words) and set(CHANGES) & set(words):
            columns = words
            continue
        if not columns:
            continue
        name = next(word for word in CHANGES if word in columns)
        places = [columns.index(word) - len(columns) for word in (name, "low", "high")]
        try:
            rows.append(tuple(float(words[place]) for place in places))
        except (IndexError, ValueError):
            continue
    return rows


def unhedged(text: str, output: str) -> list[str]:
    """Sentences that claim a change whose interval holds zero, and do not say so."""
    known = intervals(output)
    found = []
    for sentence in re.split(r"[.;:]\s+(?=[A-Z*])", text):
        for _, value, half_unit, is_percent in claims(sentence):
            near = [row for row in known if abs(abs(row[0]) - value) <= half_unit * 1.02]
            is_sure = any(low > 0 or high < 0 for _, low, high in near)
            if near and not is_sure and not is_percent and not HEDGE.search(sentence):
                found.append(sentence)
    return found


@every_notebook
def test_no_claim_is_made_that_its_interval_does_not_carry(path: Path) -> None:
    text = source(cells(path)[1]) + source(cells(path)[-1])
    shown = "\n".join(
        "".join(output.get("text", output.get("data", {}).get("text/plain", "")))
        for cell in cells(path, "code")
        for output in cell["outputs"]
    )
    assert not unhedged(text, shown)


def test_an_unsure_change_must_be_said_to_be_one() -> None:
    table = """
           without  precision  change     low    high
    0  pair features     0.3125 -0.0127 -0.0231 -0.0005
    1  user features     0.3220 -0.0032 -0.0141  0.0073
    """
    assert intervals(table) == [(-0.0127, -0.0231, -0.0005), (-0.0032, -0.0141, 0.0073)]
    assert not unhedged("Without pairs precision falls by .013.", table)
    assert unhedged("Users cost .003.", table) == ["Users cost .003."]
    assert not unhedged("Users cost .003, which is within the noise.", table)


# ---- what the notebooks of models have in common


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_model_notebooks_keep_their_order(path: Path) -> None:
    text = "\n".join(source(cell) for cell in cells(path))
    steps = (
        "load_fold(DATASET)",
        "## The idea",
        "record(",
        "## One shopper",
        "## Metrics",
        "## Where it fails",
        "## Every fold",
        "## Takeaways",
    )
    places = [text.index(step) for step in steps]
    assert places == sorted(places)
    assert "fold.tuning" in text
    assert "figures.curve" in text


def test_notebook_14_asks_every_endpoint(tmp_path: Path) -> None:
    """It fails by itself where it leaves one out; this says so without running it."""
    text = "\n".join(source(c) for c in cells(ROOT / "notebooks" / "16_serving.ipynb", "code"))
    endpoints = set()
    for path, methods in create_app(tmp_path).openapi()["paths"].items():
        endpoints |= {f"{method.upper()} {path}" for method in methods}
    assert set(re.findall(r'"((?:GET|POST) /[^"]*)"', text)) == endpoints
