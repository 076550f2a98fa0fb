"""Draws docs/images/run.svg: a terminal in which a run of the demo model has just ended.

    .venv/bin/python docs/images/draw_run.py

Runs the command in pseudo-terminals of 80 columns, in an empty folder, and draws what it prints: of
the live view the last frame in which the run was running.
"""

import io
import os
import re
import selectors
import shlex
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = 80
COMMAND = "grok-batch score -C jobs/configs/complete.yaml"
CONSOLE = "import sys; from grok_batch.console import run; sys.argv[0] = 'grok-batch'; run()"
CONTROL = re.compile(r"\x1b\[\??\d*[A-HJKhl]|\r")
FRAME_LINES = 2
# rich's own format loads a font from another host
SVG = """<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}"
height="{terminal_height}"/></clipPath>{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g>
</g>
</svg>
"""


def run(command: str, folder: Path) -> tuple[str, str]:
    """Runs a command in a terminal; returns what it writes to stdout and to stderr."""
    terminals = [os.openpty(), os.openpty()]
    for _, device in terminals:
        termios.tcsetwinsize(device, (40, COLUMNS))
    words = shlex.split(command)
    assert words[0] == "grok-batch"
    variables = {"TERM": "xterm-256color", "RAY_ADDRESS": "local", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", CONSOLE, *words[1:]],
        cwd=folder,
        env=os.environ | variables,
        stdout=terminals[0][1],
        stderr=terminals[1][1],
    )
    for _, device in terminals:
        os.close(device)

    written = {reader: b"" for reader, _ in terminals}
    with selectors.DefaultSelector() as selector:
        for reader in written:
            selector.register(reader, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                data = _read(key.fd)
                written[key.fd] += data
                if not data:
                    selector.unregister(key.fd)
    code = process.wait()
    stdout, stderr = (data.decode() for data in written.values())
    assert code == 0, stderr
    return stdout, stderr


def _read(reader: int) -> bytes:
    try:
        return os.read(reader, 65536)
    except OSError:  # Linux's end of a terminal whose other side is closed
        return b""


def last_frame(stderr: str) -> list[str]:
    """Returns the lines of the live view while the run was running, at its end."""
    lines = [CONTROL.sub("", line) for line in re.split(r"\n|\x1b\[2K", stderr)]
    lines = [line for line in lines if line.strip()]
    last = max(number for number, line in enumerate(lines) if "running" in line)
    return lines[last : last + FRAME_LINES]


def main() -> None:
    """Runs the commands and writes the picture."""
    console = Console(
        record=True,
        width=COLUMNS,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "jobs").symlink_to(ROOT / "jobs")
        stdout, stderr = run(COMMAND, folder)
    # as the summary names the program where it is installed
    stdout = stdout.replace(f"{sys.executable} -m grok_batch", "grok-batch")

    console.print(Text(f"$ {COMMAND}", style="bold green"))
    for line in last_frame(stderr):
        console.print(Text.from_ansi(line))
    console.print()
    console.print(Text.from_ansi(stdout.replace("\r", "").strip("\n")))
    svg = console.export_svg(title="grok-batch", theme=MONOKAI, code_format=SVG, unique_id="run")
    (ROOT / "docs" / "images" / "run.svg").write_text(svg)


if __name__ == "__main__":
    main()
