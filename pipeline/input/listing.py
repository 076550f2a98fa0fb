"""The files of an input: which of a folder are read, with their rows and columns, and which not.

A file is read if its suffix is that of a format. Files whose names or suffixes mark them as no data
are skipped, and are part of the result. Everything else stops the run before it starts: no row is
left out in silence.
"""

import posixpath
import re
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from actors.protocol.plain_text import bare
from pipeline import storage
from pipeline.errors import ConfigError, DatasetError
from pipeline.input import formats
from pipeline.input.partitions import is_partition, partitions
from pipeline.input.read_ahead import read_ahead
from pipeline.records import InputFile, Partition
from pipeline.storage.urls import path_of

GLOB_CHARACTERS = "*?["
# Files beside data that people and tools leave in folders.
DOCUMENT_SUFFIX = re.compile(
    r"\.(md|rst|txt|html?|pdf|log|out|err|ya?ml|toml|ini|cfg|conf|xml|css|js|py|ipynb|sh|sql"
    r"|png|jpe?g|gif|svg|crc|md5|sha1|sha256|lock|license|gitignore)"
)
# JSON beside data: of runs, of reports, and of Hugging Face Datasets.
METADATA_NAME = re.compile(
    r"(run|report|metrics|statistics|sources|dataset_infos?|dataset_dict|state|croissant)\.json"
)
MAX_NAMED = 5  # skipped files that a message names
SIGNATURE_BYTES = 64
PARQUET_SIGNATURE = b"PAR1"


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """A file of the input folder that is not read."""

    path: str  # below the input folder
    reason: str


@dataclass(frozen=True, slots=True)
class InputListing:
    """The input of a run."""

    files: tuple[InputFile, ...]
    skipped: tuple[SkippedFile, ...] = ()


@dataclass(frozen=True, slots=True)
class _Entry:
    """An object at the input URL."""

    url: str
    # Of the object below the input folder. Of a glob, what its wildcards match.
    path: str
    stored: storage.StoredObject | None = None
    irregular: str = ""  # why there are no bytes to read


def describe_skipped(skipped: Sequence[SkippedFile]) -> str:
    """Returns one sentence about the files that are not read."""
    named = [f"{file.path} ({file.reason})" for file in skipped[:MAX_NAMED]]
    beyond = len(skipped) - len(named)
    if beyond:
        named.append(f"{beyond:,} more")
    files = "file" if len(skipped) == 1 else "files"
    return f"skipped {len(skipped):,} {files} of the input: {', '.join(named)}"


def list_input(url: str, limit: int | None = None) -> tuple[InputFile, ...]:
    """Returns the files of `read_listing`."""
    return read_listing(url, limit).files


def read_listing(
    url: str,
    limit: int | None = None,
    output: str | None = None,
    other_outputs: Sequence[str] = (),
) -> InputListing:
    """Lists the input, and reads the rows and columns of its files.

    Args:
        url: a file, a glob, or a folder at any fsspec URL. Files at any depth of a folder are read.
            Folders named `column=value` give columns. Names that begin with `_` or `.` are skipped,
            except those of such folders.
        limit: number of rows that are needed in all: files beyond are not opened and not part of
            the result.
        output: output folder of the run, which is no input where it lies below the input folder.
        other_outputs: the same of runs that this one verifies or copies rows from.

    Raises:
        ConfigError: the output folder is the input folder.
        DatasetError: nothing there, no rows, no permission, a damaged file, or a file that looks
            like data and cannot be read (which is named).
    """
    entries, skipped = _select(url, _output_folders(storage.canonical(url), output, other_outputs))
    if not entries:
        raise DatasetError(f"no input at {bare(url)}: {_absence(skipped)}; check the path")
    partition_of = partitions(entry.path for entry in entries)
    files: list[InputFile] = []
    rows = 0
    with closing(_inspected(entries, partition_of, limit)) as inspected:
        for file in inspected:
            if files and file.columns == files[0].columns:
                # One object for all: those of 100,000 files of 20 columns would take 400 MB.
                files.append(replace(file, columns=files[0].columns))
            else:
                files.append(file)
            rows += file.rows
            if limit is not None and rows >= limit:
                break
    if not rows:
        raise DatasetError(f"the input at {bare(url)} has no rows ({len(files)} files)")
    return InputListing(tuple(files), tuple(skipped))


def _inspected(
    entries: Sequence[_Entry], partition_of: Sequence[Partition], limit: int | None
) -> Generator[InputFile]:
    """Yields the files with their rows and columns, a few of them opened ahead."""

    def inspect(index: int) -> InputFile:
        stored = entries[index].stored
        assert stored is not None
        source = formats.SourceFile(stored.url, stored.version, stored.size)
        summary = formats.inspect(source, limit)
        return InputFile(
            stored.url,
            stored.size,
            stored.version,
            summary.rows,
            partition=partition_of[index],
            columns=summary.columns,
        )

    yield from read_ahead(inspect, range(len(entries)))


