import gzip
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import storage
from pipeline.errors import ConfigError, DatasetError
from pipeline.input.columns import inspect_columns
from pipeline.input.listing import SkippedFile, describe_skipped, list_input, read_listing
from pipeline.input.unique_ids import check_unique_ids
from pipeline.records import InputFile
from tests.memory_s3 import MemoryS3, serve
from tests.pipeline.input.input_files import COLUMNS


def write_parquet(url: str, rows: int) -> None:
    out = pa.BufferOutputStream()
    pq.write_table(
        pa.table({"id": [f"{url[-9:]}-{row}" for row in range(rows)], "prompt": ["p"] * rows}), out
    )
    storage.overwrite(url, out.getvalue().to_pybytes())


@pytest.fixture(params=["disk", pytest.param("s3", marks=pytest.mark.s3)])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "disk" else str(request.getfixturevalue("s3_url"))


def test_folder_with_markers_and_subfolders(root: str) -> None:
    for name, rows in (
        ("b.parquet", 3),
        ("sub/a.parquet", 2),
        ("a.parquet", 4),
        ("_temporary/x.parquet", 9),
        ("sub/_temporary/x.parquet", 9),
        ("sub/.hidden/x.parquet", 9),
        (".hidden.parquet", 9),
    ):
        write_parquet(storage.join(root, name), rows)
    for name in ("_SUCCESS", "README.md", "marker"):
        storage.put_if_absent(storage.join(root, name), b"")
    files = list_input(root + "/")
    base = storage.canonical(root)
    assert [(file.url, file.rows) for file in files] == [
        (f"{base}/a.parquet", 4),
        (f"{base}/b.parquet", 3),
        (f"{base}/sub/a.parquet", 2),
    ]
    assert all(file.size > 0 and file.version for file in files)


def test_glob_and_single_file(root: str) -> None:
    for name, rows in (
        ("test-0.parquet", 1),
        ("test-1.parquet", 2),
        ("train-0.parquet", 3),
        ("named-oddly", 4),
    ):
        write_parquet(storage.join(root, name), rows)
    assert [file.rows for file in list_input(storage.join(root, "test-*.parquet"))] == [1, 2]
    assert [file.rows for file in list_input(storage.join(root, "named-oddly"))] == [4]


def test_glob_skips_hidden_and_empty_files_of_other_suffixes(tmp_path: Path) -> None:
    write_parquet(str(tmp_path / "part-1"), 2)
    write_parquet(str(tmp_path / "_part-1"), 9)
    (tmp_path / "part-0").write_bytes(b"")  # marks a folder in some tools
    assert [file.rows for file in list_input(str(tmp_path / "*part-*"))] == [2]
    (tmp_path / "part-0.parquet").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"part-0\.parquet is not a readable Parquet file"):
        list_input(str(tmp_path / "part-*"))


def test_limit_that_ends_with_a_file_needs_no_further_one(tmp_path: Path) -> None:
    for name in "abc":
        write_parquet(str(tmp_path / f"{name}.parquet"), 10)
    for limit, files in ((1, 1), (10, 1), (11, 2), (20, 2), (21, 3), (99, 3)):
        assert len(list_input(str(tmp_path), limit)) == files


def test_folder_of_many_files_is_listed_completely(tmp_path: Path) -> None:
    for number in range(32 + 3):
        write_parquet(str(tmp_path / f"{number:02d}.parquet"), number + 1)
    files = list_input(str(tmp_path))
    assert [file.rows for file in files] == list(range(1, 32 + 4))
    assert all(file.columns is files[0].columns for file in files)


def test_jsonl_lines_are_counted(root: str) -> None:
    storage.put_if_absent(
        storage.join(root, "rows.jsonl"), b'{"prompt": "a"}\n\n{"prompt": "b"}\n   \nnot json'
    )
    assert [file.rows for file in list_input(root)] == [3]


def test_limit_opens_only_what_is_needed(tmp_path: Path) -> None:
    for number in range(40):
        write_parquet(str(tmp_path / f"{number:02d}.parquet"), 10)
    (tmp_path / "39.parquet").write_bytes(b"damaged, and never opened")
    assert [file.url[-10:] for file in list_input(str(tmp_path), limit=15)] == [
        "00.parquet",
        "01.parquet",
    ]


