"""ARFF files, dense or sparse, as Weka and Mulan write them: read, or refused with one line.

References:
  https://waikato.github.io/weka-wiki/formats_and_processing/arff_stable/
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.data.files import DataError

_MOST_NUMBERS = 1 << 28  # of a table in memory: two GiB of float64
_NUMERIC = ("numeric", "real", "integer")
# A value in quotes with backslash escapes, or one without blanks, commas, braces and quotes.
_TOKEN = re.compile(
    r"""\s*('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^\s,{}'"%][^,{}'"]*?)\s*(?=[,}]|$)"""
)
_NAME = re.compile(r"""\s*('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^\s{}'",%]+)\s*(.*)$""", re.DOTALL)
_ESCAPE = re.compile(r"\\(.)")
_PLAIN = re.compile(r"[^'\"{}%\\]*")  # a line that can be divided at its commas


class Attribute(NamedTuple):
    """A column.

    Attributes:
      name: without quotes.
      values: of a nominal one, in their order; None for numbers.
    """

    name: str
    values: tuple[str, ...] | None


class Table(NamedTuple):
    """A file's content.

    Attributes:
      attributes: the columns.
      data: (N, columns) float64; of a nominal column the index of the value; NaN is missing.
    """

    attributes: tuple[Attribute, ...]
    data: np.ndarray


def read_arff(path: Path) -> Table:
    """The table in an ARFF file.

    Args:
      path: of the file; dense and sparse rows may stand side by side. What a sparse row leaves
        out is 0, of a nominal column its first value.

    Returns:
      Table.

    Raises:
      DataError: naming file and line, for anything that is not ARFF, for strings, dates,
        relational attributes and weights of examples.
    """
    lines = _lines(path)
    attributes = tuple(_header(path, lines))
    if not attributes:
        raise DataError(f"{path}: no @attribute before @data")
    codes = [
        None if a.values is None else {v: i for i, v in enumerate(a.values)} for a in attributes
    ]
    rows = []
    for number, line in lines:
        row = _row(path, number, line, codes)
        rows.append(row)
        if len(rows) * len(row) > _MOST_NUMBERS:
            raise DataError(f"{path}: line {number}: more than {_MOST_NUMBERS} numbers, too many")
    if not rows:
        raise DataError(f"{path}: no example after @data")
    return Table(attributes, np.stack(rows))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that say something, with their numbers."""
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if "\0" in line:
                    raise DataError(f"{path}: line {number}: a zero byte, not a text file")
                if line.strip() and not line.lstrip().startswith("%"):
                    yield number, line.strip()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a readable text file ({error})") from None


def _header(path: Path, lines: Iterator[tuple[int, str]]) -> Iterator[Attribute]:
    names = set()
    for number, line in lines:
        keyword = line.split(maxsplit=1)[0].lower()
        rest = line[len(keyword) :]
        if keyword == "@data":
            return
        if keyword == "@attribute":
            attribute = _attribute(path, number, rest)
            if attribute.name in names:
                raise DataError(f"{path}: line {number}: attribute {attribute.name!r} named twice")
            names.add(attribute.name)
            yield attribute
        elif keyword != "@relation":
            raise DataError(
                f"{path}: line {number}: expected @relation, @attribute or @data, got {line[:40]!r}"
            )
    raise DataError(f"{path}: no @data: not an ARFF file, or cut short")


def _attribute(path: Path, number: int, text: str) -> Attribute:
    match = _NAME.match(text)
    if match is None or not match[2].strip():
        raise DataError(f"{path}: line {number}: expected @attribute NAME TYPE")
    name, kind = _unquoted(match[1]), match[2].strip()
    if kind.split()[0].lower() in _NUMERIC:
        return Attribute(name, None)
    if not kind.startswith("{"):
        raise DataError(
            f"{path}: line {number}: attribute {name!r}: expected numbers or {{values}}, "
            f"got {kind[:40]!r}"
        )
    body, closed, _ = kind[1:].rpartition("}")
    values = tuple(_tokens(path, number, body)) if closed else ()
    if not values or len(set(values)) < len(values):
        raise DataError(f"{path}: line {number}: attribute {name!r}: expected {{different values}}")
    return Attribute(name, values)


def _row(path: Path, number: int, line: str, codes: list[dict[str, int] | None]) -> np.ndarray:
    if not line.startswith("{"):
        fields = _tokens(path, number, line)
        if len(fields) != len(codes):
            raise DataError(
                f"{path}: line {number}: expected {len(codes)} values, got {len(fields)}"
            )
        pairs = enumerate(fields)
        row = np.empty(len(codes))
    else:
        if not line.endswith("}"):
            raise DataError(f"{path}: line {number}: expected }} at the end, cut short or weighted")
        pairs = _sparse(path, number, line[1:-1], len(codes))
        row = np.zeros(len(codes))
    for column, field in pairs:
        row[column] = _number(path, number, column, field, codes[column])
    return row


def _sparse(path: Path, number: int, body: str, count: int) -> Iterator[tuple[int, str]]:
    seen = set()
    for item in _items(body):
        index, field = (*item.split(maxsplit=1), "", "")[:2]
        if not index.isascii() or not index.isdigit() or not field:
            raise DataError(
                f"{path}: line {number}: expected INDEX VALUE, got {item.strip()[:40]!r}"
            )
        column = int(index[:10])
        if column >= count or column in seen:
            what = "twice" if column in seen else f"of {count} attributes"
            raise DataError(f"{path}: line {number}: attribute {column} {what}")
        seen.add(column)
        yield column, _tokens(path, number, field)[0]


def _items(body: str) -> list[str]:
    if not body.strip():
        return []
    if _PLAIN.fullmatch(body):
        return body.split(",")
    return re.findall(r"""(?:[^,'"]|'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")+""", body)


def _tokens(path: Path, number: int, text: str) -> list[str]:
    """The values between commas, without their quotes."""
    if _PLAIN.fullmatch(text):
        fields = [field.strip() for field in text.split(",")]
    else:
        fields, at = [], 0
        while (match := _TOKEN.match(text, at)) is not None:
            fields.append(_unquoted(match[1]))
            at = match.end() + 1
        if at <= len(text):
            raise DataError(f"{path}: line {number}: cannot read {text[at : at + 40]!r}")
    if "" in fields:
        raise DataError(f"{path}: line {number}: an empty value")
    return fields


def _unquoted(text: str) -> str:
    if text[:1] in ("'", '"'):
        return _ESCAPE.sub(r"\1", text[1:-1])
    return text


def _number(
    path: Path, number: int, column: int, field: str, codes: dict[str, int] | None
) -> float:
    if field == "?":
        return np.nan
    if codes is not None:
        if field in codes:
            return codes[field]
        expected = "{" + ",".join(list(codes)[:6]) + "}"
    else:
        try:
            if np.isfinite(value := float(field)) and "_" not in field:
                return value
        except ValueError:
            pass
        expected = "a number"
    raise DataError(
        f"{path}: line {number}: attribute {column}: expected {expected}, got {field[:40]!r}"
    )
