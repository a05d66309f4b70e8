"""Commands at a terminal.

The display, Ctrl-C as a key, windows of all kinds, and streams that are closed or take no Unicode.
"""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from commands import environment
from windows import Command

from engine import sweep

SWEEP = (sys.executable, "-m", "engine.sweep")
INTERRUPTED = "interrupted; the same command goes on from here"
FAST = """
task: user.slow_task
fixed:
  examples: 12
  delay: %s
  recipe: {dataset: digits, network: linear, epochs: 1, train_examples: 200}
grid: {recipe.learning_rate: [0.01, 0.02, 1.0e+38]}
resources: {chunk: 3, gpus: 0}
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    return written(tmp_path, 0.1)


def written(folder: Path, delay: float) -> str:
    (folder / "small.yaml").write_text(FAST % delay)
    return str(folder / "small.yaml")


def processes(mark: str) -> list[str]:
    """The commands of the processes that have a mark in their environment."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdecimal() and mark.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text())
        except OSError:  # it has ended, or is somebody else's
            continue
    # One that has ended and waits for its parent has none
    return [command for command in found if command]


def interrupted(command: Command, *said: str) -> None:
    """Presses Ctrl-C; checks that the command ends with what it had said, and one line."""
    command.press(b"\x03")
    assert command.ended() == 130, command.text
    lines = [line for line in command.text.splitlines() if not line.startswith(said)]
    assert lines == [INTERRUPTED]
    assert command.at_the_end


def finished(command: Command, page: Path) -> None:
    """Checks what a run leaves on the screen: trials, no display, and the report's path."""
    assert command.ended() == 1, command.text
    lines = command.text.splitlines()
    assert len([line for line in lines if line.startswith("[") and "/3] learning_rate=" in line]) == 2
    assert len([line for line in lines if line.startswith("failed: learning_rate=1e+38")]) == 1
    plain = b"\x1b" not in command.raw  # then counts are lines of their own, now and then
    assert not [line for line in lines if "━" in line or (" trials, " in line and not plain)]
    assert "".join(lines).endswith(f"small: 2 of 3 trials done, 1 failed; 3 run now; {page}")
    assert "Traceback" not in command.text
    assert command.at_the_end


@pytest.mark.slow
def test_a_local_run(file: str, tmp_path: Path) -> None:
    """In a narrow window; the run with Ray below ends in a wide one."""
    command = Command(*SWEEP, file, "--local", "--results", str(tmp_path / "r"))
    shown = command.wait_for(lambda shown: "measuring" in shown)
    assert "━" in shown
    assert "/3 trials" in shown
    finished(command, tmp_path / "r/small/report.html")


@pytest.mark.slow
def test_a_terminal_that_cannot_move_its_cursor(file: str, tmp_path: Path) -> None:
    command = Command(*SWEEP, file, "--local", "--results", str(tmp_path / "r"), columns=200, env={"TERM": "dumb"})
    finished(command, tmp_path / "r/small/report.html")
    assert b"\x1b" not in command.raw


@pytest.mark.slow
def test_ctrl_c_in_a_local_run_which_then_goes_on(tmp_path: Path) -> None:
    """In a trial; while modules are imported; where nothing is run."""
    file, results = written(tmp_path, 0.5), str(tmp_path / "r")
    command = Command(*SWEEP, file, "--local", "--results", results)
    command.wait_for(lambda shown: "measuring 3/12" in shown)
    interrupted(command, "small: 3 trials to run")
    command = Command(*SWEEP, file, "--local", "--results", results)
    command.wait_for(lambda shown: "36 examples" not in shown and "measuring" in shown)
    assert "examples to measure" in command.text
    assert "36 examples to measure" not in command.text  # some are there
    interrupted(command, "small: 3 trials to run")


@pytest.mark.parametrize("options", [["--local"], ["--dry-run"], []])
def test_ctrl_c_in_the_first_moments(options: list[str], file: str, tmp_path: Path) -> None:
    command = Command(*SWEEP, file, *options, "--results", str(tmp_path / "r"))
    loaded = Path(f"/proc/{command.process.pid}/maps")
    # The imports have begun, and take their time
    command.wait_for(lambda _: "libtorch" in loaded.read_text())
    interrupted(command)
    assert not (tmp_path / "r").exists()


