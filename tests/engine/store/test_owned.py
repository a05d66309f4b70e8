"""The user's own files survive all runs beside them.

A file that the product did not make is never replaced or removed.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pytest

from analysis import report
from engine import sweep
from engine.store.owned import SweepFolder
from engine.store.store import Store
from tasks.parts.settings import UserError

SMALL = """\
task: input_flatness
fixed:
  examples: 6
  samples: 4
  radii: [0.1]
  conditions: [genuine]
  recipe: {dataset: blobs, network: linear, epochs: 1}
grid:
  recipe.optimiser: [sgd, adam]
figures: [recipes]
resources: {gpus: 0}
"""
RECORD = "trials/0123456789abcdef/trial.json"


pytestmark = pytest.mark.usefixtures("in_tmp_path")


def run(*arguments: str, text: str = SMALL, name: str = "x") -> int:
    Path(f"{name}.yaml").write_text(text)
    return sweep.main([f"{name}.yaml", "--local", *arguments])


def contents(folder: str = "results") -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def put(*files: str, content: str = "mine") -> dict[str, bytes]:
    """Files of the user's own."""
    for file in files:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text(content)
    return {file: content.encode() for file in files}


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, text: str = SMALL) -> str:
    """The one line of a refused run.

    It checks that neither the run nor a dry run has touched any file.
    """
    Path("x.yaml").write_text(text)
    before, said = contents("."), set()
    for more in ([], ["--dry-run"], ["--fresh"]):
        capsys.readouterr()
        assert run(*arguments, *more, text=text) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        said.add(err.strip())
        assert contents(".") == before
    (line,) = said
    return line