@pytest.mark.parametrize(
    "content", [b"", b"PAR1 is not enough", b"PAR1" + b"\x00" * 100 + b"\xff\xff\x00\x00PAR1"]
)
def test_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    write_parquet(str(tmp_path / "good.parquet"), 2)
    (tmp_path / "bad.parquet").write_bytes(content)
    with pytest.raises(DatasetError, match=r"bad\.parquet is not a readable Parquet file"):
        list_input(str(tmp_path))


def test_missing_and_empty_inputs_are_refused(root: str) -> None:
    with pytest.raises(DatasetError, match="no input at"):
        list_input(storage.join(root, "nothing"))
    write_parquet(storage.join(root, "empty.parquet"), 0)
    with pytest.raises(DatasetError, match="has no rows"):
        list_input(root)


# -- what is read and what is not ------------------------------------------------------


def write_files(folder: Path, *names: str) -> None:
    """Writes one row into each file, in the format of its suffix."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith((".parquet", ".parq", ".parquet.gz")) or "." not in name:
            write_parquet(str(path), 1)
        elif name.endswith(".gz"):
            path.write_bytes(gzip.compress(b'{"prompt": "x"}\n'))
        elif name.endswith((".csv", ".tsv")):
            path.write_text("prompt\nx\n")
        else:
            path.write_text('{"prompt": "x"}\n')


def names_of(files: Iterable[InputFile], folder: Path) -> list[str]:
    return [file.url.removeprefix(f"{folder}/") for file in files]


def test_folder_reads_every_suffix_of_a_format(tmp_path: Path) -> None:
    write_files(tmp_path / "json", "a.jsonl", "b.jsonl.gz", "c.json", "d.NDJSON", "e.json.gz")
    write_files(tmp_path / "parquet", "a.parquet", "b.parq", "c.parquet.gz", "p-0", "_s=1/d.parq")
    for name in ("json", "parquet"):
        listing = read_listing(str(tmp_path / name))
        assert len(listing.files) == 5
        assert listing.skipped == ()


def test_skipped_files_are_listed_with_the_reason(tmp_path: Path) -> None:
    write_files(tmp_path, "a.jsonl", "_hidden.jsonl", "_logs/b.jsonl", ".cache/c.jsonl", "run.json")
    (tmp_path / "README.md").write_text("# Data")
    (tmp_path / "LICENSE").write_text("MIT")
    (tmp_path / "empty.bin").write_bytes(b"")
    listing = read_listing(str(tmp_path))
    assert names_of(listing.files, tmp_path) == ["a.jsonl"]
    reasons = {file.path: file.reason for file in listing.skipped}
    assert reasons == {
        ".cache/c.jsonl": "in a hidden folder",
        "LICENSE": "a document",
        "README.md": "a document",
        "_hidden.jsonl": "hidden",
        "_logs/b.jsonl": "in a hidden folder",
        "empty.bin": "empty",
        "run.json": "metadata",
    }
    assert describe_skipped(listing.skipped).startswith("skipped 7 files of the input: ")
    assert describe_skipped(listing.skipped).endswith(", 2 more")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("b.avro", b"Obj\x01", r"b\.avro may be data, .* rename it .*\.parquet"),
        ("b.orc", b"ORC", r"b\.orc may be data"),
        ("b.zip", b"PK\x03\x04", r"b\.zip may be data"),
        ("b.gz", b"\x1f\x8b", r"b\.gz may be data"),
        ("part-0", b'{"prompt": "x"}', "part-0 may be data"),
        ("b.jsonl", b"\x1f\x8b\x08\x00", r"b\.jsonl is compressed by gzip, name it \.gz"),
        ("b.jsonl.gz", b'{"prompt": "x"}', r"b\.jsonl\.gz is not a readable gzip file"),
        ("b.jsonl", '{"prompt": "x"}'.encode("utf-16"), "UTF-16 text, convert it to UTF-8"),
        ("b.jsonl", '{"prompt": "x"}'.encode("utf-16-le"), "zero bytes at its beginning"),
        ("b.jsonl", b"PAR1", "a Parquet file, name it"),
        ("b.parquet.gz", b"\x1f\x8b\x08\x00", r"b\.parquet\.gz may be data"),
        ("b.arrow", b"ARROW1\0\0", r"b\.arrow is not a readable Arrow IPC file"),
    ],
)
def test_data_that_cannot_be_read_stops_the_listing(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    write_files(tmp_path, "a.jsonl")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        read_listing(str(tmp_path))


def test_document_named_by_itself_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "README").write_text("text")
    with pytest.raises(DatasetError, match="README may be data, but its name does not say"):
        read_listing(str(tmp_path / "README"))
    with pytest.raises(DatasetError, match=r"none of its 1 files is data \(such as README"):
        read_listing(str(tmp_path))


def test_link_that_leads_nowhere_stops_the_listing(tmp_path: Path) -> None:
    write_files(tmp_path / "in", "a.parquet")
    link = tmp_path / "in" / "b.parquet"
    link.symlink_to("/nowhere/b.parquet")
    message = r"b\.parquet is a link to /nowhere/b\.parquet, which does not exist"
    for url in (tmp_path / "in", tmp_path / "in" / "*.parquet", link):
        with pytest.raises(DatasetError, match=message):
            read_listing(str(url))
    link.rename(tmp_path / "in" / ".#lock")
    assert len(read_listing(str(tmp_path / "in")).files) == 1


def test_links_to_files_and_folders_are_followed(tmp_path: Path) -> None:
    write_files(tmp_path, "store/a.jsonl", "other/b.jsonl")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").symlink_to(tmp_path / "store" / "a.jsonl")
    (tmp_path / "in" / "folder").symlink_to(tmp_path / "other")
    files = list_input(str(tmp_path / "in"))
    assert names_of(files, tmp_path / "in") == ["a.jsonl", "folder/b.jsonl"]


def test_pipe_stops_the_listing(tmp_path: Path) -> None:
    write_files(tmp_path, "a.jsonl")
    os.mkfifo(tmp_path / "b.jsonl")
    with pytest.raises(DatasetError, match=r"b\.jsonl is not a regular file but a pipe"):
        read_listing(str(tmp_path))


def test_name_that_is_not_utf8_stops_the_listing(tmp_path: Path) -> None:
    write_files(tmp_path, "a.jsonl")
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jsonl"))).write_text('{"prompt": "x"}\n')
    with pytest.raises(DatasetError, match=r"caf\\xe9\.jsonl is not valid UTF-8; rename"):
        read_listing(str(tmp_path))


@pytest.mark.parametrize("pattern", ["*", "s*", "**"])
def test_glob_reads_the_folders_that_it_matches(root: str, pattern: str) -> None:
    for name in ("sub/a.parquet", "sub/deep/b.parquet", "sub/_tmp/c.parquet"):
        write_parquet(storage.join(root, name), 1)
    listing = read_listing(storage.join(root, pattern))
    assert [file.url.removeprefix(f"{root}/") for file in listing.files] == [
        "sub/a.parquet",
        "sub/deep/b.parquet",
    ]
    assert [file.path for file in listing.skipped] == ["sub/_tmp/c.parquet"]


def test_output_below_the_input_is_not_input(root: str) -> None:
    for name in ("a.parquet", "run/data/part-00000.parquet", "runs/b.parquet"):
        write_parquet(storage.join(root, name), 1)
    run = storage.join(root, "run")
    listing = read_listing(root, output=f"{run}/")
    assert [file.url.removeprefix(f"{root}/") for file in listing.files] == [
        "a.parquet",
        "runs/b.parquet",
    ]
    assert listing.skipped == (SkippedFile("run/data/part-00000.parquet", "in the output folder"),)
    with pytest.raises(ConfigError, match="is the input folder itself"):
        read_listing(root, output=root)
    # Neither is that of another run, unless it is the input itself.
    assert read_listing(root, other_outputs=[run]).files == listing.files
    assert read_listing(run, other_outputs=[run]).files
    # The input may lie in the output folder: prompts do.
    assert len(read_listing(storage.join(run, "data"), output=run).files) == 1


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_planning_makes_two_requests_per_small_file(
    monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    requests: Counter[str] = Counter()

    def count(operation: str, when: str) -> None:
        if when == "before":
            requests[operation] += 1

    url = serve(MemoryS3(count), monkeypatch)
    for number in range(9):
        name = storage.join(url, f"{number}.{suffix}")
        if suffix == "parquet":
            write_parquet(name, 1)
        else:
            storage.overwrite(name, b'{"id": "%d", "prompt": "x"}\n' % number)
    requests.clear()
    files = list_input(url)
    schema = inspect_columns(files, COLUMNS)
    check_unique_ids(files, schema.id_column)
    assert requests == {"list": 1, "head": 1, "get": 18}
