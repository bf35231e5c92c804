"""Wrong command lines of every experiment."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.celeba import command as celeba
from experiments.cityscapes import command as cityscapes
from experiments.multilabel import command as multilabel
from experiments.multimnist import command as multimnist
from experiments.pinn import command as pinn
from experiments.toy import command as toy
from experiments.trainer.config import run_main
from experiments.vae import command as vae
from tests.experiments import tiny_program
from tests.experiments.bad_inputs.outcome import Case, attempt


def _bad(kind: str) -> list[str]:
    words = ["x", "", "-", "1,2", "0x10", "½", "1_", "None,"]
    count = ["-1", "-0.5", "1.5", "nan", "inf", "1e3", "9" * 30, *words]
    number = ["nan", "inf", "-inf", "-1", "1e400", *words]
    name = ["..", "a/b", "/", ".x", "-x", "g[1]", "a*", "?", "a\\b", "a\nb", "gs:", "\udcff"]
    name.append("x" * 300)
    return {"count": count, "number": number, "name": name}[kind]


COUNTS = ("seeds", "epochs", "batch-size", "grid", "runs-at-once")
COUNTS = (*COUNTS, "steps-per-dispatch", "log-points")
NUMBERS = ("learning-rate", "momentum", "decay-factor", "decay-every", "checkpoint-seconds")
CHOICES = ("optimizer", "head-scope", "dataset", "regression", "feed")
METHODS = (
    *("", ",", "mgad", "MGDA", "mgda,mgda", "mgda(", "mgda)", "mgda()x", "mgda(l2)", "mgda(=l2)"),
    *("mgda(normalization)", "mgda(normalization=)", "mgda(normalization=max)", "single(a=1)"),
    *("grid(a=1)", "fixed", "fixed(weights=[1])", "fixed(weights=x)", "fixed(weights=[1,2,3])"),
    *("fixed(weights={})", "fixed(weights=None)", "pcd(primary=5)"),
    *("pcd(primary=-3)", "pcd(primary=x)", "rlw(seed=x)", "rlw(seed=[1])", "cr_mogm", "uniform_ub"),
    *("cr_mogm(weighting=nothing)", "cr_mogm(weighting=mgda(x=1))", "cr_mogm(weighting=single)"),
    *("cr_mogm(weighting=" * 40, "uniform(reduction=3)", "uniform(reduction=[])", "mgda_ub_ub"),
    *("cagrad(c=x)", "cagrad(c=None)", "cagrad(c=[1,2])", "krum(num_byzantine=x)", "all,all"),
    *("famo_ub", "all_ub", "single_ub", "mgda\0", "mgda;", "nash_mtl(max_steps=x)", "__import__"),
    *(f"fixed(weights={'[' * 300})", "fixed(weights=1e999)", "dwa(temperature=x)", "os.system"),
)
MISSPELT = (
    *("--epoch", "--lr", "--seed", "-n", "--method", "--learning_rat", "--over", "--no-dataset"),
    *("--", "---epochs", "--epochs=", "--epochs=x", "--=3", "epochs", "--run-dir", "--help=3"),
)


def flag_cases(folder: Path) -> Iterator[Case]:
    """Wrong command lines of every experiment."""
    tail = ["--runs-dir", str(folder / "runs"), "--cache-dir", str(folder / "cache")]
    trained = {
        "multimnist": (multimnist.main, multimnist.MultiMnistConfig, ("data-dir",)),
        "celeba": (celeba.main, celeba.CelebaConfig, ("data-dir",)),
        "cityscapes": (cityscapes.main, cityscapes.CityscapesConfig, ("data-dir", "pretrained")),
        "multilabel": (multilabel.main, multilabel.MultilabelConfig, ("data-dir",)),
        "pinn": (pinn.main, pinn.PinnConfig, ()),
        "vae": (vae.main, vae.VaeConfig, ()),
        "tiny": (tiny_program.main, tiny_program.TinyConfig, ()),
    }

    def case(name: str, main: Any, config: Any, args: list[str]) -> Case:
        def command() -> None:
            run_main(main, config, name, args)

        return f"{name} {' '.join(args[-2:])[:60]!r}", functools.partial(attempt, command)

    for name, (main, config, paths) in trained.items():
        known = {field.replace("_", "-") for field in config.__dataclass_fields__}
        wrong = [(flag, v) for flag in COUNTS if flag in known for v in ["0", *_bad("count")]]
        wrong += [(flag, value) for flag in NUMBERS for value in _bad("number")]
        wrong += [("learning-rate", v) for v in ("0", "1e-320", "1e39")]
        wrong += [(flag, v) for flag in CHOICES if flag in known for v in ("x", "", "SGD", "0")]
        wrong += [("name", value) for value in _bad("name")]
        wrong += [(path, str(folder / "absent")) for path in ("tuned-by", *paths)]
        for flag, value in wrong:
            yield case(name, main, config, [*tail, f"--{flag}={value}"])
        for flag in MISSPELT:
            yield case(name, main, config, [*tail, flag, "3"])
    main, config, _ = trained["tiny"]
    for methods in METHODS:
        yield case("tiny", main, config, [*tail, f"--methods={methods}"])
    tail = tail[:2]
    for methods in (*METHODS, "single", "grid", "mgda_ub", "famo", "modo", "sdmgrad"):
        yield case("toy", toy.main, toy.ToyConfig, [*tail, f"--methods={methods}"])
    for flag, values in (("steps", _bad("count")), ("learning-rate", ["0", *_bad("number")])):
        for value in values:
            yield case("toy", toy.main, toy.ToyConfig, [*tail, f"--{flag}={value}"])