def _select(url: str, outputs: tuple[str, ...]) -> tuple[list[_Entry], list[SkippedFile]]:
    """Returns the objects at `url` that are input, and the others.

    Args:
        url: of the input.
        outputs: prefixes of objects of output folders.

    Raises:
        DatasetError: an object looks like data and cannot be read.
    """
    root = storage.canonical(url)
    selected: list[_Entry] = []
    unnamed: list[_Entry] = []  # their names do not say what they hold
    skipped: list[SkippedFile] = []
    for entry in _entries(url, root):
        if entry.url.startswith(outputs):
            skipped.append(SkippedFile(entry.path, "in the output folder"))
            continue
        reason = _reason_to_skip(entry)
        if reason is not None:
            skipped.append(SkippedFile(entry.path, reason))
            continue
        _check_name(entry)
        if entry.irregular:
            raise DatasetError(f"{bare(entry.url)} is {entry.irregular}; repair or remove it")
        if formats.has_known_suffix(entry.url):
            selected.append(entry)
        else:
            unnamed.append(entry)

    for entry, is_data in zip(unnamed, read_ahead(_is_parquet, unnamed), strict=True):
        if is_data:
            selected.append(entry)
        else:
            skipped.append(SkippedFile(entry.path, "a document"))
    selected.sort(key=lambda entry: entry.url)
    return selected, skipped


def _entries(url: str, root: str) -> list[_Entry]:
    """Returns everything at `url`, with the part of its path that rules apply to."""
    stored_of = {stored.url: stored for stored in storage.list_objects(url)}
    reason_of = {irregular.url: irregular.reason for irregular in storage.list_irregular(url)}
    urls = sorted(stored_of.keys() | reason_of.keys())
    is_one_file = urls == [root]
    is_folder = any(entry_url.startswith(f"{root}/") for entry_url in urls)

    entries: list[_Entry] = []
    for entry_url in urls:
        if is_one_file:
            path = ""
        elif is_folder:
            path = entry_url.removeprefix(f"{root}/")
        else:
            path = _matched_part(entry_url, root)
        entry = _Entry(entry_url, path, stored_of.get(entry_url), reason_of.get(entry_url, ""))
        entries.append(entry)
    return entries


def _output_folders(root: str, output: str | None, other_outputs: Sequence[str]) -> tuple[str, ...]:
    """Returns the prefixes of the objects of output folders that lie below the input folder.

    Raises:
        ConfigError: the output folder is the input folder.
    """
    if output is not None and storage.canonical(output) == root:
        raise ConfigError(
            f"--output {bare(output)} is the input folder itself; choose a folder of "
            "its own for the output"
        )
    outputs = list(other_outputs)
    if output is not None:
        outputs.append(output)
    prefixes: list[str] = []
    for folder in map(storage.canonical, outputs):
        prefix = _output_prefix(root, folder)
        if prefix is not None:
            prefixes.append(prefix)
    return tuple(prefixes)


def _output_prefix(root: str, folder: str) -> str | None:
    """Returns the prefix of the objects of an output folder below the input folder, else None.

    The output of an older run may be the input itself.
    """
    if folder == root:
        return None
    fixed = _fixed_part(root)
    if folder == fixed:
        return f"{folder}/data/"
    if folder.startswith(f"{fixed}/"):
        return f"{folder}/"
    return None


def _fixed_part(root: str) -> str:
    """Returns the folder that a glob begins with; of another URL, all of it."""
    folders = root.split("/")
    for index, folder in enumerate(folders):
        if any(character in folder for character in GLOB_CHARACTERS):
            return "/".join(folders[:index])
    return root


def _matched_part(url: str, pattern: str) -> str:
    """Returns the path of an object from the first wildcard of the pattern on."""
    return url.removeprefix(f"{_fixed_part(pattern)}/")


def _reason_to_skip(entry: _Entry) -> str | None:
    """Returns why a file of a folder or glob is not input; None if it is, or has to be opened."""
    if not entry.path:
        return None  # named by itself
    *folders, name = entry.path.split("/")
    for folder in folders:
        if _is_hidden(folder) and not (folder.startswith("_") and is_partition(folder)):
            return "in a hidden folder"
    if _is_hidden(name):
        return "hidden"
    if METADATA_NAME.fullmatch(name):
        return "metadata"
    if entry.irregular or formats.has_known_suffix(entry.url):
        return None
    if entry.stored is not None and entry.stored.size == 0:
        return "empty"
    if DOCUMENT_SUFFIX.fullmatch(posixpath.splitext(name.lower())[1]):
        return "a document"
    return None


def _is_hidden(name: str) -> bool:
    return name.startswith(("_", "."))


def _check_name(entry: _Entry) -> None:
    """Rejects a name that is not UTF-8: ids, run.json and reports cannot hold it."""
    try:
        entry.url.encode()
    except UnicodeEncodeError:
        readable = entry.url.encode(errors="surrogateescape").decode(errors="backslashreplace")
        raise DatasetError(
            f"the name of {readable} is not valid UTF-8; rename the file or its folder"
        ) from None


def _is_parquet(entry: _Entry) -> bool:
    """Returns whether a file of unknown suffix is Parquet; False for text that is not data.

    Raises:
        DatasetError: it is neither, or text that was named by itself.
    """
    stored = entry.stored
    assert stored is not None
    with storage.open_object(stored.url, version=stored.version, size=stored.size) as stream:
        head = stream.read(SIGNATURE_BYTES)
    if head.startswith(PARQUET_SIGNATURE):
        return True
    suffix = posixpath.splitext(path_of(stored.url))[1]
    is_text = b"\0" not in head and not head.lstrip().startswith((b"{", b"["))
    if entry.path and not suffix and is_text:
        return False
    expected = ", ".join(formats.SUFFIXES)
    raise DatasetError(
        f"{bare(stored.url)} may be data, but its name does not say in which format "
        f"it is: rename it ({expected}; text also compressed, as .jsonl.gz), convert it or leave "
        "it out"
    )


def _absence(skipped: Sequence[SkippedFile]) -> str:
    if not skipped:
        return "nothing is there"
    first = skipped[0]
    return f"none of its {len(skipped)} files is data (such as {bare(first.path)}: {first.reason})"
