"""Multi-label data sets from their ARFF files and the list of labels beside them, as Mulan has it.

References:
  Tsoumakas, Spyromitros-Xioufis, Vilcek and Vlahavas, Mulan: A Java Library for Multi-Label
  Learning, JMLR 2011.
"""

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.data.files import DataError
from experiments.errors import first_line
from experiments.multilabel.arff import Attribute, Table, read_arff

SEED = 0  # of the parts that the files do not divide: one data set for everybody
PART = 0.2  # of the examples, for validation, and for test where the files do not divide them


class Labelled(NamedTuple):
    """One split, in memory.

    Attributes:
      x: (N, D) float32.
      y: (N, T) int8, one column a label: 1, 0, or −1 where it is not known.
    """

    x: np.ndarray
    y: np.ndarray


class MultilabelData(NamedTuple):
    """A multi-label data set.

    Attributes:
      tasks: the labels' names, sorted.
      train, validation, test: the splits.
      left_out: labels that have no example, or no counterexample, in one of them.
    """

    tasks: tuple[str, ...]
    train: Labelled
    validation: Labelled
    test: Labelled
    left_out: tuple[str, ...] = ()


def find_dataset(folder: Path, name: str | None) -> str:
    """The name of the data set in a folder: that given, or that of its only .xml file."""
    if not folder.is_dir():
        raise DataError(f"--data-dir: no such folder {folder}")
    names = sorted(path.stem for path in folder.glob("*.xml"))
    if name is not None and name not in names:
        raise DataError(f"{folder / name}.xml: no such file; it names the labels")
    if name is None and len(names) != 1:
        found = f"{len(names)}: {', '.join(names[:6])}; choose with --dataset" if names else "none"
        raise DataError(f"{folder}: expected one .xml file, which names the labels, found {found}")
    return names[0] if name is None else name


def load_files(folder: Path, name: str) -> MultilabelData:
    """A data set from NAME.xml and NAME-train.arff with NAME-test.arff, or else NAME.arff.

    A fifth of the training examples, drawn by a fixed seed, is the validation part; of a single
    file another fifth is the test part. Features are standardised by the training part but for
    those that are only 0 and 1; a missing one is its mean.

    Args:
      folder: of the files.
      name: of the data set.

    Returns:
      MultilabelData.

    Raises:
      DataError: naming the file, for one that is missing, damaged or not as it should be.
    """
    labels = read_labels(folder / f"{name}.xml")
    first, second = (folder / f"{name}-{part}.arff" for part in ("train", "test"))
    divided = first.exists() or second.exists()
    paths = [first, second] if divided else [folder / f"{name}.arff"]
    tables = [read_arff(path) for path in paths]
    if divided and tables[0].attributes != tables[1].attributes:
        raise DataError(f"{second}: has other attributes than {first.name}")
    x, y = (np.concatenate(a) for a in zip(*map(_split, paths, tables, [labels] * 2), strict=False))
    rng, size = np.random.default_rng(SEED), len(tables[0].data)
    order = rng.permutation(size)
    held = int(PART * size)
    validation, rest = np.sort(order[:held]), order[held:]
    test = np.arange(size, len(x)) if divided else np.sort(rest[:held])
    train = np.sort(rest if divided else rest[held:])
    if not min(len(train), len(validation), len(test)):
        raise DataError(f"{paths[0]}: {size} examples are too few to divide")
    x = standardised(x, train)
    parts = [
        Labelled(x[part], y[:, np.argsort(labels)][part]) for part in (train, validation, test)
    ]
    return without_constant_labels(tuple(sorted(labels)), *parts, source=paths[0])


