"""Only complete files count.

Lost or damaged rows, records and networks are noticed, and made again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from analysis import report, table
from engine import sweep
from engine.results import finish as results
from tasks.parts.artifacts import classifier

SWEEP = """
task: input_flatness
fixed:
  examples: 12
  radii: [0.2]
  attack: {epsilon: 0.2, steps: 2}
  recipe: {dataset: blobs, network: linear, epochs: 1}
grid: {samples: [4, 5]}
resources: {chunk: 4, gpus: 0}
figures: [effects]
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sweep, which has run."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("small.yaml").write_text(SWEEP)
        assert run() == 0
    return folder


@pytest.fixture(autouse=True)
def in_a_copy(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has its own copy of the finished sweep."""
    shutil.copytree(finished, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")


Said = pytest.CaptureFixture[str]
TRIALS, CLASSIFIERS, SEARCHES = (
    Path("results", *parts)
    for parts in (("small", "trials"), ("artifacts", "classifier"), ("artifacts", "adversarial_examples"))
)


def run(*options: str) -> int:
    return sweep.main(["small.yaml", "--local", *options])


def parts(number: int = 0) -> list[Path]:
    """The parts of a trial's rows."""
    return sorted((sorted(TRIALS.iterdir())[number] / "rows").glob("part-*.parquet"))


def rows() -> dict[str, pd.DataFrame]:
    found = {}
    for trial in sorted(TRIALS.iterdir()):
        frame = pd.concat([pd.read_parquet(part) for part in trial.glob("rows/part-*.parquet")])
        found[trial.name] = frame.sort_values(["id", "condition", "radius"], ignore_index=True)
    return found


def cut(file: Path, size: int) -> None:
    file.write_bytes(file.read_bytes()[:size])


def forget_sizes() -> None:
    """Trials as earlier versions left them."""
    for file in TRIALS.glob("*/trial.json"):
        told = json.loads(file.read_text())
        file.write_text(json.dumps({name: value for name, value in told.items() if name != "parts"}))


LOSSES: dict[str, tuple[Callable[[Path], None], bool]] = {
    "removed": (lambda part: part.unlink(), False),
    "cut": (lambda part: cut(part, 700), True),
    "empty": (lambda part: cut(part, 0), True),
    "another file": (lambda part: part.write_text("<!DOCTYPE html>"), True),
    "a foreign table": (lambda part: pd.DataFrame({"id": [1]}).to_parquet(part), True),
}


@pytest.mark.parametrize(("loss", "earlier"), [*((loss, False) for loss in LOSSES), ("removed", True), ("cut", True)])
def test_lost_rows_are_measured_again_and_no_others(loss: str, earlier: bool, capsys: Said) -> None:
    before = rows()
    if earlier:
        forget_sizes()
        assert run("--dry-run") == 0
        assert "to do: 0 trials" in capsys.readouterr().out
    lose, named = LOSSES[loss]
    lost, *kept = parts()
    lose(lost)
    when = [part.stat().st_mtime_ns for part in kept]
    capsys.readouterr()

    assert run("--dry-run") == 0
    said = capsys.readouterr()
    assert "to do: 1 trials; 0 networks to train, 0 epochs; 0 attacks; 4 examples to measure" in said.out
    assert "begun" in said.out
    assert said.err.count(str(lost)) == named
    assert run() == 0
    said = capsys.readouterr()
    assert "2 of 2 trials done; 1 run now" in said.out
    assert said.err.count(str(lost)) == named
    assert "Traceback" not in said.err
    assert [part.stat().st_mtime_ns for part in kept] == when
    after = rows()
    assert after.keys() == before.keys()
    for trial in after:
        pd.testing.assert_frame_equal(after[trial], before[trial], rtol=1e-5, atol=1e-5)
    assert run() == 0
    said = capsys.readouterr()
    assert "; 0 run now" in said.out
    assert said.err == ""


def test_rows_that_break_only_when_they_are_read_are_measured_again(capsys: Said) -> None:
    lost = parts()[1]
    content = bytearray(lost.read_bytes())
    end = len(content) - int.from_bytes(content[-8:-4], "little") - 8
    content[4:end] = bytes(end - 4)  # the footer is whole, the pages are not
    lost.write_bytes(content)
    parts()[0].unlink()
    capsys.readouterr()
    assert run() == 0
    said = capsys.readouterr()
    assert said.err.count(str(lost)) == 1
    assert "2 of 2 trials done; 1 run now" in said.out
    assert {len(frame.drop_duplicates("id")) for frame in rows().values()} == {12}


def test_a_part_that_another_run_has_written_anew_is_as_good(capsys: Said) -> None:
    """The part's size differs from the one in the trial's record, but the part is complete."""
    pq.write_table(pq.read_table(parts()[0]), parts()[0], compression="none")
    capsys.readouterr()
    assert run() == 0
    said = capsys.readouterr()
    assert "; 0 run now" in said.out
    assert said.err == ""


@pytest.mark.parametrize("content", ["", '{"status": "do', "[]"])
def test_a_record_that_is_cut_is_named_and_made_again(content: str, capsys: Said) -> None:
    files = [next(TRIALS.glob("*/trial.json")), *CLASSIFIERS.glob("*/artifact.json"), Path("results/small/report.json")]
    network = files[1].with_name("arrays.pt").read_bytes()
    for file in files:
        file.write_text(content)
    capsys.readouterr()
    assert run("--dry-run") == 0
    said = capsys.readouterr()
    assert "to do: 1 trials; 1 networks to train, 1 epochs; 0 attacks; 0 examples to measure" in said.out
    assert [said.err.count(str(file)) for file in files] == [1, 1, 0]
    assert files[0].read_text() == content  # a dry run writes nothing
    assert run() == 0
    said = capsys.readouterr()
    assert "2 of 2 trials done; 1 run now" in said.out
    assert [said.err.count(str(file)) for file in files] == [1, 1, 1]
    assert json.loads(files[0].read_text())["status"] == "done"
    assert len(json.loads(files[1].read_text())["history"]) == 1
    assert files[1].with_name("arrays.pt").read_bytes() == network
    assert run() == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("size", [None, 0, 500])
def test_weights_that_are_missing_or_cut_are_trained_again(
    size: int | None, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run() == 0
    (weights,) = CLASSIFIERS.glob("*/arrays.pt")
    before = torch.load(weights, weights_only=True)
    weights.unlink() if size is None else cut(weights, size)
    shutil.rmtree(TRIALS)
    trained = []
    train = classifier.make
    monkeypatch.setattr(classifier, "make", lambda *given: trained.append(1) or train(*given))
    capsys.readouterr()
    assert run("--dry-run") == 0
    said = capsys.readouterr()
    assert "1 networks to train, 1 epochs" in said.out
    assert said.err.count(str(weights)) == 1
    assert run() == 0
    assert capsys.readouterr().err.count(str(weights)) == 1
    assert trained == [1]
    after = torch.load(weights, weights_only=True)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_weights_that_cannot_be_loaded_are_set_aside_and_trained_again(capsys: Said) -> None:
    """The files have the right size and a wrong content."""
    (weights,) = CLASSIFIERS.glob("*/arrays.pt")
    weights.write_bytes(bytes(weights.stat().st_size))
    shutil.rmtree(TRIALS)
    capsys.readouterr()
    assert run() == 0
    assert capsys.readouterr().err.count(f"{weights}: torch cannot read it") == 1
    torch.load(weights, weights_only=True)


def test_adversarial_examples_that_are_cut_are_searched_again(capsys: Said) -> None:
    before = rows()
    lost = next(SEARCHES.glob("*/rows/part-*.parquet"))
    cut(lost, 300)
    next(SEARCHES.glob("*/artifact.json")).write_text("")
    shutil.rmtree(TRIALS)
    capsys.readouterr()
    assert run("--dry-run") == 0
    said = capsys.readouterr()
    assert "4 attacks" in said.out
    assert said.err.count(str(lost)) == 1
    assert run() == 0
    assert capsys.readouterr().err.count(str(lost)) == 1
    for trial, frame in rows().items():
        pd.testing.assert_frame_equal(frame, before[trial], rtol=1e-5, atol=1e-5)


def test_a_trial_that_is_measured_again_has_no_record_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a trial that is killed meanwhile would count as done."""
    parts()[0].unlink()
    file = parts()[1].parents[1] / "trial.json"
    seen = []

    def killed(*_: object) -> object:
        seen.append(file.exists())
        raise KeyboardInterrupt

    monkeypatch.setattr("engine.execution.trial.measure", killed)
    assert run() == 130
    assert seen == [False]


# --------------------------------------------------------------------------------------- the report


def test_a_report_leaves_out_a_trial_that_lacks_rows(capsys: Said) -> None:
    capsys.readouterr()
    trial = parts()[0].parents[1].name
    line = f"small: the rows of 4 of 12 examples of trial {trial} are missing; it is left out, run the sweep again\n"
    parts()[0].unlink()
    assert report.main(["results/small"]) == 1
    assert capsys.readouterr().err == line
    page = Path("results/small/report.html").read_text()
    assert "1 done, 1 incomplete" in page
    assert f"the rows of 4 of 12 examples of trial {trial} are missing" in page
    for found in (table.load("results/small"), table.overview("results/small")):
        assert sorted(found.trials["status"]) == ["done", "incomplete"]
        assert len(found.recipes) == 1
        assert trial not in set(found.rows.get("trial", []))
    assert len(pd.read_csv("results/small/summary.csv")) == 1

    parts(1)[0].unlink()
    assert report.main(["results/small"]) == 2
    assert "are missing (and 1 other trials lack some); run the sweep again" in capsys.readouterr().err
    assert run() == 0
    assert "2 of 2 trials done; 2 run now" in capsys.readouterr().out
    assert report.main(["results/small"]) == 0


def test_rows_that_are_lost_while_the_report_is_made_are_told_in_the_exit_status(
    capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = results.table

    def losing(*given: object, **named: object) -> object:
        parts()[0].unlink()
        return made(*given, **named)

    Path("results/small/report.json").unlink()
    monkeypatch.setattr(results, "table", losing)
    assert run() == 1
    assert "the rows of 4 of 12 examples of trial" in capsys.readouterr().err
    monkeypatch.setattr(results, "table", made)
    assert run() == 0
    assert "2 of 2 trials done; 1 run now" in capsys.readouterr().out


def test_a_table_of_an_earlier_version_is_read_as_it_is() -> None:
    file = Path("results/small/trials.parquet")
    trials = pq.read_table(file)
    assert trials["examples"].to_pylist() == [12, 12]
    pq.write_table(trials.drop_columns("examples"), file)
    parts()[0].unlink()
    assert table.load("results/small").trials["status"].tolist() == ["done", "done"]
