"""The report as its reader meets it: files, page, exit code.

Nothing that a user writes is taken for HTML, and no failure hides another figure.
"""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from commands import PROJECT
from linear_sweeps import NOISE, OPTIMISER, grid, rows, write
from PIL import Image
from planted_evaluations import evaluated

from analysis import catalogue, galleries, report, sections, stats
from analysis.drawing import from_csv
from analysis.figures import effects
from analysis.results import ReportError
from analysis.summary import estimate
from analysis.table import load
from engine.execution.attachments import sheet as as_sheet
from engine.store.store import Store
from tasks.parts.artifacts.common.pictures import pictures
from tasks.parts.training import training

pytestmark = pytest.mark.usefixtures("blank_figures")
GRID = grid(recipe__input_noise__radius=[0.0, 0.1], recipe__optimiser=["sgd", "adam"], recipe__seed=[0, 1, 2])
EVIL = "<script>alert('x')</script> & \"{{ 7919 * 7907 }}\""


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.text += data


def page_of(folder: Path) -> Page:
    return Page((folder / "report.html").read_text())


@pytest.mark.draws
def test_everything_is_written(tmp_path: Path) -> None:
    files = report.build(write(tmp_path, GRID, failed=[3], missing=[4], examples=20))
    names = [
        f"figures/{name}.{form}"
        for name in ("conditions", "differences", "effects", "flatness_curves", "recipes")
        for form in ("png", "pdf", "csv")
    ]
    assert [str(Path(file).relative_to(tmp_path)) for file in files] == [*names, "summary.csv", "report.html"]
    assert all(Path(file).stat().st_size > 100 for file in files)
    assert report.failures(files) == []


def test_page_tells_the_sweep(tmp_path: Path) -> None:
    report.build(write(tmp_path, GRID, failed=[3], missing=[4], examples=20))
    page = page_of(tmp_path)
    text = re.sub(r"\s+", " ", page.text)
    for words in (
        "Does training noise flatten?",
        "input_flatness",
        "10 done, 1 failed, 1 missing",
        "3 (recipe.seed: 0, 1, 2)",
        "RuntimeError: loss is nan",
        "Traceback (most recent call last)",
        "adam, input noise 0, seed 0",
        "sgd, input noise 0.1 (3 seeds)",
        "n = ",
        "intervals over seeds and examples",
        "training-noise radius (pixel units)",
        "probability of the true class",
        "2.15.0",
        "abc1234",
        "2023-11-14",
        "cifar10",
    ):
        assert words in text, words
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 5
    assert all((image["src"] or "").startswith("data:image/png;base64,iVBOR") and image["alt"] for image in images)


def test_page_is_self_contained(tmp_path: Path) -> None:
    report.build(write(tmp_path, GRID[:3], examples=10))
    page = page_of(tmp_path)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))
    assert "url(" not in (tmp_path / "report.html").read_text()
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.tags


def test_nothing_of_the_user_is_taken_for_html(tmp_path: Path) -> None:
    told = {
        "name": EVIL,
        "task": EVIL,
        "about": EVIL,
        "labels": {OPTIMISER: EVIL},
        "classes": [EVIL] * 10,
        "columns": {"persistence": EVIL, EVIL: EVIL},
        "objective": {"metric": EVIL, "mode": "max"},
        "figures": [EVIL, "effects"],
    }
    points = grid(recipe__optimiser=["sgd", EVIL], recipe__seed=[0, 1])
    files = report.build(write(tmp_path, points, failed=[0], error=EVIL, sweep=told, fixed={"note": EVIL}, examples=10))
    page = page_of(tmp_path)
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count("<script>alert('x')</script> & \"{{ 7919 * 7907 }}\"") >= 8  # shown as it was written
    assert "62615533" not in page.text  # nor reckoned
    assert all(Path(file).resolve().is_relative_to(tmp_path.resolve()) for file in files)


