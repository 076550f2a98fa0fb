"""The repository: lock files, README, import contracts, picklable errors, no personal data."""

import ast
import functools
import inspect
import os
import pickle
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import actors.protocol.errors
import pipeline.errors
from tests.docs.blocks import LANGUAGES, blocks
from tests.type_checks import WITHOUT_ARRAYS

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("pipeline", "actors", "jobs", "grok_batch")
TEXT_FILES = {
    ".py",
    ".md",
    ".toml",
    ".yaml",
    ".yml",
    ".json",
    ".jsonl",
    ".sh",
    ".tf",
    ".lock",
    ".ini",
    ".cfg",
    "",
}
TOP_FOLDERS = ("pipeline", "actors", "jobs", "grok_batch", "infra", "tests", "docs")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONTRACTS = [contract["id"] for contract in PROJECT["tool"]["importlinter"]["contracts"]]


def text_files() -> Iterator[Path]:
    """Yields the files of the repository that hold text, whether or not this is a git checkout."""
    for top in sorted(ROOT.iterdir()):
        if (top.name.startswith(".") and top.name not in {".ci", ".gitignore"}) or top.name in {
            "runs",
            "build",
            "dist",
        }:
            continue
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            if (
                path.is_file()
                and path.suffix in TEXT_FILES
                and not {"__pycache__", "ckpt-0"} & set(path.parts)
            ):
                yield path


def direct_requirements(extra: str) -> list[Requirement]:
    project = PROJECT["project"]
    return [
        Requirement(line)
        for line in project["dependencies"] + project["optional-dependencies"][extra]
    ]


@pytest.mark.parametrize(
    ("lock", "extra"), [("requirements.lock", "dev"), ("requirements-cuda12.lock", "cuda12")]
)
def test_lock_file_pins_every_direct_dependency_with_hashes(lock: str, extra: str) -> None:
    entries = re.split(r"\n(?=[a-zA-Z0-9])", (ROOT / lock).read_text())
    pinned = {
        match[1]: (match[2], entry)
        for entry in entries
        if (match := re.match(r"([\w.-]+)==([^\s;]+)", entry))
    }
    for requirement in direct_requirements(extra):
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        assert name in pinned, f"{name} is missing from {lock}: run make lock"
        assert requirement.specifier.contains(pinned[name][0]), (
            f"{lock} pins {name} {pinned[name][0]}: run make lock"
        )
    assert [name for name, (_, entry) in pinned.items() if "--hash=sha256:" not in entry] == []


def test_lock_file_of_stores_pins_its_extras_with_hashes() -> None:
    text = (ROOT / "requirements-stores.lock").read_text()
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+) \\\n +--hash=sha256:", text, re.MULTILINE))
    extras = PROJECT["project"]["optional-dependencies"]
    for line in extras["gcs"] + extras["azure"] + extras["hf"]:
        requirement = Requirement(line)
        assert requirement.specifier.contains(pinned[requirement.name]), "run make lock"


def test_both_lock_files_pin_the_same_versions() -> None:
    cpu, gpu = (
        dict(re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / name).read_text(), re.MULTILINE))
        for name in ("requirements.lock", "requirements-cuda12.lock")
    )
    assert {
        name: (cpu[name], gpu[name]) for name in cpu.keys() & gpu.keys() if cpu[name] != gpu[name]
    } == {}


def documentation() -> list[Path]:
    return [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "infra" / "README.md",
        *sorted((ROOT / "docs").rglob("*.md")),
    ]


def test_blocks_of_the_documentation_have_a_language() -> None:
    """`bash` for commands, `text` for output: tests/docs runs or checks each block by it."""
    unknown = {str(block): block.language for block in blocks() if block.language not in LANGUAGES}
    assert unknown == {}