@pytest.mark.cluster
@pytest.mark.slow
def test_ctrl_c_in_a_run_with_ray_which_then_goes_on(tmp_path: Path, cluster: str) -> None:
    """The whole foreground job gets the signal, Ray's processes too."""
    file, results = written(tmp_path, 0.3), tmp_path / "r"
    mark = f"INPUTSCAPE_MARK={tmp_path}"
    command = Command(*SWEEP, file, "--results", str(results), env=dict([mark.split("=")]))
    command.wait_for(lambda shown: "starting Ray ..." in shown)
    shown = command.wait_for(lambda shown: "measuring 3/12" in shown)
    assert "━" in shown
    assert len(processes(mark)) > 3
    interrupted(command, "starting Ray ...", "small: 3 trials to run")
    for _ in range(300):
        if not processes(mark):
            break
        time.sleep(0.1)
    assert processes(mark) == []

    kept = len(list(results.glob("small/trials/*/rows/part-*.parquet")))
    assert 0 < kept < 8
    command = Command(*SWEEP, file, "--results", str(results), "--address", cluster, columns=200)
    shown = command.wait_for(lambda shown: "to measure" in shown)
    assert f"small: 3 trials to run, {36 - 3 * kept} examples to measure" in shown
    command.wait_for(lambda shown: "measuring" in shown and "━" in shown)
    finished(command, results / "small/report.html")


def test_a_dry_run_fits_the_window(file: str) -> None:
    command = Command(*SWEEP, file, "--dry-run", "--results", "r")
    assert command.ended() == 0
    rows = [line for line in command.text.splitlines() if "learning_rate=" in line]
    assert len(rows) == 3
    assert all(row.endswith("to make  12 left") for row in rows)


def piped(script: str, *arguments: str, **changes: str) -> subprocess.CompletedProcess[bytes]:
    """What a shell makes of a script, in which `"$0" "$@"` is the command."""
    # The first of them is $0
    command = ["bash", "-c", f"set -o pipefail; {script}", *SWEEP, *arguments]
    return subprocess.run(command, env=environment(**changes), capture_output=True, timeout=120, check=False)


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(FAST.replace("user.slow_task", "evaluation").replace("  delay: %s\n", ""))
    ran = piped('"$0" "$@" | (read line; echo "$line")', str(tmp_path / "small.yaml"), "--dry-run", "--results", "r")
    assert ran.stdout.startswith(b"small: tasks.evaluation, 3 trials")
    assert ran.stdout.count(b"\n") == 1
    assert (ran.stderr, ran.returncode) == (b"", 0)


def test_closed_streams_are_no_error() -> None:
    ran = piped('"$0" "$@" >&- 2>&- <&-', "nowhere.yaml")
    assert (ran.stdout, ran.stderr, ran.returncode) == (b"", b"", 2)


def test_a_console_without_unicode() -> None:
    ran = piped('"$0" "$@"', "n\u00f6.yaml", PYTHONIOENCODING="ascii", PYTHONUTF8="1")
    assert (ran.stderr, ran.returncode) == (b"n\\xf6.yaml: no such file\n", 2)


@pytest.mark.parametrize("arguments", [["no\x1b[31m.yaml"], ["no.yaml", "--\x1b[31m"], ["no.yaml", "\x1b[31m"]])
def test_what_the_user_wrote_cannot_steer_the_terminal(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with suppress(SystemExit):  # of argparse
        assert sweep.main(arguments) == 2
    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert "no.yaml" in said or r"\x1b[31m" in said


def test_the_report_alone() -> None:
    command = Command(sys.executable, "-m", "analysis.report", "no\x1b[31mwhere")
    assert command.ended() == 2
    assert command.shown.startswith(r"no\x1b[31mwhere")
    assert b"\x1b" not in command.raw
