"""ImageNet weights from a file in torchvision's naming: .safetensors or .npz.

A module whose attributes bear torchvision's names (`experiments.models.dilated`) finds its
tensors by path: layer1/0/conv1/kernel is "layer1.0.conv1.weight". Further tensors in the
file, such as the classifier's, are left alone.
"""

import json
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.data.files import DataError
from experiments.errors import first_line
from experiments.models.stateful import Variables

_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4"}
_NAMES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
_HEADER_LIMIT = 100_000_000  # of the safetensors format, in bytes


def load_pretrained(variables: Variables, path: Path) -> Variables:
    """Variables with the file's tensors in place of the initial ones.

    Args:
      variables: of a module with torchvision's names; only shapes and dtypes are read.
      path: a .safetensors or .npz file; convolutions as (features, channels, rows, columns).

    Returns:
      Variables of numpy arrays with the same structure, shapes and dtypes.

    Raises:
      DataError: naming file and tensor, where one is missing or has another shape, or the
        file cannot be read.
    """
    tensors = read_tensors(path)

    def load(key_path: Any, leaf: Any) -> np.ndarray:
        name = torch_name(key_path)
        if name not in tensors:
            raise DataError(f"{path}: no tensor {name!r}")
        tensor = tensors[name]
        if tensor.dtype.kind not in "fiu":
            raise DataError(f"{path}: tensor {name!r}: expected numbers, got {tensor.dtype}")
        is_kernel = tensor.ndim == 4
        found = tensor.transpose(2, 3, 1, 0) if is_kernel else tensor
        if found.shape != leaf.shape:
            want = tuple(leaf.shape[i] for i in (3, 2, 0, 1)) if leaf.ndim == 4 else leaf.shape
            raise DataError(f"{path}: tensor {name!r}: expected shape {want}, got {tensor.shape}")
        if not np.isfinite(found).all():
            raise DataError(f"{path}: tensor {name!r}: holds numbers that are not finite")
        return np.ascontiguousarray(found, leaf.dtype)

    return jax.tree_util.tree_map_with_path(load, variables)


def torch_name(key_path: Any) -> str:
    """The name under which torchvision has the variable at a path of a `Variables`."""
    keys = [_key(entry) for entry in key_path[1:]]  # the first is params or stats
    keys = [key for key in keys if key != "value"]
    return ".".join([*keys[:-1], _NAMES.get(keys[-1], keys[-1])])


def _key(entry: Any) -> str:
    for attribute in ("key", "idx", "name"):
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    raise TypeError(f"no name in {entry!r}")


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a .safetensors or .npz file by name; DataError where it cannot be read."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as file:
                return {name: np.asarray(file[name]) for name in file.files}
        except Exception as error:  # of a damaged zip or header almost any type
            raise DataError(f"{path}: not a readable .npz file ({first_line(error)})") from error
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    raise DataError(f"{path}: expected a .safetensors or .npz file")


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a .safetensors file.

    The format: the header's length as a little-endian 64-bit integer, the header as JSON,
    {name: {"dtype", "shape", "data_offsets": [first, last]}}, then the data, offsets counted
    from its start. bfloat16 comes back as float32.

    Args:
      path: the file.

    Returns:
      {name: array}.

    Raises:
      DataError: for a header that is none, a dtype unknown here, or data cut short.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _HEADER_LIMIT):
            raise DataError(f"{path}: not a safetensors file, or cut short inside its header")
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError):
            raise DataError(f"{path}: not a safetensors file, its header is no JSON") from None
        data = file.read()
    if not isinstance(header, dict):
        raise DataError(f"{path}: not a safetensors file, its header is no JSON object")
    header.pop("__metadata__", None)
    return {name: _tensor(path, name, entry, data) for name, entry in header.items()}


def _tensor(path: Path, name: str, entry: Any, data: bytes) -> np.ndarray:
    try:
        kind, shape, (first, last) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        dtype = np.dtype(_DTYPES[kind])
        if not all(type(n) is int and n >= 0 for n in (*shape, first, last)):
            raise TypeError
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{path}: tensor {name!r}: cannot read its entry {entry!r}") from None
    if last - first != math.prod(shape) * dtype.itemsize:
        raise DataError(
            f"{path}: tensor {name!r}: {last - first} bytes for shape {shape} of {kind}"
        )
    if not 0 <= first <= last <= len(data):
        raise DataError(f"{path}: tensor {name!r}: the file is cut short")
    array = np.frombuffer(data[first:last], dtype).reshape(shape)
    if kind == "BF16":  # the upper half of a float32
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array