def test_pages_of_the_documentation_are_in_the_navigation() -> None:
    navigation = (ROOT / "infra" / "site" / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    named = set(re.findall(r"([\w/-]+\.md)$", navigation, re.MULTILINE))
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert pages - named == set(), "add the page to infra/site/mkdocs.yml"


def test_commands_of_the_documentation_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = "\n".join(page.read_text() for page in documentation())
    # In code only (a line of a block, or after a backtick), so that "make sure" in a sentence is no
    # command.
    named = set(re.findall(r"(?:^|`)make ([a-z][a-z-]*)\b", text, re.MULTILINE))
    assert {"demo", "test", "check", "fix"} <= named
    assert named <= targets
    scripts = set(re.findall(r"python (jobs/[\w/]+\.py)", text))
    assert "jobs/score_dataset.py" in scripts
    assert [script for script in sorted(scripts) if not (ROOT / script).is_file()] == []


def test_links_of_the_documentation_exist() -> None:
    for page in documentation():
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def anchors(page: Path) -> set[str]:
    """Returns the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    slugs = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {slug.replace(" ", "-") for slug in slugs}


def test_anchors_of_the_documentation_exist() -> None:
    for page in documentation():
        for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", page.read_text()):
            linked = page.parent / target if target else page
            where = f"{page.relative_to(ROOT)} links to {target}#{anchor}"
            assert anchor in anchors(linked), where


def missing_paths(text: str, known_paths: Collection[str]) -> list[str]:
    """Returns the names in backticks that look like a path of the repository and match none.

    Paths are written from the root of the repository, those of tests also from `tests/`, or are
    shortened from the left (`engine/steps.py`). `{a,b}`, `*` and `<name>` stand for any text.
    """
    missing = []
    for name in re.findall(r"`([\w./{},<>*-]+)`", text):
        is_from_root = name.split("/")[0] in TOP_FOLDERS and "/" in name
        if not is_from_root and not name.endswith((".py", ".j2")):
            continue
        pattern = re.escape(name.rstrip("/"))
        pattern = re.sub(r"\\\{.*?\\\}|<.*?>|\\\*", "[^/]*", pattern)
        start = "(.*/)?"
        if is_from_root:
            start = "(tests/)?" if "/test_" in name else ""
        if not any(re.fullmatch(start + pattern, path) for path in known_paths):
            missing.append(name)
    return missing


@functools.cache
def repository_paths() -> frozenset[str]:
    """Returns the files and folders of the repository, as paths from its root."""
    paths = set(TOP_FOLDERS)
    for folder in TOP_FOLDERS:
        paths.update(str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob("*"))
    return frozenset(paths)


@pytest.mark.parametrize("page", documentation(), ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_of_the_documentation_exist(page: Path) -> None:
    assert missing_paths(page.read_text(), repository_paths()) == []


@pytest.mark.parametrize(
    ("name", "is_missing"),
    [
        ("pipeline/input/formats.py", True),
        ("pipeline/input/formats/", False),
        ("formats/jsonl.py", False),
        ("formats/csv.py", True),
        ("jobs/*.py", False),
        ("actors/kernels/{xla,gpu}/platform.py", False),
        ("actors/kernels/<platform>/platforms.py", True),
        ("RUN/data", False),
    ],
)
def test_missing_path_of_the_documentation_is_found(name: str, is_missing: bool) -> None:
    missing = missing_paths(f"see `{name}`", repository_paths())
    assert missing == ([name] if is_missing else [])


def test_tests_named_in_the_documentation_exist() -> None:
    """A name that ends in an ellipsis is the beginning of one."""
    test_sources = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]
    names = set(re.findall(r"^ *def (test_\w+)", "\n".join(test_sources), re.MULTILINE))
    for page in documentation():
        for name in re.findall(r"`(test_\w+…?)`", page.read_text()):
            start = name.removesuffix("…")
            is_known = any(known.startswith(start) for known in names)
            assert start in names or (name != start and is_known), f"{page.name}: {name}"


def test_deviations_from_the_reference_are_marked_and_listed() -> None:
    """Every `# grok-1:` in the code has its row in docs/model.md, and every row its mark."""
    marked = {
        str(path.relative_to(ROOT)): marks
        for name in PACKAGES
        for path in sorted((ROOT / name).rglob("*.py"))
        if (marks := len(re.findall(r"# grok-1:", path.read_text())))
    }
    listed = re.findall(
        r"^\|[^|]+\|[^|]+\| `([a-z]+/[\w/]+\.py)` \|$",
        (ROOT / "docs" / "model.md").read_text(),
        re.MULTILINE,
    )
    assert {path: listed.count(path) for path in listed} == marked


def test_test_names_have_a_subject_and_a_behaviour() -> None:
    """A name is a subject and its behaviour: three words or more, in at most 70 characters."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for name in re.findall(r"^ *def (test_\w*)\(", path.read_text(), re.MULTILINE):
            assert len(name) <= 70, f"{path.relative_to(ROOT)}: {name}"
            assert re.fullmatch(r"test(_[a-z0-9]+){3,}", name), f"{path.relative_to(ROOT)}: {name}"


# Modules without a test file of their own, with the reason.
COMMANDS = "a command of a page: its tests are those of the library that it calls"
PROTOCOL = "a protocol: its implementations are tested"
UNTESTED_MODULES = {
    "jobs/benchmark.py": COMMANDS,
    "jobs/benchmark_checkpoint.py": COMMANDS,
    "jobs/benchmark_driver.py": COMMANDS,
    "jobs/benchmark_pipeline.py": COMMANDS,
    "jobs/check_gpu.py": COMMANDS,
    "jobs/convert_checkpoint.py": COMMANDS,
    "jobs/make_demo.py": COMMANDS,
    "jobs/smoke.py": COMMANDS,
    "jobs/verify_checkpoint.py": COMMANDS,
    "grok_batch/__main__.py": "two lines: test_wheel.py and test_console.py run what it calls",
    "actors/kernels/cpu/ffn.py": "machine code that test_experts.py runs",
    "pipeline/dispatch/replicas.py": PROTOCOL,
    "pipeline/evals/execution/sandbox_child.py": "a program that test_sandbox.py runs",
    "pipeline/input/formats/format.py": PROTOCOL,
    "pipeline/tasks/task.py": PROTOCOL,
}


def test_every_module_has_its_test_file() -> None:
    """Tests mirror the tree: `jobs/run/plan.py` is tested in `tests/jobs/run/test_plan.py`."""
    untested: set[str] = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            module = path.relative_to(ROOT)
            test_file = ROOT / "tests" / module.with_name(f"test_{module.name}")
            if module.name != "__init__.py" and not test_file.exists():
                untested.add(str(module))
    assert untested == set(UNTESTED_MODULES)


def test_every_part_of_the_engine_is_type_checked_in_tests() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    options = settings["tool"]["pytest"]["ini_options"]["addopts"]
    (option,) = [option for option in options if option.startswith("--jaxtyping-packages=")]
    *checked, _checker = option.partition("=")[2].split(",")

    engine = ROOT / "actors" / "engine"
    for path in engine.iterdir():
        is_package = (path / "__init__.py").exists()
        is_module = path.suffix == ".py" and path.stem != "__init__"
        name = f"actors.engine.{path.stem}"
        if is_package or is_module:
            assert (name in checked) != (name in WITHOUT_ARRAYS), name
    for name in WITHOUT_ARRAYS:
        for path in (ROOT / name.replace(".", "/")).rglob("*.py"):
            assert "jaxtyping" not in path.read_text(), path


def test_package_folders_have_init_files() -> None:
    folders = {path.parent for name in PACKAGES for path in (ROOT / name).rglob("*.py")}
    assert [
        str(folder) for folder in sorted(folders) if not (folder / "__init__.py").is_file()
    ] == []


def lint_imports(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the linter on the packages in `folder`, whatever else is importable."""
    program = [
        str(Path(sys.executable).parent / "lint-imports"),
        "--no-logo",
        "--no-cache",
        *arguments,
    ]
    environment = os.environ | {"PYTHONPATH": str(folder)}
    return subprocess.run(
        program, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_import_contracts_are_kept() -> None:
    linted = lint_imports(ROOT)
    assert linted.returncode == 0, linted.stdout + linted.stderr


VIOLATIONS = {
    "layers": ("actors/protocol/size_buckets.py", "import pipeline.records"),
    "job-layers": ("jobs/run/plan.py", "import jobs.synthesis.config"),
    "pipeline-layers": ("pipeline/storage/client.py", "import pipeline.input.reader"),
    "replica-layers": ("actors/model/config.py", "import actors.engine.config"),
    "driver": ("pipeline/records.py", "import ray"),
    "device": ("actors/engine/config.py", "import pyarrow"),
    "weights": ("actors/weights/digest.py", "import ray"),
    "simulation": ("actors/engine/scheduling/pages.py", "import jax"),
    "stages": ("pipeline/input/reader.py", "import pipeline.output.writer"),
    "protocol": ("actors/protocol/errors.py", "import numpy"),
}


@pytest.mark.parametrize("contract", CONTRACTS)
def test_import_contract_is_broken_by_a_forbidden_import(contract: str, tmp_path: Path) -> None:
    for name in PACKAGES:
        shutil.copytree(
            ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "ckpt-0")
        )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    assert lint_imports(tmp_path, "--contract", contract).returncode == 0
    module, line = VIOLATIONS[contract]
    with (tmp_path / module).open("a") as file:
        file.write(f"\n{line}\n")
    linted = lint_imports(tmp_path, "--contract", contract)
    assert linted.returncode == 1, linted.stdout + linted.stderr
    assert "BROKEN" in linted.stdout


def test_driver_process_never_imports_jax() -> None:
    """The contracts see imports that are written down.

    This sees the ones that happen, those inside functions excepted.
    """
    paths = [
        path.relative_to(ROOT)
        for path in sorted((ROOT / "pipeline").rglob("*.py"))
        if path.stem != "__init__"
    ]
    names = [".".join(path.with_suffix("").parts) for path in paths if path.stem != "sandbox_child"]
    names += ["actors.pool.replica_pool", "actors.replica", "jobs.score_dataset"]
    modules = ", ".join(names)
    accelerator_packages = "('jax', 'jaxlib', 'haiku')"
    program = (
        f"import sys, {modules}; "
        f"print(sorted(m for m in sys.modules if m.split('.')[0] in {accelerator_packages}))"
    )
    imported = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert imported.stdout.strip() == "[]", imported.stdout + imported.stderr


def error_classes() -> list[type[Exception]]:
    modules = (actors.protocol.errors, pipeline.errors)
    found = [
        cls
        for module in modules
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if issubclass(cls, Exception)
    ]
    return sorted(set(found), key=lambda cls: cls.__name__)


@pytest.mark.parametrize("error", error_classes())
def test_errors_survive_pickling_with_their_message(error: type[Exception]) -> None:
    message = "row 7 of part-0.parquet: prompt is null; fill it or drop the row"
    copy = pickle.loads(pickle.dumps(error(message)))
    assert type(copy) is error
    assert str(copy) == message
    assert issubclass(error, actors.protocol.errors.GrokBatchError)


def test_error_codes_differ() -> None:
    codes = [
        cls.code for cls in error_classes() if issubclass(cls, actors.protocol.errors.RequestError)
    ]
    assert len(codes) == len(set(codes)) >= 8


MACHINE_PATHS = re.compile(
    r"(?:^|[^A-Za-z0-9_.$}/])/(?:tmp|work|root|home|farm|Users)/[A-Za-z0-9._-]+/"
)
PACKAGE_ADDRESSES = re.compile(r"index[-]url|/simple[/]|https?://[^ ]+\.(?:whl|tgz|tar\.gz|deb)")
LOOSE_ENDS = re.compile(r"\b(?:TODO|FIXME|XXX|NotImplementedError)\b|pytest\.mark\.(?:skip|xfail)")


def patched_names(source: str) -> list[str]:
    """Returns the calls of `setattr` of a monkeypatch that may replace a name of our own.

    Names of modules and classes of other packages are left out: those of the standard library and
    of dependencies stand for the world around the program.
    """
    tree = ast.parse(source)
    foreign_names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [(alias.asname or alias.name, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [(alias.asname or alias.name, str(node.module)) for alias in node.names]
        else:
            continue
        for name, module in modules:
            if module.split(".")[0] not in (*PACKAGES, "tests", "infra"):
                foreign_names.add(name.split(".")[0])

    patched: list[str] = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr == "setattr" and ast.unparse(node.args[0]).split(".")[0] in foreign_names:
            continue
        if node.func.attr == "setattr":
            patched.append(", ".join(map(ast.unparse, node.args[:2])))
    return patched


# What an argument cannot replace, with the reason.
PATCHED_NAMES = {
    # S3 in memory, in one place: every module reaches storage through this function
    "tests/memory_s3.py": ["s3, 'filesystem'"],
    # a driver that dies within a stage: the crash points are inner functions of the stages
    "tests/pipeline/output/test_crash_points.py": ["owner, name"],
    # of libraries, through an object
    "tests/actors/test_replica.py": ["type(memory), 'cat_file'"],
    "tests/actors/weights/test_checkpoint.py": ["type(memory), 'cat_file'"],
    "tests/actors/weights/test_pickle_reader.py": ["main, 'QuantizedWeight8bit'"],
    "tests/pipeline/storage/test_client.py": ["type(fs), '_call_s3'", "fs, 'pipe_file'"],
}


def test_tests_pass_fakes_as_arguments_instead_of_patching() -> None:
    patched: dict[str, list[str]] = {}
    for path in sorted((ROOT / "tests").rglob("*.py")):
        names = patched_names(path.read_text())
        if names:
            patched[str(path.relative_to(ROOT))] = names
    assert patched == PATCHED_NAMES


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import os\nmonkeypatch.setattr(os, 'link', fail)", []),
        ("from pathlib import Path\npatch.setattr(Path, 'unlink', fail)", []),
        ("from jobs.run import report\npatch.setattr(report, 'render', f)", ["report, 'render'"]),
        ("patch.setattr('pipeline.run.run', fail)", ["'pipeline.run.run', fail"]),
        ("from pipeline.storage.s3 import os\npatch.setattr(os, 'link', fail)", ["os, 'link'"]),
    ],
)
def test_patch_of_our_own_names_is_found(source: str, names: list[str]) -> None:
    assert patched_names(source) == names


def test_repository_contains_no_machine_paths() -> None:
    found = []
    for path in text_files():
        for number, line in enumerate(path.read_text().splitlines(), 1):
            patterns = (MACHINE_PATHS, PACKAGE_ADDRESSES, LOOSE_ENDS)
            if path != Path(__file__) and any(pattern.search(line) for pattern in patterns):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert found == []


def test_licence_is_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License\n                           Version 2.0, January 2004" in text
    assert [number for number in range(1, 10) if f"\n   {number}. " not in text] == []
    assert "END OF TERMS AND CONDITIONS" in text
    assert PROJECT["project"]["license"] == "Apache-2.0"


def test_ci_runs_the_tests() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert "make test" in (ROOT / ".ci" / "run").read_text()
