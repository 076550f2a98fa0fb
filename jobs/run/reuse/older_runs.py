"""Opens the runs of --reuse: whether their rows fit, and which of their parts do as they are."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from jobs.run.fingerprint import COLUMN_KEYS, PART_KEYS, context_keys
from jobs.run.limits import HourLedger
from jobs.run.plan import Plan
from pipeline.errors import ConfigError
from pipeline.input.columns import input_root
from pipeline.input.json_text import is_json_text
from pipeline.input.shards import RowSample, plan_shards
from pipeline.output.input_content import run_input_keys
from pipeline.output.reuse.footer import MAX_DIGESTED_ROWS
from pipeline.output.reuse.older_parts import OlderPart, PartRows, read_parts
from pipeline.output.run_folder import RunFolder, key_differences
from pipeline.records import InputFile, Shard
from pipeline.storage.redaction import redact_credentials

ShardKey = tuple[str, int, int, tuple[int, ...] | None]


@dataclass(frozen=True, slots=True)
class OlderRun:
    """A run of --reuse.

    Attributes:
        folder: where it is.
        fingerprint: in its run.json.
        hours_per_row: replica hours of each row that it has computed; None: not known.
    """

    folder: RunFolder
    fingerprint: str
    hours_per_row: float | None


@dataclass(frozen=True, slots=True)
class OlderRuns:
    """The runs of --reuse.

    Attributes:
        runs: in the order of the flag.
        rows: their rows by digest.
        unchanged: parts with all rows of a shard whose input file has not changed, by the number of
            the shard.
        notices: what of the runs cannot be copied.
    """

    runs: tuple[OlderRun, ...]
    rows: PartRows
    unchanged: Mapping[int, OlderPart]
    notices: tuple[str, ...]

    def description(self) -> list[dict[str, str]]:
        """Returns what run.json has about the runs."""
        runs: list[dict[str, str]] = []
        for run in self.runs:
            url = redact_credentials(run.folder.url)
            runs.append({"run": url, "fingerprint": run.fingerprint})
        return runs

    def hours_per_row(self, url: str) -> float | None:
        """Returns the replica hours of a row of the run in a folder; None: not known."""
        for run in self.runs:
            if run.folder.url == url:
                return run.hours_per_row
        return None


def open_older_runs(plan: Plan, keys: Mapping[str, Any]) -> OlderRuns:
    """Reads run.json and the footers of all parts of the runs of --reuse.

    Args:
        plan: of the new run.
        keys: of its fingerprint.

    Raises:
        ConfigError: a folder holds no run, or a run of another model, checkpoint or task, so that
            none of its rows can be copied.
        DatasetError: a part cannot be read.
    """
    runs: list[OlderRun] = []
    all_parts: list[OlderPart] = []
    unchanged: dict[int, OlderPart] = {}
    notices: list[str] = []
    for url in dict.fromkeys(plan.config.reuse):
        folder = RunFolder(url)
        _check_folder(folder, plan)
        description = folder.description()
        notice = _check_settings(folder, description["fingerprint_keys"], keys)
        if notice is not None:
            notices.append(notice)
            continue

        parts = read_parts(folder, str(description.get("fingerprint")))
        absent = _absent_columns(plan, parts)
        if absent:
            notices.append(
                f"--reuse {url}: no row is copied, because the run did not write the columns "
                f"{', '.join(absent)}; all rows are computed"
            )
            continue
        older_shards = _older_shards(description["fingerprint_keys"])
        own_unchanged = dict(_unchanged_parts(plan, keys, folder, parts, older_shards))
        _check_digests(folder, parts, own_unchanged)
        without_digests = sum(part.digests is None for part in parts)
        if without_digests:
            notices.append(
                f"--reuse {url}: {without_digests:,} of {len(parts):,} parts have no digests of "
                f"their rows (an earlier version wrote them, or they have more than "
                f"{MAX_DIGESTED_ROWS:,} rows); they are copied only where the file of their rows "
                "has not changed"
            )
        for number, part in own_unchanged.items():
            unchanged.setdefault(number, replace(part, digests=None))
        hours = _hours_per_row(folder, parts, older_shards)
        runs.append(OlderRun(folder, str(description.get("fingerprint")), hours))
        all_parts += parts

    columns = [column.name for column in plan.output_schema().columns]
    return OlderRuns(tuple(runs), PartRows(all_parts, columns), unchanged, tuple(notices))


def _check_folder(folder: RunFolder, plan: Plan) -> None:
    output = plan.config.output
    client = folder.client
    if output is not None and client.canonical(folder.url) == client.canonical(output):
        raise ConfigError(
            f"--reuse {folder.url} is the --output itself, whose committed parts are kept anyway; "
            "give the folder of an older run, or leave --reuse out"
        )
    if not folder.exists():
        raise ConfigError(
            f"--reuse {folder.url}: holds no run, there is no run.json; give the --output of an "
            "older run"
        )


def _check_settings(
    folder: RunFolder, older: Mapping[str, Any], keys: Mapping[str, Any]
) -> str | None:
    """Returns why no row of a run is copied, although its model is the same; None: rows are.

    Raises:
        ConfigError: another model, checkpoint, tokenizer, task or number type.
    """
    older_context = context_keys(older)
    context = context_keys(keys)
    for name in COLUMN_KEYS:
        older_context.pop(name, None)
        context.pop(name, None)
    differences = key_differences(older_context, context)
    if differences:
        raise ConfigError(
            f"--reuse {folder.url}: no row of this run can be copied, because its results depend "
            f"on other settings: {'; '.join(differences)}; leave --reuse out, or give a run with "
            "the same settings"
        )

    older_columns = {name: older[name] for name in COLUMN_KEYS if name in older}
    columns = {name: keys[name] for name in COLUMN_KEYS if name in keys}
    differences = key_differences(older_columns, columns)
    if not differences:
        return None
    return (
        f"--reuse {folder.url}: no row is copied, because the run wrote other log-probs: "
        f"{'; '.join(differences)}; all rows are computed"
    )


def _absent_columns(plan: Plan, parts: Sequence[OlderPart]) -> list[str]:
    """Returns the output columns that the parts of a run do not have, or have of another type."""
    if not parts:
        return []
    schema = parts[0].schema
    absent: list[str] = []
    for column in plan.output_schema().columns:
        index = schema.get_field_index(column.name)
        if index < 0 or schema.field(index).type != column.type:
            absent.append(column.name)
    return absent


def _check_digests(
    folder: RunFolder, parts: Sequence[OlderPart], unchanged: Mapping[int, OlderPart]
) -> None:
    """Raises ConfigError if an earlier version wrote all parts, and no file is unchanged."""
    if unchanged or not parts or any(part.digests is not None for part in parts):
        return
    raise ConfigError(
        f"--reuse {folder.url}: no row of this run can be copied: its parts have no digests of "
        f"their rows (an earlier version wrote them, or they have more than {MAX_DIGESTED_ROWS:,} "
        "rows), and no file of its input is the same now; leave --reuse out"
    )


def _older_files(older: Mapping[str, Any]) -> list[InputFile]:
    files: list[InputFile] = []
    for url, size, version, rows in older["input"]:
        files.append(InputFile(url, size, version, rows))
    return files


def _older_shards(older: Mapping[str, Any]) -> tuple[Shard, ...]:
    """Returns the shards of a run, planned again from the keys of its fingerprint."""
    sample = None
    if "sample" in older:
        sample = RowSample(older["sample"]["rows"], older["sample"]["seed"])
    layout = older["shards"]
    return plan_shards(_older_files(older), layout["shard_rows"], layout["limit"], sample)


def _unchanged_parts(
    plan: Plan,
    keys: Mapping[str, Any],
    folder: RunFolder,
    parts: Sequence[OlderPart],
    older_shards: Sequence[Shard],
) -> Iterator[tuple[int, OlderPart]]:
    """Yields the parts that a full run would write again, with the number of the new shard."""
    older = folder.description()["fingerprint_keys"]
    has_same_settings = not key_differences(_without(older, PART_KEYS), _without(keys, PART_KEYS))
    # Ids of an input without an id column are paths below the folder that all files share.
    has_same_ids = plan.schema.id_column is not None or (
        input_root(_older_files(older)) == plan.schema.root
    )
    if not has_same_settings or not has_same_ids:
        return

    older_keys = {tuple(key) for key in older["input"]}
    unchanged_urls: set[str] = set()
    for key in run_input_keys(folder, plan.files):
        if tuple(key) in older_keys:
            unchanged_urls.add(key[0])

    schema = plan.output_schema().arrow
    parts_by_number = {part.number: part for part in parts}
    parts_by_rows: dict[ShardKey, OlderPart] = {}
    for shard in older_shards:
        part = parts_by_number.get(shard.number)
        if part is None or part.has_errors or shard.url not in unchanged_urls:
            continue
        if _has_same_columns(part.schema, schema):
            parts_by_rows[_shard_key(shard)] = part
    for shard in plan.own_shards:
        part = parts_by_rows.get(_shard_key(shard))
        if part is not None:
            yield shard.number, part


def _has_same_columns(older: pa.Schema, schema: pa.Schema) -> bool:
    """Returns whether columns have the same values: text and JSON text have the same type."""
    if not older.equals(schema):
        return False
    for older_field, field in zip(older, schema, strict=True):
        if is_json_text(older_field) != is_json_text(field):
            return False
    return True


def _shard_key(shard: Shard) -> ShardKey:
    return redact_credentials(shard.url), shard.first_row, shard.rows, shard.offsets


def _without(keys: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in keys.items() if name not in names}


def _hours_per_row(
    folder: RunFolder, parts: Sequence[OlderPart], older_shards: Sequence[Shard]
) -> float | None:
    """Returns the replica hours that a run took for each row that it has computed."""
    rows_of_shards = {shard.number: shard.rows for shard in older_shards}
    computed = 0
    for part in parts:
        computed += rows_of_shards.get(part.number, 0) - part.copied_rows
    hours = HourLedger([folder.url]).others().replica_hours
    if computed <= 0 or not hours:
        return None
    return hours / computed
