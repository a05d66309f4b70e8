"""The progress display.

It counts what is measured now, its time left comes true, and the window stays in order.
"""

from __future__ import annotations

import io
import pickle
import re
from functools import partial
from pathlib import Path

import pytest
import ray.cloudpickle
from windows import Window

from engine.execution import progress as module
from engine.execution import ray_tune
from engine.execution.context import Job
from engine.execution.events import Making, Measuring
from engine.execution.executors import RayExecutor
from engine.execution.progress import Progress, summary_line
from engine.execution.trial_queue import TrialQueue
from engine.execution.workers import RunContext
from engine.plan.plan import Planned, plan
from engine.store.records import TrialRecord
from engine.store.store import Store
from engine.sweepfile.load import load

RECORD = TrialRecord(status="done", summary={"accuracy": 0.5}, seconds=1.0)
STOPPED = TrialRecord(status="stopped", epochs=({}, {}))
TRAINING = Making("training", 3, 20)
FAILED = TrialRecord(status="failed", error="ValueError: no")


@pytest.fixture(autouse=True)
def talkative(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain line with counts after each message, not only every so often."""
    monkeypatch.setattr(module, "PLAIN_EVERY", -1.0)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def measuring(done: int, total: int = 100) -> Measuring:
    return Measuring(done, total)


def last(said: io.StringIO) -> str:
    return said.getvalue().splitlines()[-1]


def seconds_left(said: io.StringIO) -> int:
    minutes, seconds = re.findall(r"(\d+):(\d\d) left", last(said))[0]
    return int(minutes) * 60 + int(seconds)


def test_a_resumed_trial_counts_only_what_is_measured_now() -> None:
    said = io.StringIO()
    with Progress(trials=1, examples=10, stream=said) as progress:
        progress.update("a", "seed=0", measuring(90))
        progress.update("a", "seed=0", measuring(95))
        assert "5/10 examples" in last(said)
        progress.finish("a", "seed=0", RECORD)  # the last reports of a trial may be left out
        assert "10/10 examples" in last(said)
        assert "1/1 trials" in last(said)
    assert "[1/1] seed=0: accuracy 0.5 (1.0 s)" in said.getvalue()


def test_training_comes_before_measuring() -> None:
    said = io.StringIO()
    progress = Progress(trials=2, examples=200, stream=said)
    progress.update("a", "seed=0", TRAINING)
    assert "0/200 examples" in last(said)
    assert "known with the first results" in last(said)
    progress.update("a", "seed=0", measuring(0))
    progress.update("a", "seed=0", measuring(40))
    assert "40/200 examples" in last(said)


def test_a_failure_is_said_and_counted() -> None:
    said = io.StringIO()
    progress = Progress(trials=2, examples=200, stream=said)
    progress.update("a", "seed=0", measuring(0))
    progress.update("a", "seed=0", measuring(30))
    progress.finish("a", "seed=0", FAILED)
    assert "failed: seed=0: ValueError: no" in said.getvalue()
    # Those it has not measured are no more to come
    assert "1/2 trials, 1 failed, 30/130 examples" in last(said)


def test_the_time_left_is_by_how_long_trials_took_however_they_ended() -> None:
    said, clock = io.StringIO(), Clock()
    progress = Progress(trials=4, examples=400, stream=said, clock=clock)
    for number, record in enumerate([RECORD, STOPPED, FAILED, RECORD], 1):
        key = str(number)
        clock.now += 5
        progress.update(key, "seed=0", TRAINING)
        clock.now += 5
        if record is RECORD:
            progress.update(key, "seed=0", measuring(0))
        progress.finish(key, "seed=0", record)
        assert seconds_left(said) == pytest.approx(10 * (4 - number), abs=1)
    assert "4/4 trials, 1 failed, 200/200 examples" in last(said)


def test_the_time_left_comes_true_where_trials_have_different_amounts_left() -> None:
    """An example a second; the small trials come first."""
    said, clock = io.StringIO(), Clock()
    sizes = [0, 10, 10, 100, 200]
    progress = Progress(trials=len(sizes), examples=sum(sizes), stream=said, clock=clock)
    for number, size in enumerate(sizes):
        progress.update(str(number), "seed=0", measuring(200 - size, 200))
        for done in range(0, size, 10):
            clock.now += 10
            progress.update(str(number), "seed=0", measuring(200 - size + done + 10, 200))
        progress.finish(str(number), "seed=0", RECORD)
        if number:
            assert seconds_left(said) == pytest.approx(sum(sizes[number + 1 :]), rel=0.1)
    assert last(said).endswith(" 0:00 left")


def test_trials_that_will_not_be_are_no_more_waited_for() -> None:
    said = io.StringIO()
    progress = Progress(trials=10, examples=100, stream=said)
    progress.expect(8)
    progress.finish("a", "seed=0", RECORD)
    assert "[1/8] seed=0" in said.getvalue()
    assert "/70 examples" in last(said)


def test_a_summary_line_leaves_out_what_is_missing() -> None:
    assert summary_line({"a": 1.0, "b": None, "c": 0.123456}) == "a 1, c 0.1235"


@pytest.mark.parametrize("columns", [20, 80, 200])
@pytest.mark.parametrize("trials", [24, 200])
@pytest.mark.usefixtures("terminal")
def test_the_window_shows_what_runs_and_what_has_ended(columns: int, trials: int) -> None:
    window, label = Window(columns, 24), "recipe.optimiser=adamw " * 6
    with Progress(trials=trials, examples=100 * trials, stream=window.stream) as progress:
        progress.finish("a", "seed=0", RECORD)
        progress.finish("b", "seed=1", STOPPED)
        progress.finish("c", "seed=2", FAILED)
        for number in range(30):
            progress.update(str(number), f"{label}seed={number}", TRAINING)
        window.wait_for(lambda shown: "more" in shown)
        assert f"[1/{trials}] seed=0:" in window.text
        assert f"[2/{trials}] seed=1:" in window.text
        assert "failed: seed=2:" in window.text
        lines = window.shown.splitlines()
        assert len(lines) == 24
        assert "training" not in lines.pop(0)  # one line is left to what has ended
        assert sum("training 3/20" in line for line in lines) == 20 if columns > 20 else 1
        assert lines[-1] == "  and 10 more"
        assert all(len(line) < columns for line in lines)
        if columns > 20:
            assert "%  " in lines[0]
            assert f"3/{trials} trials, 1 failed" in lines[1]
            assert lines[2].endswith("seed=0")  # what tells labels apart is not cut off
            assert ("..." in lines[2]) == (columns == 80)
    window.read()
    assert "training" not in window.shown
    assert window.shown.splitlines()[-1].endswith("Error: no")
    assert window.at_the_end


@pytest.mark.parametrize("after", [(60, 24), (200, 8), (300, 50)])
@pytest.mark.usefixtures("terminal")
def test_a_window_of_another_size_is_drawn_anew(after: tuple[int, int]) -> None:
    window = Window(200, 24)
    with Progress(trials=24, examples=2400, stream=window.stream) as progress:
        progress.finish("a", "seed=0", RECORD)
        for number in range(12):
            progress.update(str(number), f"seed={number}", TRAINING)
        window.wait_for(lambda shown: "seed=11" in shown)
        window.resize(*after)
        progress.finish("b", "seed=b", RECORD)
        window.wait_for(lambda shown: "[2/24]" in shown and "2/24 trials" in shown)
        assert window.text.count(" trials") == 1
        assert window.text.count("[2/24]") == 1
        # The emulator forgets what leaves a lower window
        assert window.text.count("[1/24]") == (after[1] > 8)
        assert all(len(line) < after[0] for line in window.shown.splitlines())
    window.read()
    assert " trials" not in window.text


@pytest.mark.usefixtures("terminal")
def test_what_others_print_comes_above(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    window = Window(80, 24)
    monkeypatch.setattr(sys, "stderr", window.stream)
    with Progress(trials=24, examples=2400) as progress:
        progress.update("a", "seed=0", TRAINING)
        window.wait_for(lambda shown: "seed=0" in shown)
        print("a warning", file=sys.stderr)
        lines = window.wait_for(lambda shown: "a warning" in shown and "seed=0" in shown).splitlines()
        assert lines[0] == "a warning"
        assert len(lines) == 4
    window.read()
    assert window.shown == "a warning"


@pytest.mark.usefixtures("terminal")
def test_a_label_cannot_steer_the_terminal() -> None:
    window, plain = Window(80, 24), io.StringIO()
    for stream in (window.stream, plain):
        with Progress(trials=24, examples=2400, stream=stream) as progress:
            progress.update("a", "a\x1b]0;title\x07=\x9b31m1", TRAINING)
            if stream is not plain:
                window.wait_for(lambda shown: "training" in shown)
            progress.finish("a", "a\x1b]0;title\x07=\x9b31m1", TrialRecord(status="failed", error="no\x1b[2J"))
    window.wait_for(lambda shown: "failed" in shown)
    for written in (window.raw.decode(), plain.getvalue()):
        assert not {"\x1b]0", "\x07", "\x9b", "\x1b[2J"} & {
            written[at : at + size] for at in range(len(written)) for size in (1, 3, 4)
        }
        assert r"failed: a\x1b]0;title\x07=\x9b31m1: no\x1b[2J" in written


@pytest.mark.parametrize("kind", ["dumb", "unknown", ""])
def test_a_terminal_that_cannot_move_its_cursor_gets_plain_lines(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", kind)
    window = Window(80, 24)
    with Progress(trials=1, examples=100, stream=window.stream) as progress:
        progress.update("a", "seed=0", measuring(0))
        progress.finish("a", "seed=0", RECORD)
    window.wait_for(lambda shown: "1/1 trials, 100/100 examples" in shown)
    assert b"\x1b" not in window.raw
    assert "[1/1] seed=0: accuracy 0.5 (1.0 s)" in window.shown


@pytest.mark.usefixtures("terminal")
def test_what_tune_is_given_pickles_while_a_display_is_live(tmp_path: Path) -> None:
    """And takes nothing of this process along, nor loses it."""
    file = tmp_path / "x.yaml"
    file.write_text("task: evaluation\nfixed: {examples: 10, recipe: {dataset: digits, network: linear}}\nseeds: 2\n")
    spec, store = load(str(file), []), Store(str(tmp_path))
    queue = TrialQueue(spec, store, plan(spec))
    job = Job.of(spec, store, RayExecutor(), RunContext())
    window = Window(80, 24)
    with Progress(trials=2, examples=20, stream=window.stream) as progress:
        window.wait_for(lambda shown: "trials" in shown)
        search, listener, refused = ray_tune.handles(ray_tune.Driver(queue, progress))
        config: dict[str, Planned] = search.suggest("one")
        for one in (search, listener, refused, partial(ray_tune.coordinator, job=job, pruner=None), config):
            small = ray.cloudpickle.dumps(one)
            assert b"Progress" not in small
            assert b"TrialQueue" not in small
            pickle.loads(small)

        class Trial:
            def __init__(self) -> None:
                self.config = config

        listener.on_trial_result(1, [], Trial(), {"progress": measuring(0, 10)})
        window.wait_for(lambda shown: "measuring 0/10" in shown)
        assert not refused.stop_all()