def test_failing_figure_loses_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path, GRID, examples=10, sweep={"figures": ["effects", "recipes"]})
    report.build(folder)
    assert (folder / "figures/effects.png").exists()

    def fail(*_: object) -> None:
        raise ZeroDivisionError("nothing to divide by")

    monkeypatch.setattr(effects, "compute", fail)
    assert report.main([str(folder)]) == 1
    said = capsys.readouterr()
    assert "effects.error.txt" in said.out
    assert "could not be drawn: effects" in said.err
    assert not (folder / "figures/effects.png").exists()  # the old picture would be taken for the new one
    assert "Traceback" in (folder / "figures/effects.error.txt").read_text()
    assert (folder / "figures/recipes.png").exists()
    assert "ZeroDivisionError: nothing to divide by" in page_of(folder).text

    monkeypatch.undo()
    assert report.main([str(folder)]) == 0
    assert not (folder / "figures/effects.error.txt").exists()


def test_figure_that_the_rows_cannot_give_is_listed(tmp_path: Path) -> None:
    folder = write(tmp_path, GRID[:2], examples=10, sweep={"figures": [{"recipes": {"y": "curvature"}}, "effects"]})
    files = report.build(folder)
    assert report.failures(files) == ["recipes"]
    assert (folder / "figures/effects.png").exists()
    assert "no row column 'curvature'" in page_of(folder).text


def test_one_figure_twice(tmp_path: Path) -> None:
    files = report.build(write(tmp_path, GRID[:2], examples=10), figures=["effects", {"effects": {"y": "p_true"}}])
    assert [Path(file).name for file in files if file.endswith(".png")] == ["effects.png", "effects-2.png"]
    assert b"p_true" in (tmp_path / "figures/effects-2.csv").read_bytes()


def test_uri(tmp_path: Path) -> None:
    write(tmp_path, GRID[:2], examples=10)
    files = report.build(tmp_path.as_uri(), figures=["effects"])
    assert files[-1] == f"{tmp_path.as_uri()}/report.html"
    assert (tmp_path / "report.html").exists()


def test_the_report_reads_the_columns_that_a_figure_uses(tmp_path: Path) -> None:
    """`effects` needs no ladder, but where there is one it is averaged over, whatever its name."""

    def renamed(point: Mapping[str, float], examples: int = 10) -> pd.DataFrame:
        return rows(point, examples).rename(columns={"radius": "temperature"})

    folder = write(tmp_path, grid(recipe__optimiser=["sgd", "adam"]), measure=renamed)
    entry = {"effects": {"along": "temperature"}}
    chosen = catalogue.parse(entry)
    assert "temperature" not in chosen.needs
    report.build(folder, figures=[entry])
    drawn = from_csv((folder / "figures/effects.csv").read_bytes())
    assert np.allclose(drawn["mean"], chosen.module.compute(load(folder), chosen.options)["mean"])
    assert "averaged over the temperature ladder" in drawn.attrs["caption"]


def test_only_rows_around_moved_centres_are_told_how_to_read(tmp_path: Path) -> None:
    report.build(write(tmp_path / "flatness", GRID[:1], examples=10), figures=["effects"])
    assert "Differences between genuine and adversarial or random centres" in page_of(tmp_path / "flatness").text
    folder = write(tmp_path / "evaluation", GRID[:1], examples=10, measure=evaluated)
    report.build(folder, figures=["tradeoff"])
    assert "centres" not in page_of(folder).text


def test_summary_is_over_seeds(tmp_path: Path) -> None:
    folder = write(tmp_path, GRID, failed=[3], examples=20)
    report.build(folder, figures=["effects"])
    summary = pd.read_csv(folder / "summary.csv").set_index("recipe")
    trials = load(folder).trials
    assert list(summary.columns)[:5] == [NOISE, OPTIMISER, "seeds", "trials", "flatness"]  # the objective first
    assert summary.loc["adam, input noise 0", ["seeds", "trials"]].tolist() == [2, 3]
    assert summary.loc["sgd, input noise 0", ["seeds", "trials"]].tolist() == [3, 3]
    for recipe, line in summary.iterrows():
        of = stats.over_seeds(trials.loc[trials["recipe"] == recipe, "summary.flatness"].dropna(), bounds=stats.SHARE)
        told = line[["flatness", "flatness.low", "flatness.high"]].astype(float)
        assert np.allclose(told, (of.mean[0], of.low[0], of.high[0]))


