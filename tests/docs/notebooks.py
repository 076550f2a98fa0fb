"""Runs the code cells of a notebook in one namespace, without Jupyter.

    python tests/docs/notebooks.py docs/python-api.ipynb [--write]

Prints what each cell prints, and the value of its last expression; `--write` stores it in the
notebook.
"""

import ast
import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any


def run_cell(source: str, namespace: dict[str, Any]) -> str:
    """Runs a cell and returns what it prints, the value of its last expression included."""
    tree = ast.parse(source)
    last: ast.Expression | None = None
    if tree.body and isinstance(tree.body[-1], ast.Expr):
        last = ast.Expression(tree.body.pop().value)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "<cell>", "exec"), namespace)
        if last is not None:
            value = eval(compile(last, "<cell>", "eval"), namespace)
            if value is not None:
                sys.stdout.write(f"{value!r}\n")
    return printed.getvalue()


def run_notebook(path: Path, *, writes_outputs: bool) -> None:
    """Runs all code cells of a notebook in order."""
    notebook = json.loads(path.read_text())
    namespace: dict[str, Any] = {"__name__": "__main__"}
    count = 0
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        count += 1
        text = run_cell("".join(cell["source"]), namespace)
        sys.stdout.write(text)
        cell["execution_count"] = count
        lines = text.splitlines(keepends=True)
        cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": lines}]
    if writes_outputs:
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    run_notebook(Path(sys.argv[1]).resolve(), writes_outputs="--write" in sys.argv)
