"""What every notebook shows when it is run is what is stored in it, pictures and times apart."""

import difflib
import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("[0-9]*.ipynb"))
# A cell with this tag shows seconds or bytes, which no two runs share. nbval knows the tag too.
IGNORED = "nbval-ignore-output"


def code_cells(notebook: Path) -> list[dict]:
    cells = json.loads(notebook.read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def shown(cell: dict) -> str:
    """The texts and tables of a cell's outputs, each under its kind; streams are joined."""
    texts: dict[str, str] = {}
    for output in cell["outputs"]:
        if output["output_type"] == "stream":
            kinds = {output["name"]: output["text"]}
        elif output["output_type"] == "error":
            kinds = {"error": f"{output['ename']}: {output['evalue']}"}
        else:
            kinds = output["data"]
        for kind, text in kinds.items():
            if not kind.startswith("image/"):
                texts[kind] = texts.get(kind, "") + "".join(text)
    return "\n".join(f"{kind}:\n{text}" for kind, text in sorted(texts.items()))


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_those_that_are_stored(notebook: Path, default_run: Path) -> None:
    stored = code_cells(notebook)
    executed = code_cells(default_run / "data" / "synthetic" / "notebooks" / notebook.name)
    assert [cell["source"] for cell in executed] == [cell["source"] for cell in stored]
    differences = []
    for number, (old, new) in enumerate(zip(stored, executed), 1):
        if IGNORED in old["metadata"].get("tags", []):
            continue
        lines = difflib.unified_diff(
            shown(old).splitlines(),
            shown(new).splitlines(),
            f"stored output of [{number}]",
            f"output of [{number}] now",
            lineterm="",
            n=1,
        )
        differences += lines
    assert not differences, "\n".join(["", *differences])


def output(kind: str, text: str) -> dict:
    return {"output_type": "display_data", "data": {kind: text}}


def stream(text: str) -> dict:
    return {"output_type": "stream", "name": "stdout", "text": text}


@pytest.mark.parametrize(
    ("stored", "now"),
    [
        ([stream("a\n"), stream("b\n")], [stream("a\nb\n")]),
        ([output("text/plain", ["0.1", "2"])], [output("text/plain", "0.12")]),
        (
            [output("text/plain", "3"), output("image/png", "x")],
            [output("text/plain", "3"), output("image/png", "y")],
        ),
    ],
)
def test_pieces_and_pictures_make_no_difference(stored: list[dict], now: list[dict]) -> None:
    assert shown({"outputs": stored}) == shown({"outputs": now})


@pytest.mark.parametrize(
    ("stored", "now"),
    [
        ([stream("0.12")], [stream("0.13")]),
        ([stream("0.12")], []),
        ([output("text/html", "<b>1</b>")], [output("text/html", "<b>2</b>")]),
        (
            [stream("x")],
            [stream("x"), {"output_type": "error", "ename": "KeyError", "evalue": "'a'"}],
        ),
    ],
)
def test_another_text_is_a_difference(stored: list[dict], now: list[dict]) -> None:
    assert shown({"outputs": stored}) != shown({"outputs": now})
