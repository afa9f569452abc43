"""Options of the online system's command that could be misread are refused in one sentence."""

from pathlib import Path

import pytest

from recsys_utils.online.__main__ import main


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--history", "h", "--seed", "-1"], "'-1' is no whole number from 0"),
        (["update", "--events", "e", "--wait", "nan"], "'nan' is no number of seconds"),
        (["update", "--events", "e", "--wait", "-1"], "'-1' is no number of seconds"),
    ],
)
def test_bad_numbers_are_refused(
    tmp_path: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--state", str(tmp_path)])
    assert stop.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("users", ["", "1,,2", " "])
def test_an_empty_id_does_not_mean_everybody(
    tmp_path: Path, users: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(["recommend", "--users", users, "--state", str(tmp_path)]) == 2
    assert "names an empty id" in capsys.readouterr().err
