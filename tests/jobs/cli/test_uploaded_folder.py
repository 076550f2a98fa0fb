from dataclasses import dataclass
from pathlib import Path

import pytest

from jobs.cli.uploaded_folder import check_output_is_kept, uploaded_folder
from jobs.run.config import ScoreConfig
from pipeline.errors import ConfigError


@dataclass(frozen=True)
class Config:
    output: str | None


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a job that came by `ray job submit`."""
    folder = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_0123"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


def check(url: str | None) -> None:
    check_output_is_kept(Config(url), ["output"])


@pytest.mark.parametrize("url", ["runs/x", "./x", ".", "file://runs/x", "runs/s3:/x"])
def test_relative_output_of_a_submitted_job_is_an_error(url: str, package: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        check(url)
    assert str(caught.value) == (
        f"--output {url} is below {package}, which Ray unpacked for this job and deletes after it; "
        "give a URL, or an absolute path that is kept on the head's machine"
    )


def test_absolute_output_in_the_uploaded_folder_is_an_error(package: Path) -> None:
    with pytest.raises(ConfigError, match="deletes after it"):
        check(f"{package}/runs")


def test_output_outside_the_uploaded_folder_is_kept(package: Path, tmp_path: Path) -> None:
    (package / "runs").symlink_to(tmp_path)

    for url in (None, "", str(tmp_path / "x"), f"file://{tmp_path}/x", "s3://bucket/x", "runs/x"):
        check(url)


def test_relative_output_of_a_job_at_the_keyboard_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    check("runs/x")
    assert uploaded_folder(tmp_path) is None


@pytest.mark.usefixtures("package")
def test_main_job_refuses_output_that_ray_deletes() -> None:
    with pytest.raises(ConfigError, match="--output runs/x is below"):
        ScoreConfig(input="jobs/demo/prompts.parquet", output="runs/x", model="demo", max_tokens=8)
