"""The command a newcomer runs first: what was understood of the receipts, or one sentence."""

import tomllib
from pathlib import Path

import pytest

from recsys_utils import check

HEAD = "Customer ID;Item Code;Item Name;Date;Receipt No;Qty;Total\n"


@pytest.fixture
def receipts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two months of a small shop's receipts, as its till writes them."""
    monkeypatch.setenv("RECSYS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RECSYS_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    lines = [
        f"{user:03d};A{day % 7};Tea {day % 7};{day:02d}/{month:02d}/2024;"
        f"{month}{day}{user};2;5,00\n"
        for month in (1, 2, 3, 4)
        for day in range(1, 29)
        for user in range(40)
    ]
    path = tmp_path / "My Till.csv"
    path.write_text(HEAD + "".join(lines))
    return path


def test_a_draft_is_written_from_the_columns_and_then_understood(
    receipts: Path, capsys: pytest.CaptureFixture
) -> None:
    assert check.main(["--draft", str(receipts)]) == 0
    text = (receipts.parent / "my_till.toml").read_text()
    for line in (
        'user_id = "Customer ID"',
        'item_id = "Item Code"',
        'ts = "Date"',
        'basket_id = "Receipt No"',
        'quantity = "Qty"',
        'price = "Total / Qty"',
        'name = "Item Name"',
    ):
        assert line in text
    capsys.readouterr()
    assert check.main(["my_till.toml"]) == 0
    said = capsys.readouterr().out
    assert "4,480" in said
    assert "'01/01/2024' is read as 1 January 2024" in said
    assert "price per unit                    2.5 to 2.5" in said
    assert "Dates such as" in said
    assert "A run takes about 1 minute with 2 notebooks" in said
    assert "Next: ./run_all.sh --dataset my_till.toml" in said


def test_an_incumbent_that_no_run_makes_is_told(
    receipts: Path, capsys: pytest.CaptureFixture
) -> None:
    assert check.main(["--draft", str(receipts)]) == 0
    toml = receipts.parent / "my_till.toml"
    text = toml.read_text()
    toml.write_text(text + '\n[worth]\nincumbent = "popular_28"\n')
    assert check.main(["my_till.toml"]) == 0
    said = capsys.readouterr().out
    assert "incumbent = 'popular_28' is no model that a run makes" in said
    assert "did you mean popular_28d?" in said
    toml.write_text(text + '\n[worth]\nincumbent = "popular_28d"\n')
    assert check.main(["my_till.toml"]) == 0
    assert "incumbent" not in capsys.readouterr().out


def test_a_draft_never_overwrites(receipts: Path, capsys: pytest.CaptureFixture) -> None:
    (receipts.parent / "my_till.toml").write_text("mine")
    assert check.main(["--draft", str(receipts)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert (receipts.parent / "my_till.toml").read_text() == "mine"


def test_too_few_shoppers_and_windows_are_warned_of(
    receipts: Path, capsys: pytest.CaptureFixture
) -> None:
    lines = receipts.read_text().splitlines(keepends=True)
    receipts.write_text("".join(lines[:1] + [line for line in lines if line[:3] < "005"]))
    check.main(["--draft", str(receipts)])
    check.main(["my_till.toml"])
    assert "5 shoppers of the test part have an earlier receipt" in capsys.readouterr().out


def test_one_shopper_is_no_shoppers(receipts: Path, capsys: pytest.CaptureFixture) -> None:
    lines = receipts.read_text().splitlines(keepends=True)
    one = [line for line in lines if line[:3] == "003" and ";A5;" in line]
    receipts.write_text("".join(lines[:1] + one))
    check.main(["--draft", str(receipts)])
    assert check.main(["my_till.toml"]) == 0
    said = capsys.readouterr().out
    assert "1 shopper of the test part has an earlier receipt" in said
    assert "16 lines, 1 shopper, 1 item." in said


@pytest.mark.parametrize(
    ("top", "kept", "lack"),
    [
        ("", ("/01/2024", "/02/2024"), "lower test_weeks, valid_weeks or folds"),
        ("folds = 9", ("2024",), "6 validation weeks and 8 folds more reach back to"),
        ("test_weeks = 1\nvalid_weeks = 1", ("27/04/2024", "01/01/2024"), "no shopper of the test"),
        ('protocol = "next_basket"', ("28/01/2024",), "no shopper of the test"),
    ],
)
def test_a_shop_that_cannot_run_yet_is_told_what_it_lacks(
    receipts: Path, capsys: pytest.CaptureFixture, top: str, kept: tuple[str, ...], lack: str
) -> None:
    lines = receipts.read_text().splitlines(keepends=True)
    lines = [line for line in lines[1:] if any(day in line for day in kept)]
    if "weeks = 1" in top:  # others than those who bought before
        lines = [line for line in lines if (line[:3] < "020") == ("/04/" in line)]
    receipts.write_text(HEAD + "".join(lines))
    check.main(["--draft", str(receipts)])
    toml = receipts.parent / "my_till.toml"
    toml.write_text(f"{top}\n{toml.read_text()}")
    capsys.readouterr()
    assert check.main(["my_till.toml"]) == 2
    said = capsys.readouterr().out
    last = said.strip().splitlines()[-1]
    assert last.startswith("No run is possible yet: ")
    assert lack in last
    assert "run_all.sh" not in said


def test_bad_input_is_one_sentence(receipts: Path, capsys: pytest.CaptureFixture) -> None:
    assert check.main(["nothing.toml"]) == 2
    assert check.main(["--draft", "nothing.csv"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert all(line.startswith("error: ") for line in errors)


def test_a_draft_knows_the_encoding_and_takes_a_description_for_want_of_a_code(
    receipts: Path,
) -> None:
    path = receipts.parent / "cafe.csv"
    path.write_bytes("Member_number,Date,itemDescription\n1000,2024-01-01,Café\n".encode("latin-1"))
    check.main(["--draft", str(path)])
    text = (receipts.parent / "cafe.toml").read_text()
    assert 'encoding = "latin-1"' in text
    assert 'item_id = "itemDescription"' in text


def test_a_draft_reads_utf_16_and_looks_at_whole_words(tmp_path: Path) -> None:
    path = tmp_path / "kasse.csv"
    text = "Discard;KundenNr;ArtikelNr;Datum;Bon\n0;7;00012;2024-01-02;R1\n"
    path.write_bytes(text.encode("utf-16"))
    assert check.main(["--draft", str(path)]) == 0
    draft = tomllib.loads((tmp_path / "kasse.toml").read_text())["purchases"]
    assert draft["encoding"] == "utf-16"
    assert draft["columns"] == {
        "user_id": "KundenNr",
        "item_id": "ArtikelNr",
        "ts": "Datum",
        "basket_id": "Bon",
    }
