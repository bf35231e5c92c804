"""Execute the notebooks and store what they show: text, and pictures in few colours.

python -m notebooks.run                        # all of them
python -m notebooks.run 1_quickstart 6_front
"""

import base64
import contextlib
import copy
import io
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
SKIPPED = "is not installed: this cell is skipped"  # what a cell prints instead


@contextlib.contextmanager
def kernel() -> Iterator[NotebookClient]:
    """One kernel in the repository's root; of several notebooks each begins with no names."""
    resources = {"metadata": {"path": str(ROOT)}}
    empty = nbformat.v4.new_notebook()
    client = NotebookClient(
        empty, timeout=900, kernel_name="python3", resources=resources, coalesce_streams=True
    )
    with client.setup_kernel():
        yield client


def execute(notebook: NotebookNode, client: NotebookClient) -> NotebookNode:
    """A fresh run of a copy; raises CellExecutionError where a cell does."""
    client.nb = copy.deepcopy(notebook)
    client.nb.cells.insert(0, nbformat.v4.new_code_cell("%reset -f"))
    client.execute(cleanup_kc=False)
    del client.nb.cells[0]
    return client.nb


def printed(cell: NotebookNode) -> str:
    """The text that a code cell shows: its stdout and the results that are not pictures."""
    text = ""
    for output in cell.get("outputs", []):
        if output.output_type == "stream" and output.name == "stdout":
            text += output.text
        elif output.output_type == "execute_result" and "image/png" not in output.data:
            text += output.data.get("text/plain", "")
    return text


def store(path: Path) -> None:
    """Execute a notebook and keep its outputs, without what differs from run to run."""
    stored = nbformat.read(path, as_version=4)
    with kernel() as client:
        fresh = execute(stored, client)
    for old, new in zip(stored.cells, fresh.cells, strict=True):
        new.metadata.pop("execution", None)
        if new.cell_type == "code":
            skipped = SKIPPED in printed(new)
            shown = [_small(o) for o in new.outputs if o.get("name") != "stderr"]
            new.outputs = old.outputs if skipped else shown
            new.execution_count = None
    fresh.metadata = nbformat.from_dict(METADATA)
    nbformat.write(fresh, path)


def _small(output: NotebookNode) -> NotebookNode:
    if "execution_count" in output:
        output.execution_count = None
    if "image/png" in output.get("data", {}):
        from PIL import Image

        raw, small = base64.b64decode(output.data["image/png"]), io.BytesIO()
        picture = Image.open(io.BytesIO(raw)).convert("RGB")
        picture.quantize(64, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
        output.data = {"image/png": base64.b64encode(small.getvalue()).decode()}
    return output


def main(names: list[str]) -> None:
    known = {path.stem: path for path in NOTEBOOKS}
    if unknown := set(names) - set(known):
        sys.exit(f"no notebook {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    for name in names or known:
        store(known[name])
        print(name, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
