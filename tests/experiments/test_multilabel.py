"""Multi-label sets: ARFF files of every shape, what is refused, the drawn set, and the score."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from experiments.data.files import DataError
from experiments.multilabel import synthetic
from experiments.multilabel.arff import Attribute, read_arff
from experiments.multilabel.command import MultilabelConfig, load, main
from experiments.multilabel.data import find_dataset, load_files, read_labels, standardised
from experiments.multilabel.problem import area_under_roc, label_problem
from experiments.trainer.config import run_main

DENSE = r"""% a comment
@RELATION 'two words: -C 2'

@attribute plain numeric
@Attribute 'a name, with' REAL
@ATTRIBUTE "it's \"quoted\"" integer
@attribute kind {red, 'dark blue' ,"50%"}
@attribute off {0,1}
% another
@DATA
1.5,-2e3,7,red,0
?, ? ,?,?,?
.5 , 0,1,'dark blue',1

% and one more
1,2,3,"50%",1
"""
SPARSE = """@relation sparse
@attribute a numeric
@attribute b {x,y}
@attribute 'c d' {0,1}
@data
{0 2.5, 2 1}
{}
{1 y,2 ?}
{ 1	'y' , 0 -1 }
4,x,1
"""


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_dense_rows_with_quotes_comments_and_missing_values(tmp_path: Path):
    table = read_arff(written(tmp_path, "d.arff", DENSE))
    assert table.attributes == (
        Attribute("plain", None),
        Attribute("a name, with", None),
        Attribute('it\'s "quoted"', None),
        Attribute("kind", ("red", "dark blue", "50%")),
        Attribute("off", ("0", "1")),
    )
    want = [[1.5, -2000, 7, 0, 0], [np.nan] * 5, [0.5, 0, 1, 1, 1], [1, 2, 3, 2, 1]]
    np.testing.assert_array_equal(table.data, want)


def test_sparse_rows_leave_out_zeros_and_first_values(tmp_path: Path):
    table = read_arff(written(tmp_path, "s.arff", SPARSE))
    want = [[2.5, 0, 1], [0, 0, 0], [0, 1, np.nan], [-1, 1, 0], [4, 0, 1]]
    np.testing.assert_array_equal(table.data, want)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("@DATA", "", "line 11: expected @relation"),
        ("1.5,-2e3", "1.5,x", "line 11: attribute 1: expected a number, got 'x'"),
        ("1.5,-2e3", "1.5,nan", "line 11: attribute 1: expected a number, got 'nan'"),
        ("1.5,-2e3", "1.5,1_0", "line 11: attribute 1: expected a number"),
        ("7,red,0", "7,red", "line 11: expected 5 values, got 4"),
        ("7,red,0", "7,,0", "line 11: an empty value"),
        ("7,red,0", "7,pink,0", r"line 11: attribute 3: expected \{red,dark blue,50%\}"),
        ("'dark blue',1", "'dark blue,1", "line 13: cannot read"),
        ("plain numeric", "plain string", "line 4: attribute 'plain': expected numbers or"),
        ("plain numeric", "plain", "line 4: expected @attribute NAME TYPE"),
        ("plain numeric", "off real", "line 8: attribute 'off' named twice"),
        ("{0,1}", "{0,0}", "line 8: attribute 'off': expected {different values}"),
        ("{0,1}", "{0,1", "line 8: attribute 'off': expected {different values}"),
        ("% a comment", "\0", "line 1: a zero byte"),
    ],
)
def test_damaged_dense_files_are_named_with_the_line(
    tmp_path: Path, old: str, new: str, message: str
):
    assert old in DENSE
    with pytest.raises(DataError, match=message) as info:
        read_arff(written(tmp_path, "d.arff", DENSE.replace(old, new, 1)))
    assert str(tmp_path / "d.arff") in str(info.value) and "\n" not in str(info.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{0 2.5, 2 1}", "{0 2.5, 3 1}", "line 6: attribute 3 of 3 attributes"),
        ("{0 2.5, 2 1}", "{0 2.5, 0 1}", "line 6: attribute 0 twice"),
        ("{0 2.5, 2 1}", "{0 2.5, 2 1", "line 6: expected } at the end"),
        ("{0 2.5, 2 1}", "{0 2.5, 2 1}, {5}", "line 6: "),
        ("{0 2.5, 2 1}", "{0, 2 1}", "line 6: expected INDEX VALUE, got '0'"),
        ("{0 2.5, 2 1}", "{-1 2}", "line 6: expected INDEX VALUE"),
        ("{1 y,2 ?}", "{1 z,2 ?}", "line 8: attribute 1: expected {x,y}, got 'z'"),
    ],
)
def test_damaged_sparse_files_are_named_with_the_line(
    tmp_path: Path, old: str, new: str, message: str
):
    assert old in SPARSE
    with pytest.raises(DataError) as info:
        read_arff(written(tmp_path, "s.arff", SPARSE.replace(old, new, 1)))
    assert message in str(info.value) and "\n" not in str(info.value)


def test_files_without_examples_or_text_are_refused(tmp_path: Path):
    for text, message in (
        ("", "no @data"),
        ("@data\n1", "no @attribute"),
        (DENSE.split("@DATA")[0], "no @data"),
    ):
        with pytest.raises(DataError, match=message):
            read_arff(written(tmp_path, "x.arff", text))
    with pytest.raises(DataError, match="no such file"):
        read_arff(tmp_path / "absent.arff")
    (tmp_path / "b.arff").write_bytes(b"\xff\xfe\x80" * 9)
    with pytest.raises(DataError, match="not a readable text file"):
        read_arff(tmp_path / "b.arff")


LABELS = """<?xml version="1.0" encoding="utf-8"?>
<labels xmlns="http://mulan.sourceforge.net/labels">
<!-- two of them, one in the other -->
<label name="zebra"><label name="a horse"/></label>
</labels>
"""


def mulan(folder: Path, name: str, sizes: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """A set of three features and two labels in Mulan's files; its rows."""
    rng = np.random.default_rng(seed)
    head = "@relation r\n@attribute u numeric\n@attribute zebra {0,1}\n@attribute v numeric\n"
    head += "@attribute kind {p,q,r}\n@attribute 'a horse' {1,0}\n@data\n"
    written(folder, f"{name}.xml", LABELS)
    rows = []
    names = ("-train", "-test") if len(sizes) == 2 else ("",)
    for part, size in zip(names, sizes, strict=True):
        u, v = rng.normal(size=(2, size)).round(3)
        zebra, horse = rng.integers(0, 2, (2, size))
        kind = rng.integers(0, 3, size)
        columns = (u, zebra, v, np.array(["p", "q", "r"])[kind], horse)
        lines = [",".join(map(str, row)) for row in zip(*columns, strict=True)]
        written(folder, f"{name}{part}.arff", head + "\n".join(lines))
        rows.append(np.stack([u, v, *(kind == k for k in range(3)), horse, zebra], axis=1))
    return np.concatenate(rows)


