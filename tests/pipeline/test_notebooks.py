"""Every notebook by glob: anatomy, size and outputs of what is committed. nbval runs them: see run_tests.sh."""

import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MODELS = [p for p in NOTEBOOKS if 3 <= int(p.stem[:2]) <= 12]


def cells(path: Path, kind: str | None = None) -> list[dict]:
    return [c for c in json.loads(path.read_text())["cells"] if kind in (None, c["cell_type"])]


def source(cell: dict) -> str:
    return "".join(cell["source"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
class TestEvery:
    def test_begins_with_title_subtitle_and_card(self, path: Path) -> None:
        title, card = (source(c) for c in cells(path)[:2])
        assert re.match(rf"# {path.stem[:2]} · .+\n\*.+\?.*\*", title)
        assert all(f"**{word}**" in card for word in ("Question", "Answer", "Reads", "Writes"))

    def test_has_one_parameters_cell_with_the_shared_names(self, path: Path) -> None:
        tagged = [c for c in cells(path, "code") if "parameters" in c["metadata"].get("tags", [])]
        assert len(tagged) == 1
        assert {"DATASET", "FAST", "SEED"} <= {
            t.targets[0].id for t in ast.parse(source(tagged[0])).body
        }

    def test_cells_are_short_and_half_of_them_are_words(self, path: Path) -> None:
        assert 15 <= len(cells(path)) <= 28
        assert 0.35 <= len(cells(path, "markdown")) / len(cells(path)) <= 0.65
        assert max(len(source(c).splitlines()) for c in cells(path, "code")) <= 12

    def test_defines_no_function(self, path: Path) -> None:
        assert not [
            n
            for c in cells(path, "code")
            for n in ast.walk(ast.parse(source(c)))
            if isinstance(n, ast.FunctionDef | ast.ClassDef)
        ]

    def test_was_run_whole_in_order_and_without_error(self, path: Path) -> None:
        code = cells(path, "code")
        assert [c["execution_count"] for c in code] == list(range(1, len(code) + 1))
        kinds = [o for c in code for o in c["outputs"]]
        assert kinds
        assert not [o for o in kinds if o["output_type"] == "error" or o.get("name") == "stderr"]

    def test_is_small_and_names_no_folder_of_ours(self, path: Path) -> None:
        text = path.read_text()
        assert len(text) < 400_000
        assert not re.search(r"/(home|root|work|tmp|Users)/", text)

    def test_ends_with_three_takeaways(self, path: Path) -> None:
        last = source(cells(path)[-1])
        assert last.startswith("## Takeaways")
        assert len(re.findall(r"^\d\. ", last, re.MULTILINE)) == 3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_numbers_in_answer_and_takeaways_stand_in_the_outputs(path: Path) -> None:
    """A claim such as .308 or 57 % must be an output's 0.308… or 57 %, rounded."""
    claims = source(cells(path)[1]) + source(cells(path)[-1])
    outputs = " ".join(
        "".join(o.get("text", o.get("data", {}).get("text/plain", "")))
        for c in cells(path, "code")
        for o in c["outputs"]
    )
    shown = [float(x.replace(",", "")) for x in re.findall(r"\d[\d,]*\.?\d*", outputs)]
    for claim in re.findall(r"(?<![\w.])\.(\d{3})\b", claims):
        assert any(abs(v - float(f"0.{claim}")) <= 0.00051 for v in shown), (
            f".{claim} is in no output"
        )
    for claim in re.findall(r"\b(\d+) %", claims):
        assert any(
            abs(v - int(claim)) <= 0.51
            or abs(100 * v - int(claim)) <= 0.51
            or abs(100 - 100 * v - int(claim)) <= 0.51
            for v in shown
        ), f"{claim} % is in no output"


@pytest.mark.parametrize("path", MODELS, ids=lambda p: p.stem)
def test_model_notebooks_keep_their_order(path: Path) -> None:
    text = "\n".join(source(c) for c in cells(path))
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
    from recsys_utils.serving.app import create_app

    text = "\n".join(source(c) for c in cells(ROOT / "notebooks" / "14_serving.ipynb", "code"))
    there = {
        f"{method.upper()} {path}"
        for path, each in create_app(tmp_path).openapi()["paths"].items()
        for method in each
    }
    assert set(re.findall(r'"((?:GET|POST) /[^"]*)"', text)) == there
