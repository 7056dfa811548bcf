"""The notebook runs from top to bottom on a real run, and its last cell finds the AUC that TFMA says."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.slow

NOTEBOOK = Path(__file__).parents[2] / "docs/notebooks/run.ipynb"


def test_the_notebook_runs(ran, monkeypatch):
    monkeypatch.setenv("RECSYS_CONFIG", str(ran.config))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "kept without outputs"
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    (last,) = [o.text for o in notebook.cells[-1].outputs if o.output_type == "stream" and o.name == "stdout"]
    assert "says TFMA" in last