@pytest.mark.parametrize("sizes", [(40, 20), (60,)])
def test_a_folder_is_divided_standardised_and_sorted_by_label(
    tmp_path: Path, sizes: tuple[int, ...]
):
    rows = mulan(tmp_path, "toy", sizes)
    data = load_files(tmp_path, find_dataset(tmp_path, None))
    assert data.tasks == ("a horse", "zebra") and data.left_out == ()
    parts = (data.train, data.validation, data.test)
    assert [len(p.x) for p in parts] == ([32, 8, 20] if len(sizes) == 2 else [36, 12, 12])
    together = np.concatenate([np.concatenate([p.x, p.y], axis=1) for p in parts])
    inputs = data.train.x[:, :2].astype(float)
    np.testing.assert_allclose(inputs.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(inputs.std(0), 1, rtol=1e-6)
    # Every row once: the features undone by a line through any two points of a column.
    for column in (0, 1):
        order, found = np.sort(rows[:, column]), np.sort(together[:, column])
        slope = (order[-1] - order[0]) / (found[-1] - found[0])
        np.testing.assert_allclose(order[0] + slope * (found - found[0]), order, atol=1e-4)
    key = np.lexsort(rows[:, :2].T)
    np.testing.assert_array_equal(together[np.lexsort(together[:, :2].T), 2:], rows[key, 2:])
    if len(sizes) == 2:  # the official test part is the test part
        np.testing.assert_array_equal(data.test.y, rows[40:, -2:])


def test_missing_values_and_constant_columns(tmp_path: Path):
    x = np.array([[1.0, 5, 0, 1e300], [3, 5, 1, -1e300], [np.nan, 5, np.nan, 0], [9, 9, 9, 9]])
    got = standardised(x, np.arange(3))
    np.testing.assert_allclose(got[:3, 0], [-1, 1, 0])
    np.testing.assert_array_equal(got[:3, 1], 0)
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got[:3, 3], np.sqrt(1.5) * np.array([1, -1, 0]), rtol=1e-6)


