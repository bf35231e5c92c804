"""Differential equations for networks: their solutions, derivatives, and a short run."""

import math
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.errors import ExperimentError
from experiments.pinn.burgers import burgers_solution
from experiments.pinn.command import PinnConfig, main
from experiments.pinn.equations import EQUATIONS, RESIDUAL, Jet
from experiments.pinn.network import Network
from experiments.pinn.problem import collocation
from experiments.pinn.report import notes
from experiments.report.reading import Report
from experiments.trainer.config import run_main
from experiments.trainer.methods import parse_methods
from experiments.trainer.run_folder import WRITTEN, shown_path
from experiments.trainer.training import Recipe, Run, Trainer

EPS = float(np.finfo(np.float64).eps)


def derivatives(function, points: jax.Array) -> Jet:
    """By jvp along each axis, in the precision of the points."""

    def along(f, axis):
        direction = jnp.zeros_like(points).at[:, axis].set(1)
        return lambda x: jax.jvp(f, (x,), (direction,))[1]

    axes = range(points.shape[1])
    first = [along(function, i) for i in axes]
    second = [along(first[i], i)(points) for i in axes]
    return Jet(function(points), jnp.stack([f(points) for f in first]), jnp.stack(second))


@pytest.mark.parametrize("name", EQUATIONS)
def test_the_solution_has_no_residual_and_meets_the_conditions(name):
    equation = EQUATIONS[name]()
    with jax.enable_x64(True):
        points = jnp.asarray(equation.random_points(40, seed=3))
        exact = derivatives(equation.solution, points)
        residual = np.asarray(equation.residual(points, exact))
        # Every term on its own is as large as this; Burgers' rounding grows by 1/ν twice.
        scale = max(float(jnp.abs(x).max()) for x in exact)
        assert np.abs(residual).max() < 2**14 * EPS * scale
        zero = Jet(*(jnp.zeros_like(x) for x in exact))
        if name in ("helmholtz", "poisson"):  # a residual that cannot be zero for every field
            assert np.abs(np.asarray(equation.residual(points, zero))).max() > 1
    for condition in equation.conditions.values():
        for axis, end in condition.faces:
            on_face = equation.random_points(20, seed=4)
            on_face[:, axis] = (equation.low, equation.high)[end][axis]
            given, found = condition.values(on_face), equation.solution(on_face)
            np.testing.assert_allclose(found, given, atol=2**10 * EPS)


def test_the_front_of_burgers_is_as_steep_as_published():
    # Basdevant et al. 1986: largest |∂u/∂x| at x = 0 is 152.00516, at t = 1.6037/π.
    step = 1e-6
    u = burgers_solution(np.array([[step, 1.6037 / math.pi], [-step, 1.6037 / math.pi]]))
    np.testing.assert_allclose((u[0, 0] - u[1, 0]) / (2 * step), -152.00516, rtol=1e-6)


def test_derivatives_of_the_network_are_its_derivatives():
    equation = EQUATIONS["kovasznay"]()
    network = Network(equation, width=5, layers=2)
    params = network.init(jax.random.key(0)) + 0.1
    points = jnp.float32(equation.random_points(6, seed=0))
    expected = derivatives(lambda x: network.fields(params, x), points)
    for found, want in zip(network.jet(params, points), expected, strict=True):
        np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4)


def test_points_lie_where_they_should():
    equation = EQUATIONS["burgers"]()
    problem = collocation(equation, 64, condition_points=32, width=4, layers=1)
    batch = jax.tree.map(np.asarray, problem.prepare(jnp.zeros(64), jax.random.key(1)))
    assert set(batch) == {"boundary", "initial", RESIDUAL}
    assert all((x >= equation.low).all() and (x <= equation.high).all() for x in batch.values())
    assert (np.abs(batch["boundary"][:, 0]) == 1).all() and (batch["initial"][:, 1] == 0).all()
    counts, *_ = np.histogram2d(*batch[RESIDUAL].T, bins=4, range=[[-1, 1], [0, 1]])
    assert counts.min() >= 2 and counts.max() <= 6  # of 4 each: even, not only on average


def test_a_method_whose_weight_lies_on_one_loss_is_told():
    def record(step, loss):
        numbers = {"weight": [0.99, 0.01], "norm": [0.1, 50.0], "loss": loss}
        return {"step": step, **numbers}

    fallen = {"mgda": [0.01, 90.0], "other": [0.01, 10.0]}
    report = SimpleNamespace(
        tasks=["boundary", "residual"],
        results=fallen,
        records=lambda method: [[record(1, [1.0, 100.0]), record(2, fallen[method])]],
    )
    (line,) = notes(report)
    assert line.startswith("mgda: weight 0.99 on boundary, stands still: ‖gradient‖ 0.1 against")
    assert line.endswith("residual 50; loss of residual from 100 to 90.")


def call(args: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    try:
        run_main(main, PinnConfig, "pinn", args)
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    return code, *capsys.readouterr()


def test_a_short_run_leaves_table_and_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    args = "--steps 2 --epochs 1 --batch-size 8 --condition-points 4 --width 3 --layers 1"
    args += f" --seeds 2 --learning-rate 0.01 --methods mgda --runs-dir {tmp_path}"
    code, out, _ = call([*args.split(), "--cache-dir", ".cache"], capsys)
    assert code == 0 and "| mgda " in out and "relative L2 error" in out
    folder = tmp_path / "pinn-helmholtz"
    names = {path.name for path in folder.iterdir()}
    assert {"table.md", "solutions.png", "conflict.png", "results.json", "scores.csv"} <= names
    assert names <= set(WRITTEN)
    assert "mgda,,0.01,1,test,relative_l2,," in (folder / "scores.csv").read_text()
    shown_path(folder, "mgda").write_bytes(b"PK")
    with pytest.raises(ExperimentError, match="not as a run wrote it"):
        Report(folder).shown("mgda")


def test_gradients_are_logged_for_a_rule_that_reads_none():
    problem = collocation(EQUATIONS["poisson"](), 16, condition_points=4, width=3, layers=1)
    (uniform,) = parse_methods("uniform", problem.tasks, 1, 2)
    trainer = Trainer(problem, uniform, Recipe(8, optax.adam, lambda epoch: jnp.float32(1)))
    run = Run(jnp.uint32(0), jnp.float32(0.1), jnp.ones(2), jnp.ones(2, bool))

    def steps(run, data):
        return trainer.train_steps(trainer.init(run), run, data, jnp.int32(0), jnp.int32(0), 2)

    _, log = jax.eval_shape(steps, run, problem.data["train"])
    assert log["norm"].shape == (2, 2) and log["cosine"].shape == (2, 2, 2)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--problem heat", "invalid choice 'heat' for argument '--problem'"),
        ("--steps 30", "--steps: expected a multiple of the 20 --epochs, got 30"),
        ("--steps 0", "--steps: expected at least 1, got 0"),
        ("--width 0", "--width: expected at least 1, got 0"),
        ("--condition-points -1", "--condition-points: expected at least 1, got -1"),
        ("--methods nosuch", "--methods: no method 'nosuch'"),
        ("--learning-rate nan", "--learning-rate: expected positive numbers of float32, got nan"),
        ("--name a/b", "--name: expected the name of one folder, got 'a/b'"),
    ],
)
def test_what_is_wrong_is_one_line(args: str, message: str, capsys: pytest.CaptureFixture[str]):
    code, out, err = call(args.split(), capsys)
    assert code == 2 and out == "" and err.count("\n") == 1
    assert message in err and err.startswith("pinn: ")