@pytest.mark.parametrize(
    "files",
    [
        ["x/figures/figure-3.pdf", "x/summary.csv"],
        ["x/trials.parquet"],
        ["x/sweep.yaml"],
        ["x/search.json"],
        ["x/trials/first/trial.json"],
        ["x/trials/0123456789abcdef/notes.txt"],
    ],
)
def test_a_folder_of_the_users_own_is_refused(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    put(*files)
    folder = Path("x").absolute()
    expected = (
        f"x.yaml: {folder} exists and was not made by inputscape; choose another --results, or rename the sweep file"
    )
    assert refused(capsys, "--results", ".") == expected


def test_a_file_where_the_folder_would_be_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    put("results/x")
    assert refused(capsys) == f"x.yaml: {Path('results/x').absolute()} is a file"


def test_an_empty_folder_is_as_good_as_none() -> None:
    put("x/.DS_Store")
    assert run("--results", ".") == 0
    assert contents("x")["x/.DS_Store"] == b"mine"


def test_what_lies_beside_our_files_survives() -> None:
    """All our files are made anew and some removed; the user's stay, even with names like ours."""
    assert run() == 0
    (trial, _) = sorted(Path("results/x/trials").iterdir())
    log = Path("results/x/tensorboard/sgd")
    own = put(
        "results/x/notes.txt",
        "results/x/overview.html",
        "results/x/figures/figure-3.pdf",
        "results/x/figures/recipes-final.png",
        "results/x/trials/notes.txt",
        f"{trial}/notes.txt",
        f"{trial}/rows/notes.csv",
        f"{log}/notes.txt",
        "results/x/tensorboard/report/notes.txt",
        "results/x/tensorboard/mine/notes.txt",
    )
    (events,) = log.glob("events*")
    assert run("--fresh", text=SMALL.replace("[recipes]", "[effects]")) == 0
    assert contents().items() >= own.items()
    assert not events.exists()
    names = {path.name for path in Path("results/x/figures").iterdir()}
    assert names == {"effects.png", "effects.pdf", "effects.csv", "figure-3.pdf", "recipes-final.png"}
    assert len(list(Path("results/x/tensorboard/report").glob("events*"))) == 1


@pytest.mark.parametrize("name", ["summary.csv", "report.json", "figures/recipes.png", "figures/recipes.error.txt"])
def test_a_file_of_the_users_own_under_a_name_of_ours_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    SweepFolder(Store("results/x")).claim()
    put(f"results/x/{name}")
    place = Path("results/x", name).absolute()
    expected = f"x.yaml: {place} was not made by inputscape, which would write there; move or rename it"
    assert refused(capsys) == expected


def test_a_search_does_not_take_points_from_a_file_of_the_users_own(capsys: pytest.CaptureFixture[str]) -> None:
    SweepFolder(Store("results/x")).claim()
    put("results/x/search.json")
    search = SMALL.replace("grid", "search").replace("[sgd, adam]", "{choice: [sgd, adam]}")
    search += "trials: 1\nsearcher: tpe\nobjective: {metric: accuracy}\n"
    assert "search.json was not made by inputscape" in refused(capsys, text=search)
    assert run() == 0  # what is no search writes no such file


@pytest.mark.draws
def test_a_figure_drawn_by_default_gives_way_to_a_file_of_the_users_own(capsys: pytest.CaptureFixture[str]) -> None:
    SweepFolder(Store("results/x")).claim()
    own = put("results/x/figures/recipes.pdf")
    assert run(text=SMALL.replace("figures: [recipes]\n", "")) == 0
    assert "figure recipes could not be drawn" in capsys.readouterr().err
    assert contents().items() >= own.items()
    assert not Path("results/x/figures/recipes.png").exists()
    assert "recipes.pdf was not made by inputscape" in Path("results/x/report.html").read_text()
    assert Path("results/x/figures/effects.png").exists()
    (name,) = own
    Path(name).unlink()
    assert run(text=SMALL.replace("figures: [recipes]\n", "")) == 0
    assert Path("results/x/figures/recipes.pdf").stat().st_size > 100
    assert not Path("results/x/figures/recipes.error.txt").exists()


def test_a_run_that_is_killed_anywhere_leaves_nothing_that_looks_like_the_users(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The run is killed at each file in turn, before it is written and after."""
    write, counted = Store.write, [0, 0]

    def killed(store: Store, path: str, content: bytes) -> None:
        counted[0] += 1
        if counted[0] == counted[1]:
            if counted[1] % 2:
                write(store, path, content)
            raise KeyboardInterrupt
        write(store, path, content)

    monkeypatch.setattr(Store, "write", killed)
    for counted[1] in range(1, 60, 3):
        counted[0] = 0
        status = run("--results", "killed")
        if status == 0:
            break
        assert status == 130
    counted[1] = 0
    assert run("--results", "killed") == 0
    ours = set(json.loads(Path("killed/x/manifest.json").read_text())["files"])
    there = {path.relative_to("killed/x").as_posix() for path in Path("killed/x").glob("*.*")}
    for folder in ("figures", "tensorboard"):
        there |= {path.relative_to("killed/x").as_posix() for path in Path("killed/x", folder).iterdir()}
    assert there - {"manifest.json"} == ours


def test_results_of_a_version_without_manifests_are_taken_on() -> None:
    assert run(text=SMALL.replace("[recipes]", "[recipes, effects]")) == 0
    Path("results/x/manifest.json").unlink()
    own = put("results/x/figures/figure-3.pdf", "results/x/notes.txt")
    assert run("--fresh") == 0
    assert contents().items() >= own.items()
    names = {path.name for path in Path("results/x/figures").iterdir()}
    assert names == {"recipes.png", "recipes.pdf", "recipes.csv", "figure-3.pdf"}


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("sweep.yaml", "# The sweep as it ran, with all overrides.\ntask: input_flatness\n"),
        ("search.json", '{"study": {}, "points": []}'),
        (RECORD, "{}"),
    ],
)
def test_what_a_killed_run_of_such_a_version_left_is_taken_on(file: str, content: str) -> None:
    put(f"results/x/{file}", content=content)
    own = put("results/x/notes.txt")
    assert run() == 0
    assert contents().items() >= own.items()


def test_beside_a_killed_run_of_such_a_version_a_summary_is_the_users(capsys: pytest.CaptureFixture[str]) -> None:
    """The earlier version wrote the table of trials first."""
    put(f"results/x/{RECORD}", "results/x/summary.csv")
    assert "summary.csv was not made by inputscape" in refused(capsys)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not as inputscape left it; delete it, and the files of the sweep are recognised by their names"),
        ("[]", "is not as inputscape left it"),
        ('{"format": 1, "files": [3]}', "is not as inputscape left it"),
        ('{"format": 1, "files": ["../notes.txt"]}', "is not as inputscape left it"),
        ('{"format": 1, "files": ["trials/a/notes.txt"]}', "is not as inputscape left it"),
        ('{"format": 2, "files": []}', "is of another version of inputscape"),
    ],
)
def test_a_manifest_that_cannot_be_relied_on_is_named(
    content: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    put("results/x/manifest.json", content=content)
    assert f"{Path('results/x/manifest.json').absolute()} {said}" in refused(capsys)
    assert report.main(["results/x"]) == 2
    Path("results/x/manifest.json").unlink()
    assert run() == 0


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("...yaml", "the name .. begins with a dot"),
        ("..yaml", "the name . begins with a dot"),
        (".yaml", "the name .yaml begins with a dot"),
        (".x.yaml", "the name .x begins with a dot"),
        ("a\\b.yaml", "the name a\\b has a slash"),
        ("a\tb.yaml", "the name a b has characters that cannot be printed"),
        ("a\x1bb.yaml", "the name a\\x1bb has characters that cannot be printed"),
        ("a@b.yaml", "the name a@b has an @, which stands in the names of quick looks"),
        ("ü" * 80 + ".yaml", f"the name {'ü' * 80} is longer than 150 bytes"),
        ("artifacts.yaml", "the name artifacts is that of the folder of networks"),
    ],
)
def test_a_sweep_whose_name_cannot_be_a_folders_is_refused(
    file: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(file).write_text(SMALL)
    for more in ([], ["--dry-run"]):
        assert sweep.main([file, "--local", "--results", "deep/results", *more]) == 2
        err = capsys.readouterr().err
        assert f"{said}, and results go to a folder of that name; rename the file\n" in err
        assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == [file]


@pytest.mark.parametrize("name", ["two words", "größe", "a.b", "x=1,y"])
def test_other_names_are_fine(name: str) -> None:
    assert run(name=name) == 0
    assert Path("results", name, "report.html").exists()


def drawn() -> Path:
    """The results of a sweep."""
    assert run() == 0
    return Path("results/x")


def test_the_report_alone_keeps_to_it_too(capsys: pytest.CaptureFixture[str]) -> None:
    folder = drawn()
    own = put("results/x/notes.txt", "results/x/figures/figure-3.pdf", "results/x/figures/effects.csv")
    assert report.main([str(folder)]) == 0
    before = contents()
    capsys.readouterr()
    assert report.main([str(folder), "--figures", "effects"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "figures/effects.csv was not made by inputscape" in err
    assert contents() == before
    assert before.items() >= own.items()


def test_the_report_of_a_folder_that_cannot_be_written_to(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = drawn()
    before = contents()
    capsys.readouterr()
    with monkeypatch.context() as patched:
        patched.setattr("os.access", lambda path, mode: False)
        assert report.main([str(folder)]) == 2
    assert capsys.readouterr().err == f"{folder.absolute()} cannot be written to\n"

    def full(store: Store, path: str, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Store, "write", full)
    assert report.main([str(folder)]) == 2
    assert capsys.readouterr().err.endswith("recipes.png cannot be written: No space left on device\n")
    assert contents() == before


@pytest.fixture(params=["folder", "objects"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store in a folder, and one on another file system."""
    store = Store(tmp_path / "store")
    if request.param == "objects":
        store._filesystem = pafs.SubTreeFileSystem("bucket/results", pafs._MockFileSystem())
        store._filesystem.base_fs.create_dir("bucket")
        store.folder = None
    return store


def test_a_folder_tells_its_own_files(store: Store) -> None:
    inner = store.within("x")
    folder = SweepFolder(inner, "x")
    assert folder.files == []
    assert store.names("") == []  # nothing is made by looking
    folder.write("report.html", b"1")
    folder.write_json("figures/a.json", 1)
    inner.write("figures/mine.png", b"2")
    inner.write("mine.csv", b"2")
    again = SweepFolder(inner, "x")
    assert again.files == folder.files == ["figures/a.json", "report.html"]
    for name in ("mine.csv", "figures/mine.png"):
        with pytest.raises(UserError, match="was not made by inputscape"):
            again.write(name, b"3")
    again.write("report.html", b"4")
    again.remove(["report.html", "figures/a.json", "figures/mine.png", "mine.csv", "nothing"])
    assert folder.files == []
    assert inner.names("") == ["figures", "manifest.json", "mine.csv"]
    assert inner.read("figures/mine.png") == inner.read("mine.csv") == b"2"
    inner.write("report.html", b"2")  # the name is free again, and so the user's
    with pytest.raises(UserError, match=r"report\.html was not made"):
        folder.write("report.html", b"5")


def test_a_name_is_in_the_manifest_before_its_file_is_there(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = SweepFolder(store.within("x"))
    write = Store.write

    def full(inner: Store, path: str, content: bytes) -> None:
        if path == "report.html":
            raise OSError("disk full")
        write(inner, path, content)

    with monkeypatch.context() as patched:
        patched.setattr(Store, "write", full)
        with pytest.raises(UserError, match=r"report\.html cannot be written: disk full"):
            folder.write("report.html", b"1")
    assert folder.files == ["report.html"]
    folder.write("report.html", b"1")


def test_a_folder_of_ours_that_has_nothing_left_goes(store: Store) -> None:
    folder = SweepFolder(store.within("x"))
    folder.write("figures/a.png", b"1")
    folder.remove(folder.files)
    assert store.names("x") == ["manifest.json"]


def hostile(**told: Any) -> Path:
    """A folder whose table of trials has given metadata."""
    folder = drawn()
    table = Store(folder).read_table("trials.parquet")
    about = json.loads(table.schema.metadata[b"sweep"]) | told
    Store(folder).write_table("trials.parquet", table.replace_schema_metadata({"sweep": json.dumps(about)}))
    return folder


@pytest.mark.parametrize("place", ["../x", "..", "/etc", "a/b", "", ".", "a\\b"])
def test_trials_are_looked_for_beside_the_page_and_nowhere_else(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = hostile(trials=place, look=["seeds=1"])
    capsys.readouterr()
    assert report.main([str(folder)]) == 2
    err = capsys.readouterr().err
    assert "trials.parquet does not tell where its trials are" in err
    assert err.count("\n") == 1


def test_a_trial_is_looked_for_among_the_trials_and_nowhere_else(capsys: pytest.CaptureFixture[str]) -> None:
    folder = drawn()
    table = Store(folder).read_table("trials.parquet")
    names = pa.array(["../../other/trials/a"] * table.num_rows)
    Store(folder).write_table("trials.parquet", table.set_column(table.column_names.index("trial"), "trial", names))
    capsys.readouterr()
    assert report.main([str(folder)]) == 2
    assert "names a trial '../../other/trials/a', which begins with a dot" in capsys.readouterr().err


def test_a_folder_that_was_moved_is_still_ours() -> None:
    drawn()
    shutil.move("results/x", "results/y")
    assert run(name="y") == 0
