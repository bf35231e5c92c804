"""What the pictures share: panels in a block for each method, and a legend that covers no data."""

from typing import Any

BELOW = 10  # more entries of a legend than these stand beside the panels
_COLUMNS = 6  # blocks side by side; of more methods the others go below


def blocks(
    plt: Any, titles: list[str], labels: list[str], size: tuple[float, float] = (2.7, 1.9)
) -> tuple[Any, list[list[Any]]]:
    """A figure with a block of panels for each method, panels of a block below each other.

    Args:
      plt: pyplot.
      titles: of the blocks, the methods.
      labels: of the panels of a block.
      size: of a panel, in inches.

    Returns:
      The figure, and the axes of each block. Every block says its epochs, the first of a row its
      panels' labels.
    """
    bands, columns = bands_columns(len(titles), _COLUMNS)
    rows = bands * len(labels)
    figure, grid = plt.subplots(
        rows, columns, figsize=(1.6 + size[0] * columns, 0.6 * bands + size[1] * rows),
        sharex=True, squeeze=False, layout="constrained",
    )  # fmt: skip
    for axes in grid.flat:
        axes.set_axis_off()
    found = []
    for i, title in enumerate(titles):
        band, column = divmod(i, columns)
        block = list(grid[band * len(labels) : (band + 1) * len(labels), column])
        for axes, label in zip(block, labels, strict=True):
            axes.set_axis_on()
            axes.set_ylabel(label if column == 0 else "")
        block[0].set_title(folded(title), size=9)
        block[-1].set_xlabel("epoch")
        block[-1].tick_params(labelbottom=True)
        block[-1].xaxis.get_major_locator().set_params(integer=True, nbins=5)
        found.append(block)
    return figure, found


def bands_columns(count: int, most: int) -> tuple[int, int]:
    """So many panels in rows of at most so many: rows and columns, about equally full."""
    bands = -(-count // most)
    return bands, -(-count // bands)


def folded(method: str) -> str:
    """A method's name, its options on a line of their own where both are long."""
    return method.replace("(", "\n(", 1) if len(method) > 20 else method


def legend_outside(figure: Any, size: float = 8) -> None:
    """A legend of all panels below or beside them, by which the figure grows.

    Args:
      figure: in the constrained layout; entries with the same label are one.
      size: of the letters, in points.
    """
    found: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if not found:
        return
    width, height = figure.get_size_inches()
    below = len(found) <= BELOW
    place = "outside lower center" if below else "outside right upper"
    few = range(1, len(found) + 1)
    for columns in reversed(few) if below else few:
        legend = figure.legend(
            found.values(), found.keys(), loc=place, ncols=columns, fontsize=size
        )
        extent = legend.get_window_extent(figure.canvas.get_renderer())
        wide, high = extent.width / figure.dpi, extent.height / figure.dpi
        if columns == few[0 if below else -1] or (wide <= width if below else high <= height):
            break
        legend.remove()
    if below:
        figure.set_size_inches(max(width, wide), height + high)
    else:
        figure.set_size_inches(width + wide, max(height, high))
