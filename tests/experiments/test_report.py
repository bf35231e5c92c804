"""Tables and figures from files written by hand, so that every number is known."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from experiments.errors import ExperimentError
from experiments.report import cosines as cosine_figure
from experiments.report import curves as curves_figure
from experiments.report import directions as direction_figure
from experiments.report import figures
from experiments.report import weights as weights_figure
from experiments.report.__main__ import main
from experiments.report.reading import Report
from experiments.report.table import mean_ranks, relative_change, scores, table
from experiments.report.writing import side_by_side, summary, write_report
from experiments.trainer.run_folder import CONFIG, METRICS, RESULTS, TIMINGS, write_json

SINGLE = {"left": [[90, 10], [94, 12]], "right": [[11, 80], [9, 88]]}
SHARED = [[91, 81], [93, 83]]
GRID = {"0.25/0.75": [[80, 90], [82, 92]], "0.75/0.25": [[90, 80], [92, 84]]}


def result(scores: dict[str, list], scored: dict[str, list[int]], scores_on_validation: dict):
    runs = [
        {
            "variant": name,
            "learning_rate": 0.1,
            "seed": seed,
            "score": scores_on_validation[name],
            "failed_step": None,
            "test": {"accuracy": pair},
        }
        for name, pairs in scores.items()
        for seed, pair in enumerate(pairs)
    ]
    selected = dict.fromkeys(scores, 0.1)
    return {"selected": selected, "scored": scored, "steps_per_epoch": 5, "runs": runs}


def with_method(method: str, entry: dict) -> dict:
    return {method: {**entry, "runs": [{"method": method, **run} for run in entry["runs"]]}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished run of single, uniform, mgda and a grid of two."""
    both = [0, 1]
    on_validation = dict(zip(GRID, (7, 6), strict=True))
    results = {
        **with_method("single", result(SINGLE, {"left": [0], "right": [1]}, dict(left=9, right=9))),
        **with_method("uniform", result({"": SHARED}, {"": both}, {"": 8})),
        **with_method("mgda", result({"": SHARED}, {"": both}, {"": 8})),
        **with_method("grid", result(GRID, dict.fromkeys(GRID, both), on_validation)),
    }
    write_json(tmp_path / RESULTS, results)
    description = {
        "experiment": "multimnist",
        "config": {"dataset": "digits", "seeds": 2, "epochs": 2},
        "tasks": ["left", "right"],
        "score": "accuracy",
        "score_label": "accuracy %",
        "examples": {"train": 30, "validation": 10, "test": 10},
        "command": "python -m experiments.multimnist",
        "python": "3.11",
        "versions": {"jax": "1"},
        "devices": ["cpu"],
        "paper": {"uniform": [96.46, 94.99]},
    }
    write_json(tmp_path / CONFIG, description)
    seconds = {"single": 2.0, "uniform": 1.0, "mgda": 1.5, "grid": 2.0}
    runs = {"single": 4, "uniform": 2, "mgda": 2, "grid": 4}
    timings = [
        {"method": m, "epoch": e, "runs": runs[m], "train_seconds": s * (3 - e)}
        for m, s in seconds.items()
        for e in (1, 2)
    ]
    timings.append({"method": "mgda", "epoch": 0, "runs": 2, "compile_seconds": 10.0})
    (tmp_path / TIMINGS).write_text("".join(json.dumps(t) + "\n" for t in timings))
    lines = [
        {
            "method": method, "variant": "", "learning_rate": 0.1, "seed": seed,
            "split": "train", "epoch": 1, "step": step, "loss": [1.0, 2.0],
            "weight": [0.1 * step, 1 - 0.1 * step] if method == "mgda" else [1.0, 1.0],
            "cosine": [[1.0, -0.2], [-0.2, 1.0]], "direction_norm": 0.5,
        }
        for method in ("uniform", "mgda") for seed in (0, 1) for step in (5, 10)
    ]  # fmt: skip
    (tmp_path / METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def cells(text: str, method: str) -> list[str]:
    (line,) = [x for x in text.splitlines() if x.startswith(f"| {method}")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_holds_mean_and_standard_error(folder: Path):
    write_report(folder)
    text = (folder / "table.md").read_text()
    # Standard error of two values is half their distance: 90, 94 → 92 ± 2.
    assert cells(text, "single") == [
        "single", "92.00 ± 2.00", "84.00 ± 4.00", "88.00 ± 3.00", "0.1", "6 s", "1.00", "–",
    ]  # fmt: skip
    assert cells(text, "uniform")[1:4] == ["92.00 ± 1.00", "82.00 ± 1.00", "87.00 ± 1.00"]
    assert cells(text, "uniform")[-1] == "96.46 / 94.99"
    # 3 + 1.5 s of training and 10 s of compilation; 1.5 s a fastest epoch against 1 s.
    assert cells(text, "mgda")[5:7] == ["14 s", "1.50"]
    # The grid is represented by its best on validation, whatever the test part says.
    assert cells(text, "grid")[:3] == ["grid, best 0.25/0.75", "81.00 ± 1.00", "91.00 ± 1.00"]


def test_relative_change_and_mean_rank(folder: Path):
    report = Report(folder)
    assert relative_change(report, "single") == 0
    assert relative_change(report, "uniform") == pytest.approx(50 * 2 / 84)
    assert relative_change(report, "grid") == pytest.approx(50 * (11 / 92 - 7 / 84))
    # Left: three share the first three places. Right: grid, single, then two that tie.
    assert mean_ranks(report) == {"single": 2.0, "uniform": 2.75, "mgda": 2.75, "grid": 2.5}


def test_many_methods_are_ranked_in_the_table(folder: Path):
    results = json.loads((folder / RESULTS).read_text())
    results |= {"pcgrad": {**results["mgda"]}}
    for run in results["pcgrad"]["runs"]:
        run["method"] = "pcgrad"
    write_json(folder / RESULTS, results)
    text = write_report(folder)
    assert "| Δm % | mean rank |" in text
    # Right: grid, single, then three that tie for places 3 to 5.
    assert cells(text, "grid")[5:7] == ["1.81", "3.0"]


def test_figures_are_drawn_from_the_files_alone(folder: Path, capsys: pytest.CaptureFixture[str]):
    main([str(folder)])
    assert "accuracy_profile.png, curves.png, weights.png, cosines.png" in capsys.readouterr().out
    for name in ("accuracy_profile.png", "weights.png", "cosines.png"):
        header = (folder / name).read_bytes()[:24]
        assert header[:8] == b"\x89PNG\r\n\x1a\n"
        width, height = np.frombuffer(header[16:24], ">u4")
        assert width > 400 and height > 300


def test_the_figure_shows_every_method(folder: Path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    report = Report(folder)
    figure = figures.accuracy_profile(report, plt)
    (axes,) = figure.axes
    (legend,) = figure.legends
    labels = {text.get_text() for text in legend.get_texts()}
    assert labels == {"static weights", "single task", "uniform", "mgda"}
    left, right = axes.get_xlim(), axes.get_ylim()
    for points in (np.array(SHARED), np.array(sum(GRID.values(), []))):
        assert (points[:, 0] > left[0]).all() and (points[:, 0] < left[1]).all()
        assert (points[:, 1] > right[0]).all() and (points[:, 1] < right[1]).all()
    plt.close(figure)


@pytest.mark.parametrize("num_methods", [3, 13])
def test_no_legend_covers_a_panel_or_is_cut_off(folder: Path, num_methods: int):
    import matplotlib.pyplot as plt

    report = Report(folder)
    for i in range(num_methods - 3):
        name = f"mgda_ub(normalization=loss+, seed={i})"
        report.results[name] = report.results["mgda"]
    for draw in (figures.accuracy_profile, weights_figure.weights, curves_figure.curves):
        figure = draw(report, plt)
        if figure is None:  # losses are not logged here
            continue
        figure.draw_without_rendering()
        (legend,) = figure.legends
        box = legend.get_window_extent()
        for axes in figure.axes:
            assert not box.overlaps(axes.get_tightbbox())
        assert box.x0 >= 0 and box.y0 >= 0
        assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
        plt.close(figure)


def test_points_of_the_grid_far_off_are_counted_not_shown(folder: Path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    results = json.loads((folder / RESULTS).read_text())
    for run in results["grid"]["runs"]:
        if run["variant"] == "0.25/0.75":
            run["test"]["accuracy"] = [30, 90]
    write_json(folder / RESULTS, results)
    figure = figures.accuracy_profile(Report(folder), plt)
    (axes,) = figure.axes
    (legend,) = figure.legends
    labels = {text.get_text() for text in legend.get_texts()}
    assert "static weights (1 of 2 beyond the axes)" in labels
    assert axes.get_xlim()[0] > 60
    plt.close(figure)


def test_constant_weights_are_not_drawn(folder: Path):
    report = Report(folder)
    assert weights_figure.weight_series(report, "uniform") is None
    series = weights_figure.weight_series(report, "mgda")
    assert series is not None and series["weight"].shape == (2, 2, 2)
    np.testing.assert_allclose(series["cosine"], -0.2)


def with_cosines(folder: Path, matrices: dict[int, list], method: str = "mgda") -> Report:
    """The run with these matrices, one a seed and point, in place of what it logged."""
    record = {"method": method, "variant": "", "learning_rate": 0.1, "split": "train", "epoch": 1}
    lines = [
        {**record, "seed": seed, "step": 5 * (i + 1), "cosine": matrix}
        for seed, points in matrices.items()
        for i, matrix in enumerate(points)
    ]
    (folder / METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Report(folder)


def test_cosines_are_averaged_over_the_runs_that_lasted(folder: Path):
    def pair(cosine: float | None) -> list:
        return [[1.0, cosine], [cosine, 1.0]]

    seeds = {0: [pair(0.25), pair(-0.5)], 1: [pair(0.75), pair(None)], 2: [pair(-1.0)]}
    report = with_cosines(folder, seeds)
    assert cosine_figure.cosine_series(report, "uniform") is None
    series = cosine_figure.cosine_series(report, "mgda")
    assert series is not None
    np.testing.assert_array_equal(series[0], [1, 2])
    # Of the second point seed 1 has none that is finite; seed 2 had failed by then.
    np.testing.assert_array_equal(series[1][:, 0, 1], [0.5, -0.5])


def test_cosine_heatmap_is_centred_and_has_every_pair(folder: Path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    pairs = [[[1.0, -0.4], [-0.4, 1.0]], [[1.0, 0.2], [0.2, 1.0]]]
    figure = cosine_figure.heatmaps(with_cosines(folder, {0: pairs}), plt)
    axes, bar = figure.axes
    (mesh,) = axes.collections
    np.testing.assert_array_equal(mesh.get_array(), [[-0.4, 0.2]])
    assert mesh.get_clim() == (-0.4, 0.4) and bar.get_ylabel() == "cosine"
    assert [text.get_text() for text in axes.get_yticklabels()] == ["left, right"]
    plt.close(figure)

    matrices = np.linspace(-0.05, 0.05, 5 * 16).reshape(5, 4, 4)
    report = with_cosines(folder, {0: matrices.tolist()})
    report.tasks = ["a", "b", "c", "d"]
    figure = cosine_figure.heatmaps(report, plt)
    shown = [axes.images[0] for axes in figure.axes[:3]]
    for image, matrix in zip(shown, matrices[[0, 2, 4]], strict=True):
        off = ~np.eye(4, dtype=bool)
        np.testing.assert_allclose(image.get_array()[off], matrix[off])
        assert image.get_clim() == (-0.1, 0.1)  # noise is not blown up
    plt.close(figure)
    assert cosine_figure.heatmaps(with_cosines(folder, {}), plt) is None


def test_a_failed_seed_is_left_out_and_named(folder: Path):
    results = json.loads((folder / RESULTS).read_text())
    failed = results["uniform"]["runs"][1]
    failed["failed_step"] = 7
    del failed["test"]
    write_json(folder / RESULTS, results)
    write_report(folder)
    text = (folder / "table.md").read_text()
    assert cells(text, "uniform")[1:3] == ["91.00", "81.00"]
    assert "- uniform: stopped at a number that is not finite: seed 1 (step 7)." in text


@pytest.mark.parametrize(
    ("missing", "message"), [(CONFIG, "not the folder"), (RESULTS, "no method")]
)
def test_a_folder_without_results_gets_one_line(
    folder: Path, missing: str, message: str, capsys: pytest.CaptureFixture[str]
):
    (folder / missing).unlink()
    with pytest.raises(SystemExit) as stop:
        main([str(folder)])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1 and message in error


def test_a_broken_file_is_named(folder: Path, capsys: pytest.CaptureFixture[str]):
    (folder / RESULTS).write_text("{")
    with pytest.raises(SystemExit):
        main([str(folder)])
    assert f"{folder / RESULTS}: not a readable JSON file" in capsys.readouterr().err


def many(tmp_path: Path, num_tasks: int, single: float = 50.0, epochs: int = 4) -> Path:
    """A finished run of three methods with many tasks."""
    tasks = [f"task_{t:03}" for t in range(num_tasks)]
    rng, everything = np.random.default_rng(0), list(range(num_tasks))
    alone = {task: [rng.uniform(40, 60, num_tasks).tolist()] for task in tasks}
    for t, task in enumerate(tasks[:3]):
        alone[task][0][t] = single
    lone = {task: [t] for t, task in enumerate(tasks)}
    results = {**with_method("single", result(alone, lone, dict.fromkeys(tasks, 9)))}
    log = []
    for method in ("uniform", "mgda"):
        values = rng.uniform(40, 60, (2, num_tasks)).tolist()
        results |= with_method(method, result({"": values}, {"": everything}, {"": 8}))
        for seed in (0, 1):
            for epoch in range(1, epochs + 1):
                label = {"method": method, "variant": "", "learning_rate": 0.1, "seed": seed}
                label |= {"epoch": epoch, "step": 5 * epoch}
                weight = rng.dirichlet(np.exp(-np.arange(num_tasks) / (epoch + 5)) * 3)
                cosine = np.clip(rng.normal(0, 0.2, (num_tasks, num_tasks)), -1, 1)
                np.fill_diagonal(cosine, 1.0)
                loss = np.exp(-epoch / np.linspace(5, 40, num_tasks))
                train = {"weight": weight.tolist(), "cosine": (cosine + cosine.T).tolist()}
                train |= {"direction_norm": 1 / epoch, "loss": loss.tolist(), "split": "train"}
                train |= {"norm": (loss / 3).tolist(), "direction_cosine": cosine[0].tolist()}
                if method == "uniform":  # as of a rule on the rows
                    del train["weight"]
                log += [{**label, **train}]
                score = 100 * (1 - loss)
                log += [{**label, "accuracy": score.tolist(), "split": "validation"}]
    write_json(tmp_path / RESULTS, results)
    description = {
        "experiment": "own",
        "config": {"seeds": 2, "epochs": epochs},
        "tasks": tasks,
        "score": "accuracy",
        "score_label": "accuracy %",
        "examples": {"train": 30, "validation": 10, "test": 10},
        "command": "python own.py",
        "python": "3.11",
        "versions": {"jax": "1"},
        "devices": ["cpu"],
    }
    write_json(tmp_path / CONFIG, description)
    (tmp_path / METRICS).write_text("".join(json.dumps(record) + "\n" for record in log))
    return tmp_path


def test_the_relative_change_is_defined_where_a_single_task_scores_zero(tmp_path: Path):
    report = Report(many(tmp_path, 14, single=0.0))
    single, mgda = report.row("single").mean, report.row("mgda").mean
    assert (single == 0).sum() == 3
    want = np.mean([100 * (s - m) / s for s, m in zip(single[3:], mgda[3:], strict=True)])
    np.testing.assert_allclose(relative_change(report, "mgda"), want, rtol=1e-12)
    text = summary(report)
    assert "without the tasks that single scores 0 on: task_000, task_001, task_002." in text
    assert "nan" not in text


def test_a_negative_single_task_score_keeps_the_sign_of_the_change(tmp_path: Path):
    report = Report(many(tmp_path, 14, single=-1.0))
    for run in report.results["mgda"]["runs"]:
        run["test"]["accuracy"] = [s + 1.0 for s in report.row("single").mean]
    assert relative_change(report, "mgda") < 0  # every task is better


@pytest.mark.parametrize("num_tasks", [14, 159])
def test_the_table_of_many_tasks_is_narrow_and_a_file_has_them_all(tmp_path: Path, num_tasks: int):
    report = Report(many(tmp_path, num_tasks))
    text = table(report)
    assert max(map(len, text.splitlines())) < 140
    worst = report.row("mgda").mean.argmin()
    assert f"task_{worst:03}" in text and "Δm %" in text
    rows = list(csv.DictReader(scores(report).splitlines()))
    assert len(rows) == (2 * 2 + num_tasks) * num_tasks  # two seeds of two methods, and singles
    mine = [r for r in rows if r["method"] == "mgda" and r["task"] == "task_003"]
    got = np.mean([float(r["value"]) for r in mine])
    np.testing.assert_allclose(got, report.row("mgda").mean[3], rtol=1e-12)


def test_curves_are_the_logged_means_of_each_task(tmp_path: Path):
    report = Report(many(tmp_path, 3))
    epochs, values = curves_figure.series(report, "mgda", "validation", "accuracy") or (None, None)
    assert epochs is not None and values is not None
    np.testing.assert_array_equal(epochs, [1, 2, 3, 4])
    want = 100 * (1 - np.exp(-epochs[:, None] / np.linspace(5, 40, 3)))
    np.testing.assert_allclose(values, want, rtol=1e-12)
    assert curves_figure.series(report, "single", "train", "loss") is None  # nothing was logged


def test_pictures_of_many_tasks_do_not_grow_with_them(tmp_path: Path):
    import matplotlib.pyplot as plt

    report = Report(many(tmp_path, 40))
    weights = weights_figure.weights(report, plt)
    mgda = weights.axes[0]
    assert mgda.get_title() == "mgda"
    share = np.array([[r["weight"] for r in run] for run in report.records("mgda")]).mean(0)
    heaviest = np.argmax(share.mean(0))
    assert mgda.get_yticklabels()[0].get_text() == f"task {heaviest:03}"
    curves = curves_figure.curves(report, plt)
    assert len(curves.axes) == 6  # tenths and median, not a column a task
    for figure in (weights, curves):
        width, height = figure.get_size_inches()
        assert width < 16 and height < 10
    plt.close("all")


@pytest.mark.parametrize("num_tasks", [2, 40])
def test_rules_on_the_rows_have_a_picture_too(tmp_path: Path, num_tasks: int):
    import matplotlib.pyplot as plt

    report = Report(many(tmp_path, num_tasks))
    assert weights_figure.weight_series(report, "uniform") is None
    series = direction_figure.direction_series(report, "uniform")
    assert series is not None
    records = report.records("uniform")
    want = np.mean([[r["direction_cosine"] for r in run] for run in records], axis=0)
    np.testing.assert_allclose(series["direction_cosine"], want, rtol=1e-12)
    figure = direction_figure.directions(report, plt)
    cosines = figure.axes[0]
    assert cosines.get_title() == "uniform"
    drawn = want[:, 0] if num_tasks == 2 else np.median(want, axis=1)
    lines = [line.get_ydata() for line in cosines.lines if len(line.get_ydata()) == 4]
    np.testing.assert_allclose(lines[0], drawn)
    assert len(lines) == (2 if num_tasks == 2 else 1)
    plt.close(figure)


def test_runs_are_set_side_by_side(folder: Path, tmp_path: Path):
    fewer = tmp_path / "fewer"
    fewer.mkdir()
    for name in (CONFIG, RESULTS):
        (fewer / name).write_bytes((folder / name).read_bytes())
    results = json.loads((fewer / RESULTS).read_text())
    del results["mgda"]
    write_json(fewer / RESULTS, results)
    lines = side_by_side([Report(folder), Report(fewer)]).splitlines()
    rows = {line.split("|")[1].strip(): line.split("|")[2:4] for line in lines[2:]}
    assert [cell.strip() for cell in rows["uniform"]] == ["87.00 ± 1.00"] * 2
    assert [cell.strip() for cell in rows["mgda"]] == ["87.00 ± 1.00", "–"]
    (tmp_path / "many").mkdir()
    with pytest.raises(ExperimentError, match="has other tasks than"):
        side_by_side([Report(folder), Report(many(tmp_path / "many", 14))])