def test_a_mean_with_an_infinite_seed_is_infinite(tmp_path: Path) -> None:
    """As a median distance is where more than half of the images withstand.

    Leaving that seed out would say the reverse.
    """
    results = load(write(tmp_path, grid(recipe__seed=[0, 1, 2]), examples=10))
    trials = results.trials.assign(**{"summary.far": [0.1, np.inf, 0.2]})
    one = estimate(results, trials, "far", 0.95)
    assert (one.mean[0], one.seeds[0]) == (np.inf, 3)
    assert np.isnan([one.low[0], one.high[0]]).all()
    assert sections._cell(pd.Series({"seeds": 3, "far": np.inf, "far.low": np.nan, "far.high": np.nan}), "far") == (
        "infinite",
        "",
    )


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    folder = write(tmp_path, grid(recipe__seed=[0]), examples=10)
    report.build(folder, figures=["effects"])
    assert pd.read_csv(folder / "summary.csv")["flatness.low"].isna().all()
    assert "With one seed the intervals say nothing about other trainings." in page_of(folder).text


def test_scalars_without_any_fitting_figure(tmp_path: Path) -> None:
    """Rows of another task: no figure of ours fits, the table of scalars and the page are there."""
    folder = write(tmp_path, grid(recipe__seed=[0]), examples=10)
    for trial in load(folder).trials["trial"]:
        shutil.rmtree(folder / "trials" / trial / "rows")
    files = report.build(folder)
    assert [Path(file).name for file in files] == ["summary.csv", "report.html"]
    assert "No figure fits the rows of this task." in page_of(folder).text


def test_scalars_are_drawn_where_no_other_figure_fits(tmp_path: Path) -> None:
    folder = write(tmp_path, GRID, examples=10)
    for trial in load(folder).trials["trial"]:
        shutil.rmtree(folder / "trials" / trial / "rows")
    assert "scalar_curves.png" in {Path(file).name for file in report.build(folder)}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{here}/nowhere"], "nowhere: no sweep's results here (there is no trials.parquet)"),
        (["ftp://nowhere/x"], "ftp"),
        (
            ["{here}", "--figures", "efects"],
            "unknown figure 'efects'; there are attack_gap, calibration, ",
        ),
    ],
)
def test_mistake_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    write(tmp_path, GRID[:1], examples=5)
    assert report.main([argument.format(here=tmp_path) for argument in arguments]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "report.html").exists()


def test_no_finished_trial_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="no trial is finished"):
        report.build(write(tmp_path, GRID[:2], failed=[0, 1]))


