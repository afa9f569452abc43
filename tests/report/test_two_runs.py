"""Two kept runs: what is kept, what differs between them, and what a scheduler is told."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from kept_shop import SHOPPERS, Clock, KeptShop, write_shop

from recsys_utils import LabError
from recsys_utils.evaluation.significance import holm, intervals, paired_tests
from recsys_utils.pipeline.__main__ import main
from recsys_utils.report import kept
from recsys_utils.report.kept import KeptRun, find_report, find_run, kept_runs, load_kept
from recsys_utils.report.two_runs import BETTER, CANNOT_TELL, WORSE, compare, gate, told

BASE = {"own": (30, 10), "popular": (5, 4)}


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "datetime", Clock)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RECSYS_HOME", str(tmp_path))
    monkeypatch.delenv("RECSYS_DATA", raising=False)
    return tmp_path


@pytest.fixture
def shop(home: Path) -> KeptShop:
    return KeptShop(write_shop(home, "corner"))


def precision(run: KeptRun, model: str) -> pd.Series:
    return run.values["precision"][model]


def test_a_run_is_a_small_folder_without_code(shop: KeptShop) -> None:
    run = shop.run(BASE)
    assert sorted(path.name for path in run.folder.iterdir()) == [
        "leaderboard.csv",
        "manifest.json",
        "values.parquet",
    ]
    assert run.choice == "own"
    assert run.about["fold"]["borders"]["test"] == "2025-04-24 00:00:00"
    assert run.table["precision"].dtype == "float32"
    assert precision(run, "own").sum() == pytest.approx(10 * 0.2, abs=1e-12)
    assert len(precision(run, "own")) == SHOPPERS
    assert "revenue_share" not in run.metrics  # the receipts have no prices


def test_the_same_run_is_kept_once(shop: KeptShop) -> None:
    first = shop.run(BASE, report="one")
    assert shop.run(BASE, report="two").name == first.name
    assert shop.run(BASE, fast=True).name != first.name
    assert find_report("corner", "one") == first.folder
    assert find_report("corner", "three") is None


def test_the_oldest_are_removed_but_never_the_gate(shop: KeptShop) -> None:
    names = [shop.run({"own": (30, n)}, limit=3).name for n in range(1, 5)]
    assert [folder.name for folder in kept_runs("corner")[0]] == names[1:]
    page = kept.runs_dir("corner") / f"{names[2]}-and-{names[3]}.html"
    page.write_text("")
    last = shop.run({"own": (30, 9)}, limit=2, spared=kept.runs_dir("corner") / names[1])
    assert [folder.name for folder in kept_runs("corner")[0]] == [names[1], last.name]
    assert not page.exists()


def test_the_limit_holds_when_the_run_is_there_already(shop: KeptShop) -> None:
    first = shop.run({"own": (30, 1)}, limit=3)
    shop.run({"own": (30, 2)}, limit=3)
    again = shop.run({"own": (30, 1)}, limit=1)
    assert again.name == first.name
    assert kept_runs("corner")[0] == [first.folder]


def test_what_a_full_disk_interrupts_is_not_kept(
    shop: KeptShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(folder: Path, *_: object, **__: object) -> None:
        folder.mkdir(parents=True)
        (folder / "leaderboard.csv").write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept, "save_bundle", fails)
    with pytest.raises(LabError, match="No space left on device: the report is written"):
        shop.run(BASE)
    assert kept_runs("corner") == ([], [])
    assert list(kept.runs_dir("corner").iterdir()) == []


def test_half_written_folders_are_ignored_and_told(
    shop: KeptShop, capsys: pytest.CaptureFixture
) -> None:
    first, second = shop.run(BASE), shop.run(BASE, fast=True)
    folder = first.folder.parent
    shutil.copytree(first.folder, folder / ".2026-01-01T000000-abc.77.tmp")
    shutil.copytree(first.folder, folder / "2027-01-01T000000-half")
    (folder / "2027-01-01T000000-half" / "values.parquet").unlink()
    (folder / "2028-01-01T000000-none").mkdir()
    assert kept_runs("corner")[0] == [first.folder, second.folder]
    assert main(["--dataset", str(shop.toml), "--compare", "previous", "latest"]) == 0
    ignored = capsys.readouterr().err.splitlines()
    assert len(ignored) == 3
    assert all("is not a whole run" in line for line in ignored)


def test_a_changed_file_is_refused_by_name(shop: KeptShop) -> None:
    run = shop.run(BASE)
    (run.folder / "values.parquet").write_bytes(b"other")
    with pytest.raises(LabError, match="values.parquet was changed after it was saved"):
        load_kept(run.folder)


def test_only_the_models_that_matter_where_there_are_too_many_shoppers(
    shop: KeptShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "MOST_ROWS", 2 * SHOPPERS)
    models = {"own": (30, 1), "a": (2, 20), "b": (3, 30), "c": (4, 2)}
    run = shop.run(models, needed=("c",))
    assert set(run.table["model"]) == {"own", "c"}
    assert run.board["model"].nunique() == 4


def test_a_run_is_found_by_name_prefix_path_and_age(shop: KeptShop) -> None:
    with pytest.raises(LabError, match="none yet"):
        find_run("corner", "latest")
    first = shop.run(BASE)
    with pytest.raises(LabError, match=f"'previous' is no kept run.*{first.name}"):
        find_run("corner", "previous")
    second = shop.run(BASE, fast=True)
    assert find_run("corner", "latest").name == second.name
    assert find_run("corner", "previous").name == first.name
    assert find_run("corner", first.name).name == first.name
    assert find_run("corner", first.name[:-1]).name == first.name
    assert find_run("corner", str(first.folder)).name == first.name
    with pytest.raises(LabError, match="fits several runs.*previous or one of"):
        find_run("corner", "2026")


def test_an_unknown_run_is_one_line_that_lists_what_there_is(
    shop: KeptShop, capsys: pytest.CaptureFixture
) -> None:
    run = shop.run(BASE)
    for arguments in (["--compare", "gone", "latest"], ["--gate", "gone"]):
        assert main(["--dataset", str(shop.toml), *arguments]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith("error: 'gone' is no kept run of 'corner'")
        assert line.endswith(run.name)


def test_a_difference_is_paired_and_has_the_interval_of_significance(shop: KeptShop) -> None:
    """By hand: 10 and 20 of 40 shoppers have 1 hit of 5, so the lead is 0.2 · 10 / 40 = 0.05."""
    first = shop.run(BASE)
    second = shop.run(BASE | {"own": (30, 20)})
    by_hand = np.repeat([0.0, 0.2, 0.0], [10, 10, 20])
    expected = intervals(by_hand[:, None])[0]
    for runs, best_in in (((first, second), "B"), ((second, first), "A")):
        table = compare(*runs).differences
        [row] = table[table["metric"] == "precision"].to_dict("records")
        assert (row["model"], row["best_in"]) == ("own", best_in)
        assert row["value"] == pytest.approx(0.1)
        assert row["other"] == pytest.approx(0.05)
        found = [row["lead"], row["low"], row["high"]]
        assert found == pytest.approx([0.05, expected.low, expected.high], abs=1e-12)
    assert compare(first, second).equal["precision"] == 1


def test_chance_is_corrected_for_the_models_and_the_best_comes_first(shop: KeptShop) -> None:
    first = shop.run({"own": (30, 10), "a": (1, 3), "b": (1, 6), "c": (1, 9)})
    second = shop.run({"own": (30, 18), "a": (1, 9), "b": (1, 2), "c": (1, 9)})
    comparison = compare(first, second)
    table = comparison.differences
    table = table[table["metric"] == "precision"].set_index("model")
    assert list(table.index) == ["own", "a", "b"]
    assert list(table["best_in"]) == ["B", "B", "A"]
    assert (table["value"] >= table["other"]).all()
    alone = []
    for model in table.index:
        pair = pd.DataFrame({"B": precision(second, model), "A": precision(first, model)})
        alone.append(paired_tests(pair)["p"].iloc[0])
    assert table["p"].to_numpy() == pytest.approx(holm(np.array(alone)), abs=0.02)
    assert "3 models differ, 1 equal" in told(comparison)


def test_identical_runs_say_that_nothing_differs(
    shop: KeptShop, capsys: pytest.CaptureFixture
) -> None:
    shop.run(BASE)
    assert main(["--dataset", str(shop.toml), "--compare", "latest", "latest"]) == 0
    printed = capsys.readouterr().out
    assert "Nothing differs." in printed
    page = Path(printed.split("page: ")[1].strip())
    assert "nothing differs" in page.read_text()


def test_parameters_models_and_the_page(shop: KeptShop, capsys: pytest.CaptureFixture) -> None:
    shop.run(BASE | {"mine": (1, 1)})
    shop.run(BASE | {"<b>": (1, 1), "own": (30, 20)}, fast=True)
    assert main(["--dataset", str(shop.toml), "--compare", "previous", "latest"]) == 0
    printed = capsys.readouterr().out
    assert "FAST (notebook 03) false true" in " ".join(printed.split())
    assert "Models only in A: mine" in printed
    assert "Models only in B: <b>" in printed
    assert "K (notebook" not in printed
    page = Path(printed.split("page: ")[1].strip()).read_text()
    assert "FAST (notebook 03)" in page
    assert "&lt;b&gt;" in page
    assert "http" not in page


def test_runs_of_two_data_sets_are_refused(
    shop: KeptShop, home: Path, capsys: pytest.CaptureFixture
) -> None:
    first = shop.run(BASE)
    other = KeptShop(write_shop(home, "other")).run(BASE)
    for compared in (compare, gate):
        with pytest.raises(LabError, match=r"of 'corner', .* of 'other': take two runs of one"):
            compared(first, other)
    # Known before anything runs.
    assert main(["--dataset", str(shop.toml), "--gate", str(other.folder)]) == 2
    assert "it is a run of 'other', not of 'corner'" in capsys.readouterr().err


def test_shoppers_and_weeks_are_told(shop: KeptShop, home: Path) -> None:
    first = shop.run(BASE)
    write_shop(home, "corner", first=10)
    other_shoppers = compare(first, shop.run(BASE)).notes
    assert "the 30 shoppers that both runs judge, 2025-04-24 to 2025-05-14" in other_shoppers[0]
    assert other_shoppers[1] == "Left out: 10 shoppers only in A, 10 only in B."
    assert "The receipts differ" in other_shoppers[2]
    write_shop(home, "corner", weeks=21)
    other_weeks = compare(first, shop.run(BASE)).notes
    assert "the 40 shoppers that both runs judge, each run in weeks of its own" in other_weeks[0]
    assert "B: 2025-05-01 to 2025-05-21" in other_weeks[1]
    write_shop(home, "corner", first=100)
    with pytest.raises(LabError, match="no shopper is judged by both"):
        compare(first, shop.run(BASE))


@pytest.mark.parametrize(
    ("on_test", "code", "word"),
    [(30, BETTER, "better"), (0, WORSE, "worse"), (11, CANNOT_TELL, "cannot tell")],
)
def test_over_the_same_weeks_the_incumbents_own_lists_are_the_rival(
    shop: KeptShop, on_test: int, code: int, word: str
) -> None:
    """The new run's `own` is not what the incumbent run chose, though its name is the same."""
    incumbent = shop.run(BASE)
    new = shop.run({"new": (35, on_test), "own": (30, 40)})
    found = gate(new, incumbent)
    assert found.code == code
    assert found.sentence.startswith(f"{word}: New against Own")
    assert "recorded for the same weeks" in found.sentence
    difference = precision(new, "new") - precision(incumbent, "own")
    lead = intervals(difference.to_numpy()[:, None])[0]
    assert f"lead {'−' if lead.value < 0 else '+'}" in found.sentence
    assert "paired over 40 shoppers, 2025-04-24 to 2025-05-14" in found.sentence


