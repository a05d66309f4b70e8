"""What the progress display says: counts of what is measured now, never more than there is."""

from __future__ import annotations

import io

from engine.progress import Progress, summary_line

RECORD = {"status": "done", "summary": {"accuracy": 0.5}, "seconds": 1.0}


def measuring(done: int, of: int = 100) -> dict[str, object]:
    return {"phase": "measuring", "done": done, "of": of}


def test_a_resumed_trial_counts_only_what_is_measured_now() -> None:
    said = io.StringIO()
    with Progress(trials=1, examples=10, stream=said) as progress:
        progress.update("a", "seed=0", measuring(90))
        progress.update("a", "seed=0", measuring(95))
        assert "5/10 examples" in progress._counts()
        progress.finish("a", "seed=0", RECORD)  # the last reports of a trial may be left out
        assert "10/10 examples" in progress._counts()
        assert "1/1 trials" in progress._counts()
    assert "[1/1] seed=0: accuracy 0.5 (1.0 s)" in said.getvalue()


def test_training_comes_before_measuring() -> None:
    progress = Progress(trials=2, examples=200, stream=io.StringIO())
    progress.update("a", "seed=0", {"phase": "training", "done": 3, "of": 20})
    assert "0/200 examples" in progress._counts()
    progress.update("a", "seed=0", measuring(0))
    progress.update("a", "seed=0", measuring(40))
    assert "40/200 examples" in progress._counts()


def test_a_failure_is_said_and_counted() -> None:
    said = io.StringIO()
    progress = Progress(trials=2, examples=200, stream=said)
    progress.update("a", "seed=0", measuring(30))
    progress.finish("a", "seed=0", {"status": "failed", "error": "ValueError: no"})
    assert "failed: seed=0: ValueError: no" in said.getvalue()
    assert "1 failed" in progress._counts()


def test_a_summary_line_leaves_out_what_is_missing() -> None:
    assert summary_line({"a": 1.0, "b": None, "c": 0.123456}) == "a 1, c 0.1235"