def test_command_line_in_a_fresh_interpreter(tmp_path: Path) -> None:
    """As a user calls it. Drawing loads neither pyplot (it has a state), nor torch, nor Ray."""
    write(tmp_path, GRID[:2], examples=10)
    program = (
        "import sys; from analysis import report; code = report.main(sys.argv[1:]);"
        "print(*sorted({'matplotlib.pyplot', 'torch', 'ray'} & set(sys.modules)), code)"
    )
    called = [sys.executable, "-c", program, str(tmp_path), "--figures", "effects,recipes"]
    ran = subprocess.run(called, cwd=PROJECT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert lines[-1] == "0"
    assert lines[-2].endswith("report.html")
    assert [Path(line).exists() for line in lines[:-1]] == [True] * 8


SOUND, GROWS = "success never decreases with the radius", "the loss grows along the search"


def test_self_checks_are_told_near_the_top(tmp_path: Path) -> None:
    """Passed: in how many trials; failed: in red, what is wrong and in which trial."""
    wrong = 'from 0.31 to 0.30 <b>at</b> radius "0.2"'
    checks = [{SOUND: None, GROWS: None}, {SOUND: wrong, GROWS: None}, {SOUND: None}, None]
    points = grid(recipe__optimiser=["sgd", "adam"], recipe__seed=[0, 1, 2])
    report.build(write(tmp_path, points, examples=10, checks=checks, failed=[5]), figures=["effects"])
    html = (tmp_path / "report.html").read_text()
    assert html.index("Self-checks") < html.index("Results by recipe") < html.index("<h2>Figures")
    text = re.sub(r"\s+", " ", page_of(tmp_path).text)
    assert "1 of 2 checks FAILED" in text
    assert f"{SOUND} FAILED in 1 of 3 trials" in text
    trial = load(tmp_path).trials["trial"].iloc[1]
    assert f"sgd, seed 1 ({trial[:8]}): {wrong}" in text
    assert f"{GROWS} passed in 2 of 2 trials" in text
    assert ("td", {"class": "long wrong"}) in page_of(tmp_path).tags


def test_checks_that_all_pass_raise_no_alarm(tmp_path: Path) -> None:
    report.build(write(tmp_path, GRID[:2], examples=10, checks=[{SOUND: None}] * 2), figures=["effects"])
    text = re.sub(r"\s+", " ", page_of(tmp_path).text)
    assert f"{SOUND} passed in 2 of 2 trials" in text
    assert "FAILED" not in text
    assert not [1 for _, attributes in page_of(tmp_path).tags if "wrong" in (attributes.get("class") or "")]


def test_no_checks_no_words_about_them(tmp_path: Path) -> None:
    report.build(write(tmp_path, GRID[:2], examples=10, checks=[{}, None]), figures=["effects"])
    assert "Self-checks" not in page_of(tmp_path).text


SPACE, SHARE = "recipe.adversarial_augmentation.space", "recipe.adversarial_augmentation.probability"


def augment(folder: Path, *, pictures: bool = True) -> None:
    """Lets the trials with a share above 0 say what augmentation did: more at higher seeds."""
    trials = load(folder).trials
    for _, line in trials[trials[f"config.{SHARE}"] > 0].iterrows():
        place, seed = folder / "trials" / line["trial"], line["config.recipe.seed"]
        record = json.loads((place / "trial.json").read_text())
        last = {"augmented": 0.5, "label_changed": 0.1 * (1 + seed), "margin_before": 2.0 + seed, "margin_after": -1.0}
        record["epochs"] = [{"augmented": 0.9, "label_changed": 0.9, "margin_before": 9.0, "margin_after": 9.0}, last]
        hidden = line[f"config.{SPACE}"] != "pixel"
        column = {"id": 7, "label": 3, "predicted": 3, "moved_to": 5, "margin_before": 1.25, "margin_after": -0.5}
        near = {"distance": 1.5, "neighbours": [7, 9], "neighbour_labels": [3, 5], "distances": [1.4, 1.45]}
        record["attachments"] = {
            "augmentation": {
                "marks": [[None, "changed"]] * 3,
                "space": line[f"config.{SPACE}"],
                "rows": ["training image", "nearest", "2nd nearest"]
                if hidden
                else ["training image", "moved", "difference"],
                "columns": [column | (near if hidden else {}), (column | (near if hidden else {})) | {"moved_to": 3}],
            }
            | ({} if hidden else {"largest": 0.3})
        }
        (place / "trial.json").write_text(json.dumps(record))
        if pictures:
            (place / "attachments").mkdir()
            sheet = Image.new("RGB", (2 * 4, 3 * 4), (10, 20, 30))
            sheet.save(place / "attachments/augmentation.png")


def augmented_page(folder: Path, *, pictures: bool = True) -> tuple[Page, str]:
    points = grid(**{SPACE: ["pixel", "hidden:conv2"], SHARE: [0.0, 0.5], "recipe.seed": [1, 0, 2]})
    write(folder, points, examples=10)
    augment(folder, pictures=pictures)
    report.build(folder, figures=["effects"])
    html = (folder / "report.html").read_text()
    start = html.index('<section id="augmentation">')
    page = Page(html[start : html.index("</section>", start)])
    return page, re.sub(r"\s+", " ", page.text)


def test_what_augmentation_does_is_told_and_shown(tmp_path: Path) -> None:
    page, text = augmented_page(tmp_path)
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 2  # one a recipe, none where nothing is moved
    assert all((image["src"] or "").startswith("data:image/png;base64,iVBOR") for image in images)
    assert text.count("seed 0 ") == 2  # the first of three
    one = stats.over_seeds([0.1, 0.2, 0.3], bounds=stats.SHARE)  # of the last epoch
    assert text.count(f"{one.mean[0]:.3f}{one.low[0]:.3f} to {one.high[0]:.3f}") == 2
    assert "(3 seeds)" in text
    for words in (
        "cat cat predicted before cat cat predicted after dog cat",
        "margin before 1.25 1.25 margin after -0.50 -0.50",
        "white is 0.3 more and black as much less. The move changes the predicted class of 1 of 2.",
        "moved by 1.50 1.50 distance to nearest 1.40 1.40 classes of nearest cat, dog cat, dog",
        "by the trained network in pixels.",
        "by the trained network in hidden:conv2.",
    ):
        assert words in text, words
    assert [attributes["class"] for tag, attributes in page.tags if "differs" in (attributes.get("class") or "")] == [
        "word differs"
    ] * 2


def test_pictures_of_examples_are_shown_with_words_below_each(tmp_path: Path) -> None:
    write(tmp_path, grid(**{SHARE: [0.0, 0.5], "recipe.seed": [1, 0]}), examples=10)
    images = torch.linspace(0, 1, 2 * 16).reshape(2, 1, 4, 4)
    left = pictures(
        {"image": images, "moved": 1 - images},
        [{"example": 7, "true class": 3, "loss": 0.25}, {"example": 9, "true class": 5, "loss": 1.5}],
        caption="Two images & what became of them.",
        classes=["true class"],
        marks={"moved": ["changed", None]},
    )
    assert left.tiles is not None
    for _, line in load(tmp_path).trials.iterrows():
        place = tmp_path / "trials" / line["trial"]
        record = json.loads((place / "trial.json").read_text())
        record["attachments"] = {"moved_images": left.notes}
        (place / "trial.json").write_text(json.dumps(record))
        (place / "attachments").mkdir()
        (place / "attachments/moved_images.png").write_bytes(as_sheet(left))
    report.build(tmp_path, figures=["effects"])
    html = (tmp_path / "report.html").read_text()
    start = html.index('<section id="examples">')
    page = Page(html[start : html.index("</section>", start)])
    text = re.sub(r"\s+", " ", page.text)
    assert text.count("Moved images: ") == 2  # one a recipe, of the first seed
    assert text.count(", seed 0 ") == 2
    assert "imagemoved example 7 9 true class cat dog loss 0.25 1.5" in text
    assert "Two images & what became of them." in text
    sources = [attributes["src"] or "" for tag, attributes in page.tags if tag == "img"]
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(sources[0].partition(",")[2]))))
    corners = drawn[galleries.GAP, galleries.GAP], drawn[drawn.shape[0] // 2 + galleries.GAP, galleries.GAP]
    assert [tuple(corner) for corner in corners] == [galleries.FRAMES[None], galleries.FRAMES["changed"]]


def test_what_augmentation_does_is_of_the_trials_that_are_done(tmp_path: Path) -> None:
    """A stopped training has a last epoch too, but not the recipe's; a failed one has a picture."""
    write(tmp_path, grid(**{SPACE: ["pixel"], SHARE: [0.5], "recipe.seed": [0, 1, 2, 3]}), failed=[3], examples=10)
    augment(tmp_path)
    store = Store(tmp_path)
    table = store.read_table("trials.parquet")
    status = ["stopped", *table["status"].to_pylist()[1:]]
    epochs = ['[{"epoch": 1, "loss": 1.0}]', "[]", "[]", "[]"]
    table = table.drop_columns("status").append_column("status", [status]).append_column("epochs", [epochs])
    store.write_table("trials.parquet", table)
    report.build(tmp_path, figures=["effects"])
    text = re.sub(r"\s+", " ", page_of(tmp_path).text)
    assert "0.2500.200 and 0.300" in text  # seeds 1 and 2
    assert "(2 seeds)" in text
    assert text.count("The move changes the predicted class") == 1
    assert ", seed 1 " in text.split("What the augmentation does")[1].split("Stopped early")[0]
    assert f"in every {training.LOOK_EVERY}th batch of the epoch, from the first on" in text
    assert "of the figures, learning curves and parallel coordinates show them" in text


def test_numbers_of_augmentation_without_pictures(tmp_path: Path) -> None:
    page, text = augmented_page(tmp_path, pictures=False)
    assert "img" not in {tag for tag, _ in page.tags}
    assert "share of examples augmented" in text


def test_no_augmentation_no_words_about_it(tmp_path: Path) -> None:
    report.build(write(tmp_path, GRID[:2], examples=10), figures=["effects"])
    assert "augmentation" not in page_of(tmp_path).text