def read_labels(path: Path) -> tuple[str, ...]:
    """The names that a Mulan label file gives: <labels><label name="..."/>...</labels>."""
    try:
        text = path.read_text(encoding="utf-8")
        if "<!" in text.replace("<!--", ""):
            raise DataError(f"{path}: expected XML without declarations of its own")
        elements = list(ElementTree.fromstring(text).iter())
    except (OSError, UnicodeDecodeError, ElementTree.ParseError) as error:
        raise DataError(f"{path}: not a readable XML file ({first_line(error)})") from None
    names = tuple(e.attrib.get("name", "") for e in elements if e.tag.rpartition("}")[2] == "label")
    if len(names) < 2 or "" in names or len(set(names)) < len(names):
        raise DataError(f'{path}: expected two or more <label name="...">, each name once')
    return names


def _split(path: Path, table: Table, labels: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, D) and labels (N, T) of a table."""
    at = {attribute.name: i for i, attribute in enumerate(table.attributes)}
    if unknown := [label for label in labels if label not in at]:
        raise DataError(f"{path}: no attribute of the label {unknown[0]!r}")
    y = np.stack([_binary(path, table, at[label]) for label in labels], axis=1)
    others = [i for name, i in at.items() if name not in set(labels)]
    if not others:
        raise DataError(f"{path}: every attribute is a label, none is left to tell them by")
    features = [_features(table.attributes[i], table.data[:, i]) for i in others]
    return np.concatenate(features, axis=1), y


def _binary(path: Path, table: Table, column: int) -> np.ndarray:
    """A label's column as 0, 1 and −1."""
    attribute, codes = table.attributes[column], table.data[:, column]
    known = ~np.isnan(codes)
    values = codes[known]
    if attribute.values is not None:
        named = np.array([{"0": 0, "1": 1}.get(value, 2) for value in attribute.values])
        values = named[values.astype(int)]
    if not np.isin(values, (0, 1)).all():
        raise DataError(f"{path}: label {attribute.name!r}: expected 0 and 1")
    y = np.full(len(codes), -1, np.int8)
    y[known] = values
    return y


def _features(attribute: Attribute, codes: np.ndarray) -> np.ndarray:
    """Numbers as they are; a nominal column as its numbers, or a column for each value."""
    if attribute.values is None:
        return codes[:, None]
    missing = np.isnan(codes)
    index = np.where(missing, 0, codes).astype(int)
    try:
        values = np.array([[float(value)] for value in attribute.values])
    except ValueError:
        count = len(attribute.values)
        values = np.eye(count)[:, 1 if count == 2 else 0 :]
    return np.where(missing[:, None], np.nan, values[index])


def standardised(x: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Of mean 0 and standard deviation 1 over the training rows, but for columns of 0 and 1."""
    known = ~np.isnan(x)
    count = np.maximum(known[train].sum(axis=0), 1)
    filled = np.where(known, x, 0.0)
    scale = np.maximum(np.abs(filled).max(axis=0), np.finfo(np.float64).tiny)
    filled = filled / scale  # or squares of large numbers would overflow
    mean = filled[train].sum(axis=0) / count
    spread = np.where(known[train], filled[train] - mean, 0.0)
    deviation = np.sqrt((spread**2).sum(axis=0) / count)
    binary = np.isin(np.where(known, x, 0.0), (0, 1)).all(axis=0)
    filled = np.where(known, filled, mean)
    constant = deviation <= 1e-12
    centred = (filled - mean) / np.where(constant, 1.0, deviation)
    return np.where(binary, filled, np.where(constant, 0.0, centred)).astype(np.float32)


def without_constant_labels(
    tasks: tuple[str, ...], train: Labelled, validation: Labelled, test: Labelled, source: Path
) -> MultilabelData:
    """The data without labels that no ranking can be judged by in one of the parts."""
    parts = (train, validation, test)
    both = [(part.y == 1).any(axis=0) & (part.y == 0).any(axis=0) for part in parts]
    kept = np.logical_and.reduce(both)
    if kept.sum() < 2:
        raise DataError(f"{source}: fewer than two labels have both values in every part")
    names = np.array(tasks, dtype=object)
    left = tuple(names[~kept].tolist())
    cut = (Labelled(part.x, part.y[:, kept]) for part in parts)
    return MultilabelData(tuple(names[kept].tolist()), *cut, left_out=left)
