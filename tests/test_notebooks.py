"""Every notebook runs, and its stored text outputs are those it prints anew."""

import copy
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def printed(notebook: nbformat.NotebookNode) -> list[str]:
    """The text each code cell shows: its stdout and the results that are not pictures."""
    cells = []
    for cell in notebook.cells:
        text = ""
        for output in cell.get("outputs", []):
            if output.output_type == "stream" and output.name == "stdout":
                text += output.text
            elif output.output_type == "execute_result" and "image/png" not in output.data:
                text += output.data.get("text/plain", "")
        if cell.cell_type == "code":
            cells.append(text)
    return cells


def execute(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A fresh run in the repository's root; raises CellExecutionError where a cell does."""
    resources = {"metadata": {"path": str(ROOT)}}
    client = NotebookClient(
        copy.deepcopy(notebook), timeout=300, kernel_name="python3", resources=resources
    )
    return client.execute()


def check(notebook: nbformat.NotebookNode) -> None:
    """Stored text is reproduced; a cell stored without outputs only has to run."""
    for stored, fresh in zip(printed(notebook), printed(execute(notebook)), strict=True):
        assert stored in ("", fresh)


if NOTEBOOKS:  # an empty folder is no test item rather than a skipped one

    @pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
    def test_notebook(path: Path) -> None:
        check(nbformat.read(path, as_version=4))


def test_check_sees_a_stale_output() -> None:
    cell = nbformat.v4.new_code_cell("print(1 + 1)")
    notebook = nbformat.v4.new_notebook(cells=[cell])
    cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text="2\n")]
    check(notebook)
    cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text="3\n")]
    with pytest.raises(AssertionError):
        check(notebook)
