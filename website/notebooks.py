"""Notebooks as pages, with the outputs they are stored with."""

import base64
import json
import re
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "notebooks"


def pages() -> list[tuple[str, str, str]]:
    """(title, path in docs/, text) of every notebook."""
    found = []
    for path in sorted(FOLDER.glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        text = "\n\n".join(_cell(cell) for cell in cells)
        title = re.search(r"^# (.*)$", text, re.MULTILINE)
        note = f"*The notebook `notebooks/{path.name}`, which the tests execute.*"
        text = re.sub(r"^(# .*)$", rf"\1\n\n{note}", text, count=1, flags=re.MULTILINE)
        found.append((title[1] if title else path.stem, f"notebooks/{path.stem}.md", text + "\n"))
    return found


def _cell(cell: dict) -> str:
    source = "".join(cell["source"])
    if cell["cell_type"] != "code":
        return source.replace("](../docs/", "](../")  # there docs/ is the root
    return "\n\n".join([f"```python\n{source}\n```", *map(_output, cell["outputs"])])


def _output(output: dict) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        raw = base64.b64decode("".join(data["image/png"]))
        encoded = base64.b64encode(raw).decode()
        return f'<img alt="output of the cell above" src="data:image/png;base64,{encoded}">'
    if "text/markdown" in data:
        return "".join(data["text/markdown"])
    text = "".join(output.get("text", data.get("text/plain", "")))
    return f"```text\n{text.rstrip()}\n```" if text.strip() else ""
