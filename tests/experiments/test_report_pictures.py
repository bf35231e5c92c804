"""What the figures show, and that it fits."""

import json
from pathlib import Path

import numpy as np
import pytest

from experiments.report import cosines as cosine_figure
from experiments.report import curves as curves_figure
from experiments.report import directions as direction_figure
from experiments.report import figures
from experiments.report import weights as weights_figure
from experiments.report.__main__ import main
from experiments.report.reading import Report
from experiments.trainer.run_folder import METRICS, RESULTS, write_json
from tests.experiments.finished_runs import GRID, SHARED, many, two_tasks


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished run of single, uniform, mgda and a grid of two."""
    return two_tasks(tmp_path)


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
