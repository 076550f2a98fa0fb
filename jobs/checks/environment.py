"""Checks what surrounds a run: memory, disks, the Ray cluster, credentials, the compile cache.

Every check is a generator: it yields lines to print and raises when a run would fail.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from actors.compile_cache import VARIABLE as CACHE_VARIABLE
from actors.compile_cache import compile_cache
from jobs.checks.smoke import SmokeError
from jobs.cluster.address import AUTO, LOCAL, configured_address, temporary_folders
from jobs.cluster.authentication import configured_token
from jobs.cluster.probe import NoAnswerError, accepts
from pipeline import storage
from pipeline.storage.redaction import redact_credentials

MIN_FREE_BYTES = 2e9  # of the folder of Ray: logs, and objects that do not fit into memory
EXTRA_STORES = {"gs://": "gcsfs", "az://": "adlfs", "hf://": "huggingface_hub"}
# What names credentials for S3 without a request, with how to say it.
S3_VARIABLES = {
    "AWS_ACCESS_KEY_ID": "a key in the environment",
    "AWS_PROFILE": "a profile of the AWS configuration",
    "AWS_WEB_IDENTITY_TOKEN_FILE": "a web identity (Kubernetes)",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "the role of a container",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI": "the role of a container",
}


def machine(environment: Mapping[str, str], meminfo: Path = Path("/proc/meminfo")) -> Iterator[str]:
    """Yields cores, memory, and the free space of the folders that a run fills.

    Raises:
        SmokeError: the folder of a local Ray has too little space, or cannot be written.
    """
    memory = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    total_gb = _kib(memory["MemTotal"]) * 1024 / 1e9
    free_gb = _kib(memory["MemAvailable"]) * 1024 / 1e9
    yield f"{os.cpu_count()} cores, {total_gb:.1f} GB of memory, {free_gb:.1f} GB available"

    yield f"working folder {Path.cwd()}: {_free_text(Path.cwd())}"
    ray_folder = temporary_folders(environment)[0]
    yield f"folder of a local Ray {ray_folder}: {_free_text(ray_folder)}"
    if not os.access(ray_folder, os.W_OK):
        raise SmokeError(f"{ray_folder} cannot be written; set RAY_TMPDIR to a folder that can")
    if shutil.disk_usage(ray_folder).free < MIN_FREE_BYTES:
        raise SmokeError(
            f"{ray_folder} has {_free_text(ray_folder)}, expected {MIN_FREE_BYTES / 1e9:.0f} GB: "
            "make room, or set RAY_TMPDIR to a folder on another disk"
        )


def _kib(text: str) -> int:
    return int(text.split(maxsplit=1)[0])


def _free_text(folder: Path) -> str:
    return f"{shutil.disk_usage(folder).free / 1e9:,.1f} GB free"


def ray_cluster(environment: Mapping[str, str]) -> Iterator[str]:
    """Yields which Ray a run would use.

    Raises:
        ClusterConfigError: RAY_ADDRESS is not valid, or the token cannot be read.
        SmokeError: the cluster does not answer, or refuses the token.
    """
    address = configured_address(environment)
    if address is None or address == AUTO:
        yield "RAY_ADDRESS is not set: a run joins the Ray of `ray start` here, or starts its own"
        return
    if address == LOCAL:
        yield "RAY_ADDRESS=local: a run starts its own Ray"
        return

    try:
        accepted = accepts(address, configured_token(environment))
    except NoAnswerError as error:
        raise SmokeError(
            f"no Ray cluster answers at RAY_ADDRESS={address} ({error}); start it or unset it"
        ) from error
    if not accepted:
        raise SmokeError(
            f"the Ray cluster at {address} refuses the token; set RAY_AUTH_TOKEN to the output of "
            "`ray get-auth-token` on its head"
        )
    yield f"the cluster at {address} answers"


def object_stores(
    environment: Mapping[str, str], url: str | None, home: Path | None = None
) -> Iterator[str]:
    """Yields which object stores can be used, and lists `url` if there is one.

    Args:
        environment: variables with credentials.
        url: folder or file to list; None: no request is made.
        home: folder with `.aws`; None: that of the user.

    Raises:
        GrokBatchError: `url` cannot be listed; the message names the cause.
        SmokeError: nothing is at `url`.
    """
    yield f"s3://: {_s3_source(environment, home or Path.home())}"
    for scheme, package in EXTRA_STORES.items():
        if find_spec(package) is None:
            yield f"{scheme}: not installed; make stores, or pip install {package}"
        else:
            yield f"{scheme}: {package} is installed"
    if url is None:
        return

    count = len(storage.list_objects(url))
    if not count:
        raise SmokeError(f"nothing is at {redact_credentials(url)}; check the URL")
    yield f"{redact_credentials(url)}: {count:,} objects are listed"


def _s3_source(environment: Mapping[str, str], home: Path) -> str:
    endpoint = environment.get("AWS_ENDPOINT_URL")
    place = f", endpoint {redact_credentials(endpoint)}" if endpoint else ""
    for variable, source in S3_VARIABLES.items():
        if environment.get(variable):
            return f"{source} ({variable}){place}"
    file = Path(environment.get("AWS_SHARED_CREDENTIALS_FILE") or home / ".aws" / "credentials")
    if file.exists():
        return f"{file}{place}"
    return (
        "no credentials in the environment or in ~/.aws; on a machine of AWS its role is used, "
        "elsewhere set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" + place
    )


def program_cache(environment: Mapping[str, str]) -> Iterator[str]:
    """Yields where compiled programs are kept, and how many are there.

    Raises:
        ModelError: the limit of its size is not a number.
        SmokeError: the folder cannot be written: every run would compile again.
    """
    cache = compile_cache(environment)
    programs = [path for path in cache.folder.glob("*") if path.is_file()]
    size_gb = sum(path.stat().st_size for path in programs) / 1e9
    yield f"{cache.folder}: {len(programs):,} files, {size_gb:.2f} GB"
    if cache.url is not None:
        yield f"shared at {redact_credentials(cache.url)}"

    existing = cache.folder
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise SmokeError(
            f"{existing} cannot be written, so every run compiles its programs again; set "
            f"{CACHE_VARIABLE} to a folder that can, or to a URL"
        )
