"""The notebooks of the tutorials: `python -m docs.notebooks [NAME ...]` executes them.

A notebook in docs/tutorials/ is edited in Jupyter. This command runs its cells in an empty folder
and stores their outputs without the speeds and times in them. It also stores a digest of the code
that it ran, so that a test finds notebooks that were edited and not executed again.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image
from traitlets.config import Config

from docs.fill import DOCS

TUTORIALS = DOCS / "tutorials"

# A whole notebook takes a few minutes on a busy machine.
CELL_SECONDS = 1200

PNG = "image/png"

# The end of a progress line differs in every execution.
_SPEEDS = re.compile(r"  [\d,]+ evaluations/s.*")


def paths() -> list[Path]:
    """The notebooks, in the order of their names."""
    return sorted(TUTORIALS.glob("*.ipynb"))


def read(path: Path) -> Any:
    """The notebook in a file."""
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


def code(notebook: Any) -> list[Any]:
    """The cells of a notebook that hold code."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def code_digest(notebook: Any) -> str:
    """SHA-256 of the code of a notebook."""
    return hashlib.sha256("\n\n".join(cell.source for cell in code(notebook)).encode()).hexdigest()


def execute(notebook: Any, folder: Path) -> None:
    """Run the cells of a notebook in a folder, and store their outputs in the notebook.

    Raises `nbclient.exceptions.CellExecutionError` if a cell fails.
    """
    with tempfile.TemporaryDirectory() as own:
        # Without ports, nobody else can connect to the kernel or take its port.
        connection = {"transport": "ipc", "connection_file": f"{own}/kernel.json"}
        client = NotebookClient(
            notebook,
            config=Config({"ConnectionFileMixin": connection}),
            kernel_name="python3",
            timeout=CELL_SECONDS,
            resources={"metadata": {"path": str(folder)}},
            coalesce_streams=True,
            record_timing=False,
        )
        # Start-up files of the user would change what the cells do.
        client.execute(env=os.environ | {"IPYTHONDIR": own, "PYTHONPATH": str(DOCS.parent)})
    notebook.metadata = {
        "code_sha256": code_digest(notebook),
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in code(notebook):
        for output in cell.outputs:
            if output.output_type == "stream":
                output.text = _SPEEDS.sub("", output.text)
            elif PNG in output.get("data", {}):
                output.data[PNG] = smaller(output.data[PNG])


def smaller(picture: str) -> str:
    """A picture (PNG, base64) with at most 64 colours, which takes about a third of the space."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
        image.convert("RGB").quantize(64).save(buffer, "png", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def main() -> None:
    """Execute the notebooks that are named, or all of them, and write them."""
    names = sys.argv[1:]
    for path in paths():
        if names and path.stem not in names:
            continue
        print(f"{path.stem} ...", flush=True)
        notebook = read(path)
        with tempfile.TemporaryDirectory() as folder:
            execute(notebook, Path(folder))
        nbformat.write(notebook, path)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