def test_the_same_choice_with_the_same_hits_cannot_be_told(shop: KeptShop) -> None:
    incumbent = shop.run(BASE)
    assert gate(incumbent, incumbent).code == CANNOT_TELL
    found = gate(shop.run(BASE, fast=True), incumbent)
    assert found.code == CANNOT_TELL
    assert "lead +0.0000 Precision@5, 95 % interval +0.0000 to +0.0000" in found.sentence


@pytest.mark.parametrize(("on_test", "code"), [(30, BETTER), (0, WORSE), (11, CANNOT_TELL)])
def test_on_newer_weeks_the_incumbents_model_is_the_new_runs(
    shop: KeptShop, home: Path, on_test: int, code: int
) -> None:
    incumbent = shop.run({"own": (30, 40)})
    write_shop(home, "corner", weeks=21)
    new = shop.run({"new": (35, on_test), "own": (30, 10)})
    found = gate(new, incumbent)
    assert found.code == code
    assert "fitted again by this run, since the weeks have moved on" in found.sentence
    assert "2025-05-01 to 2025-05-21" in found.sentence


def test_on_newer_weeks_the_same_model_or_none_cannot_be_told(shop: KeptShop, home: Path) -> None:
    incumbent = shop.run(BASE)
    write_shop(home, "corner", weeks=21)
    again = gate(shop.run({"own": (30, 40)}), incumbent)
    assert again.code == CANNOT_TELL
    assert "is chosen again, as by" in again.sentence
    gone = gate(shop.run({"new": (30, 40)}), incumbent)
    assert gone.code == CANNOT_TELL
    assert "has no lists in" in gone.sentence


def test_few_shoppers_and_no_choice_cannot_be_told(
    shop: KeptShop, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    incumbent = shop.run(BASE)
    write_shop(home, "corner", first=20)
    new = shop.run({"new": (35, 40)})
    few = gate(new, incumbent)
    assert few.code == CANNOT_TELL
    assert "20 shoppers are judged by both, 30 are needed" in few.sentence
    new.about["choice"] = None
    none = gate(new, incumbent)
    assert none.code == CANNOT_TELL
    assert f"{new.name} made no choice" in none.sentence