def test_labels_that_a_part_cannot_judge_are_left_out(tmp_path: Path):
    text = SPARSE.replace("@data", "@attribute e {0,1}\n@attribute f {0,1}\n@data")
    head = text[: text.index("@data") + 6]
    rng = np.random.default_rng(0)
    rows = [
        f"{{0 {i}, 2 {i % 2}, 3 {int(rng.random() < 0.5)}, 4 {int(i == 0)}}}" for i in range(60)
    ]
    written(tmp_path, "t.arff", head + "\n".join(rows))
    names = "".join(f'<label name="{name}"/>' for name in ("c d", "e", "f"))
    written(tmp_path, "t.xml", f"<labels>{names}</labels>")
    data = load_files(tmp_path, "t")
    assert data.tasks == ("c d", "e") and data.left_out == ("f",)
    assert data.train.y.shape[1] == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<labels>", "not a readable XML file"),
        ("<labels/>", "expected two or more"),
        ('<labels><label name="a"/><label name="a"/></labels>', "each name once"),
        ('<labels><label name="a"/><label/></labels>', "expected two or more"),
        ('<!DOCTYPE l [<!ENTITY a "b">]><labels/>', "without declarations"),
        ('<labels><label name="zebra"/><label name="absent"/></labels>', "no attribute of the"),
        ('<labels><label name="zebra"/><label name="u"/></labels>', "'u': expected 0 and 1"),
    ],
)
def test_a_wrong_list_of_labels_ends_the_command_with_one_line(
    tmp_path: Path, text: str, message: str, capsys: pytest.CaptureFixture[str]
):
    mulan(tmp_path, "toy", (20,))
    written(tmp_path, "toy.xml", text)
    with pytest.raises(SystemExit) as stop:
        run_main(main, MultilabelConfig, "multilabel", ["--data-dir", str(tmp_path)])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1 and message in error


def test_which_set_of_a_folder_is_meant(tmp_path: Path):
    with pytest.raises(DataError, match="found none"):
        find_dataset(tmp_path, None)
    mulan(tmp_path, "one", (20, 10))
    mulan(tmp_path, "two", (20,))
    with pytest.raises(DataError, match="found 2: one, two; choose with --dataset"):
        find_dataset(tmp_path, None)
    with pytest.raises(DataError, match="three.xml: no such file"):
        find_dataset(tmp_path, "three")
    assert MultilabelConfig(data_dir=tmp_path, dataset="two").resolved().name == "multilabel-two"
    (tmp_path / "one-test.arff").unlink()
    with pytest.raises(DataError, match="one-test.arff: no such file"):
        load_files(tmp_path, "one")
    assert read_labels(tmp_path / "one.xml") == ("zebra", "a horse")


def test_drawn_tags_are_as_rare_as_they_are_said_to_be():
    shares = synthetic.shares()
    assert shares.sum() == pytest.approx(2.402, rel=0.02)  # bibtex: labels an example
    assert shares[0] / shares[-1] == pytest.approx(20.4, rel=0.01)
    assert np.mean(shares[0] / shares) == pytest.approx(12.5, rel=0.03)
    data, again = load(MultilabelConfig()), synthetic.load_tags()
    np.testing.assert_array_equal(data.train.x, again.train.x)
    assert list(data.tasks) == sorted(data.tasks) and len(data.tasks) == 159
    found = np.concatenate([data.train.y, data.validation.y, data.test.y]).mean(0)
    assert (np.abs(found - shares) < 5 * np.sqrt(shares / 6000)).all()
    for part in (data.train, data.validation, data.test):
        assert (part.y == 1).any(0).all() and (part.y == 0).any(0).all()


def test_the_score_is_the_area_under_the_curve_of_what_counts():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 6, 50).astype(np.float32)  # with ties
    positive, counted = rng.random((2, 50)) < 0.5
    want = roc_auc_score(positive[counted], scores[counted])
    area = jax.jit(area_under_roc)
    np.testing.assert_allclose(area(scores, positive, counted), want, rtol=1e-6)
    scores[np.flatnonzero(counted)[0]] = np.nan
    assert np.isnan(area(scores, positive, counted))


def test_labels_that_are_not_known_have_no_part_in_loss_and_score(tmp_path: Path):
    mulan(tmp_path, "toy", (40, 20))
    data = load_files(tmp_path, "toy")
    y = data.test.y.copy()
    y[::3] = -1
    problem = label_problem(data, widths=(4,))

    @jax.jit
    def numbers(key):
        shared, own = problem.init(key)
        batch = problem.prepare(data.test._replace(y=y), None)
        z = problem.encode(shared, batch)
        losses = problem.decode(own, jnp.stack([z] * 2), batch)
        sums = problem.tally(shared, own, batch, jnp.ones(20, bool))
        return own, z, losses, problem.metrics(sums)

    own, z, losses, scores = numbers(jax.random.key(0))
    logits = np.asarray(z, float) @ np.asarray(own["kernel"], float).T
    for t, task in enumerate(data.tasks):
        known = y[:, t] >= 0
        signed = (1 - 2 * y[known, t]) * logits[known, t]
        np.testing.assert_allclose(losses[task], np.log1p(np.exp(signed)).mean(), rtol=1e-5)
        want = 100 * roc_auc_score(y[known, t], logits[known, t])
        np.testing.assert_allclose(scores["auc"][t], want, rtol=1e-5)
