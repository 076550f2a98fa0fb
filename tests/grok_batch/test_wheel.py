"""The wheel: it has every file that the commands need, and works outside a checkout."""

import os
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from actors.protocol.version import VERSION
from tests.jobs.runs import ROOT

PACKAGES = ("grok_batch", "jobs", "pipeline", "actors")
ROWS = 300  # of the demo


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the wheel of the tracked files, built in a folder of its own."""
    source = tmp_path_factory.mktemp("source")
    names = subprocess.run(
        ["git", "ls-files", "-z", "--", *PACKAGES, "pyproject.toml", "README.md", "LICENSE"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    for name in filter(None, names):
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())

    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "--disable-pip-version-check"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(source)], check=True)
    [path] = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns `grok-batch` of an environment with the wheel, and the packages of this one."""
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = environment / "lib" / version / "site-packages"
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    command += [f"--python={python}", "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(command, cwd=environment, env=outside_environment(), check=True)
    # After the wheel's own: the checkout on this environment's path is not passed on.
    (packages / "packages.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return environment / "bin" / "grok-batch"


def run(program: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs `grok-batch` in a folder, as a user without a checkout."""
    return subprocess.run(
        [str(program), *arguments],
        cwd=folder,
        env=outside_environment() | {"RAY_ADDRESS": "local"},
        capture_output=True,
        text=True,
        check=False,
    )


def outside_environment() -> dict[str, str]:
    """Returns the environment of a process that cannot import this checkout."""
    return {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}


def test_wheel_has_every_tracked_file_of_the_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        contained = set(archive.namelist())
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "--", *PACKAGES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    assert {name for name in tracked if name} <= contained


def test_newest_section_of_the_changelog_is_the_version() -> None:
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert re.fullmatch(rf"{re.escape(VERSION)}( .*)?", headings[0]), headings[0]


def test_tag_of_the_commit_is_the_version() -> None:
    done = subprocess.run(
        ["git", "tag", "--points-at", "HEAD", "--list", "v*"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(done.stdout.split()) <= {f"v{VERSION}"}


def test_names_of_images_and_archives_have_the_version() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    files = [path for path in (ROOT / "infra").rglob("*") if path.is_file()]
    versions: set[str] = set()
    for path in [*pages, *files]:
        text = path.read_text(errors="ignore")
        versions.update(re.findall(r"grok-batch[:-](\d+\.\d+\.\d+)", text))
    assert versions == {VERSION}


def test_installed_program_has_a_version(program: Path, tmp_path: Path) -> None:
    done = run(program, tmp_path, "--version")
    assert (done.returncode, done.stdout) == (0, f"grok-batch {VERSION}\n")


def test_installed_program_plans_the_demo(program: Path, tmp_path: Path) -> None:
    """The demo's model, tokenizer and prompts are in the wheel."""
    packages = next((program.parents[1] / "lib").glob("python*")) / "site-packages"
    prompts = packages / "jobs" / "demo" / "prompts.parquet"
    arguments = ["-i", str(prompts), "-o", "run", "--model", "demo", "--max-tokens", "8"]
    done = run(program, tmp_path, "score", *arguments, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert re.search(rf"^rows +{ROWS}$", done.stdout, re.MULTILINE)
    assert list(tmp_path.iterdir()) == []


def test_installed_package_has_the_python_api(program: Path, tmp_path: Path) -> None:
    source = (
        "import grok_batch\n"
        "plan = grok_batch.plan(rows=1000, prompt_tokens=80, completion_tokens=20, gpu='h100')\n"
        "print(grok_batch.__file__, plan['rows'], grok_batch.score.__name__)\n"
    )
    done = subprocess.run(
        [str(program.with_name("python")), "-c", source],
        cwd=tmp_path,
        env=outside_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    path, *figures = done.stdout.split()
    assert Path(path).is_relative_to(program.parents[1])
    assert figures == ["1000", "score"]


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(900)
def test_demo_runs_in_an_empty_folder(program: Path, tmp_path: Path) -> None:
    done = run(program, tmp_path, "demo", "-o", "out")
    assert done.returncode == 0, done.stderr
    assert f"{ROWS} completions and {ROWS} scored rows" in done.stdout
    assert f"$ {program} score --input " in done.stdout
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["generate", "score"]
