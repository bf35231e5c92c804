"""CelebA: faces and 40 binary attributes, each a task.

References:
  Liu, Luo, Wang and Tang, Deep Learning Face Attributes in the Wild, ICCV 2015.
  Sener and Koltun, Multi-Task Learning as Multi-Objective Optimization, NeurIPS 2018.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.data.files import DataError, file_name

SIDE = 64
ATTRIBUTES = tuple(
    "5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose "
    "Black_Hair Blond_Hair Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee "
    "Gray_Hair Heavy_Makeup High_Cheekbones Male Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard "
    "Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks Sideburns Smiling Straight_Hair "
    "Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace Wearing_Necktie "
    "Young".split()
)
# Figure 2 of the paper draws these apart from the others, which are harder.
EASY = tuple(
    ATTRIBUTES[i] for i in (4, 5, 9, 10, 13, 14, 15, 16, 17, 20, 22, 24, 26, 29, 30, 35, 38)
)
SPLITS = ("train", "validation", "test")  # 0, 1 and 2 in the partition file
IMAGES, LABELS, PARTITION = "img_align_celeba", "list_attr_celeba.txt", "list_eval_partition.txt"
ARCHIVE = f"{IMAGES}.zip"
_FOLDERS = ("", "Img", "Anno", "Eval")  # as the official drive divides them


class Attributed(NamedTuple):
    """One split, in memory.

    Attributes:
      images: (N, side, side, 3) uint8.
      labels: (N, T) bool, one column an attribute.
    """

    images: np.ndarray
    labels: np.ndarray


class AttributeData(NamedTuple):
    """A data set of binary attributes.

    Attributes:
      tasks: the attributes' names, sorted.
      easy: those that figures draw apart from the others.
      train, validation, test: the splits.
    """

    tasks: tuple[str, ...]
    easy: tuple[str, ...]
    train: Attributed
    validation: Attributed
    test: Attributed


def find(folder: Path, *names: str) -> Path:
    """The first file or folder of those names in the manual folder or its Img, Anno, Eval."""
    for name in names:
        for sub in _FOLDERS:
            if (folder / sub / name).exists():
                return folder / sub / name
    either = " or ".join(names)
    raise DataError(f"{folder / either}: no such file or folder (nor in Img, Anno, Eval beside it)")


def read_attributes(path: Path) -> dict[str, np.ndarray]:
    """The attribute file: number of images, names, then a line "file −1 1 …" an image.

    Args:
      path: of list_attr_celeba.txt.

    Returns:
      {file name: (40,) bool}.

    Raises:
      DataError: naming file and line, for anything else.
    """
    lines = _lines(path)
    names = tuple(lines[1].split()) if len(lines) > 1 else ()
    if names != ATTRIBUTES:
        raise DataError(f"{path}: line 2: expected the names of the 40 attributes")
    if not lines[0].strip().isdigit() or int(lines[0]) != len(lines) - 2:
        raise DataError(
            f"{path}: line 1 promises {lines[0].strip()} images, {len(lines) - 2} lines follow"
        )
    attributes = {}
    for number, line in enumerate(lines[2:], start=3):
        name, *values = line.split()
        if len(values) != len(names) or not set(values) <= {"1", "-1"}:
            raise DataError(f"{path}: line {number}: expected a file name and 40 times 1 or -1")
        attributes[file_name(path, number, name)] = np.array(values) == "1"
    return attributes


def read_partition(path: Path) -> dict[str, str]:
    """The partition file, a line "file 0|1|2" an image: {file name: split}."""
    partition = {}
    for number, line in enumerate(_lines(path), start=1):
        fields = line.split()
        if len(fields) != 2 or fields[1] not in ("0", "1", "2"):
            raise DataError(f"{path}: line {number}: expected a file name and 0, 1 or 2")
        partition[file_name(path, number, fields[0])] = SPLITS[int(fields[1])]
    return partition


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a readable text file ({error})") from None
