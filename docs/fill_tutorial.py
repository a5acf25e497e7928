"""Run docs/tutorial.ipynb in an empty folder and save it with its outputs.

    python docs/fill_tutorial.py

The site and GitHub show the saved outputs, so that the page can be read without running it.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from base64 import b64decode, b64encode
from io import BytesIO
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell
from PIL import Image

NOTEBOOK = Path(__file__).with_name("tutorial.ipynb")

CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\r")
"""Codes of a terminal."""

CHARTS = "import altair\naltair.renderers.enable('png', scale_factor=1.5);"
"""Code that runs first: charts are saved as pictures, because GitHub and the site show no others."""

PROGRESS = re.compile(r"^.*━ +\d+%.*\n", re.MULTILINE)
"""Lines of progress bars."""


def run(notebook: Path, folder: Path) -> NotebookNode:
    """Run a notebook with the commands of this Python's environment.

    Args:
        notebook: the file.
        folder: working folder of the notebook, an empty one.

    Returns:
        The notebook with its outputs, without those that differ from run to run only by the machine: standard error,
        times of execution and the path of the folder.
    """
    content = nbformat.read(notebook, as_version=4)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    content.cells.insert(0, new_code_cell(CHARTS))
    client = NotebookClient(content, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    client.execute(env={**os.environ, "PATH": path, "TERM": "dumb"})
    del content.cells[0]
    for cell in content.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.execution_count = None
            outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            cell.outputs = [_clean(output, f"{folder.resolve()}/mylab/") for output in _join_streams(outputs)]
    return content


def _clean(output: NotebookNode, folder: str) -> NotebookNode:
    """Remove progress bars and the path of the folder from texts, and compress pictures."""
    if output.output_type == "stream":
        output.text = PROGRESS.sub("", CONTROL.sub("", output.text)).replace(folder, "")
    if output.output_type == "execute_result":
        output.execution_count = None
    data = output.get("data", {})
    if "image/png" in data:
        jpeg = BytesIO()
        Image.open(BytesIO(b64decode(data.pop("image/png")))).convert("RGB").save(jpeg, "JPEG", quality=85)
        data["image/jpeg"] = b64encode(jpeg.getvalue()).decode()
    return output


def _join_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join texts that follow one another: a process writes them in parts of any length."""
    joined: list[NotebookNode] = []
    for output in outputs:
        if joined and output.output_type == joined[-1].output_type == "stream":
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        executed = run(NOTEBOOK, Path(folder))
    nbformat.write(executed, NOTEBOOK)
