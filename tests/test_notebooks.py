"""Every notebook runs, and its stored text outputs are those it prints anew."""

import base64
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

from notebooks.run import METADATA, NOTEBOOKS, SKIPPED, execute, kernel, printed

# What replaces the sizes of the cell tagged `size`, in the notebooks that train for long. Their
# numbers are others then, so that cells after it only have to run.
SMALL = {
    "3_multimnist": 'methods, seeds, epochs = "mgda_ub", 1, 1',
    "9_pinn": "steps = 100",
}


@pytest.fixture(scope="module")
def client() -> Iterator[NotebookClient]:
    with kernel() as client:
        yield client


def made_small(notebook: NotebookNode, sizes: str) -> NotebookNode:
    tagged = ["size" in cell.metadata.get("tags", []) for cell in notebook.cells]
    assert tagged.count(True) == 1
    for cell in notebook.cells[tagged.index(True) :]:
        if cell.cell_type == "code":
            cell.outputs = []
    notebook.cells[tagged.index(True)].source += f"\n{sizes}"
    return notebook


def check(notebook: NotebookNode, client: NotebookClient) -> None:
    """Stored text is reproduced; a cell stored without outputs only has to run."""
    for stored, fresh in zip(notebook.cells, execute(notebook, client).cells, strict=True):
        text = printed(fresh)
        assert printed(stored) in ("", text) or SKIPPED in text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook(path: Path, client: NotebookClient) -> None:
    notebook = nbformat.read(path, as_version=4)
    if path.stem in SMALL:
        notebook = made_small(notebook, SMALL[path.stem])
    check(notebook, client)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_what_is_stored(path: Path) -> None:
    """Small pictures, and nothing of the machine that made them."""
    notebook = nbformat.read(path, as_version=4)
    assert notebook.metadata == METADATA
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    pictures = [o.data["image/png"] for o in outputs if "image/png" in o.get("data", {})]
    assert pictures and max(len(base64.b64decode(picture)) for picture in pictures) < 60_000
    assert all(o.get("name") != "stderr" and o.output_type != "error" for o in outputs)
    assert not any(re.search(r"(?<!\w)/(home|root|tmp|usr|work)/", str(o)) for o in outputs)


def test_check_sees_a_stale_output(client: NotebookClient) -> None:
    cell = nbformat.v4.new_code_cell("print(1 + 1)")
    notebook = nbformat.v4.new_notebook(cells=[cell])
    cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text="2\n")]
    check(notebook, client)
    cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text="3\n")]
    with pytest.raises(AssertionError):
        check(notebook, client)


def test_no_name_is_left_for_the_next_notebook(client: NotebookClient) -> None:
    first, second = (nbformat.v4.new_code_cell(text) for text in ("x = 1", "print('x' in dir())"))
    execute(nbformat.v4.new_notebook(cells=[first]), client)
    fresh = execute(nbformat.v4.new_notebook(cells=[second]), client)
    assert printed(fresh.cells[0]) == "False\n"
