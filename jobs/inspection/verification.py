"""Recomputes a sample of the rows of a run, and compares it with what the run has written.

The pipeline computes the rows, in a folder of its own; `compare_runs` compares tokens and
log-probs. Beside them, all other columns of the rows, the settings that decide about results, and
the fingerprints of all parts are compared.
"""

import dataclasses
import json
import math
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from actors.protocol.plain_text import bare
from jobs.inspection.comparison import Comparison, compare_runs
from jobs.run.config import AUTO, ScoreConfig
from jobs.run.early_stopping import EarlyStopping
from jobs.run.fingerprint import fingerprint_keys
from jobs.run.plan import make_plan
from pipeline.errors import ConfigError
from pipeline.input import formats
from pipeline.input.read_ahead import read_ahead
from pipeline.input.shards import RowSample
from pipeline.output.input_content import run_input_keys
from pipeline.output.provenance import DEVICE_KIND, KEYS
from pipeline.output.publication import to_parquet
from pipeline.output.run_folder import RunFolder, fingerprint, key_differences
from pipeline.output.schema import FINGERPRINT_KEY
from pipeline.records import Shard

# Depend on what ran before in the same replica, or on lost replicas; not on the model.
UNSTABLE_COLUMNS = frozenset({"cached_tokens", "attempts", "error_message"})
SIZE_FLAGS = ("slots", "prefill_tokens", "batch_tokens")
EMBEDDING = "embedding"  # compared as a vector
LISTED = 20  # rows and faults of each kind
# Largest difference of log-probs that counts as equal where the same bits are expected, and where
# other devices or versions round otherwise.
EXACT_TOLERANCE = 1e-6
ROUNDING_TOLERANCE = {"bfloat16": 0.05, "float32": 1e-3}
Key = tuple[Any, int]


@dataclass(frozen=True)
class SampledRows(EarlyStopping):
    """Chooses random rows of the shards that a run has committed; the same seed gives the same."""

    share: float
    seed: int
    committed: frozenset[int]

    def select_shards(self, remaining: Sequence[Shard]) -> Sequence[Shard]:
        """Returns the shards that have sampled rows, with these rows alone."""
        shards = [shard for shard in remaining if shard.number in self.committed]
        total = sum(shard.rows for shard in shards)
        sample = RowSample(max(1, math.ceil(self.share * total)), self.seed)
        positions = iter(sample.positions(total))

        sampled: list[Shard] = []
        begin = 0
        position = next(positions, None)
        for shard in shards:
            end = begin + shard.rows
            file_rows: list[int] = []
            while position is not None and position < end:
                file_rows.append(shard.file_row(position - begin))
                position = next(positions, None)
            if file_rows:
                sampled.append(_with_rows(shard, file_rows))
            begin = end
        return sampled


def _with_rows(shard: Shard, file_rows: Sequence[int]) -> Shard:
    first_row = file_rows[0]
    offsets = tuple(row - first_row for row in file_rows)
    return replace(shard, first_row=first_row, rows=len(file_rows), offsets=offsets)


@dataclass(frozen=True, slots=True)
class RowFinding:
    """A row of the run that is not what was computed."""

    id: Any
    sample_index: int
    columns: tuple[str, ...]  # that differ; empty: the row is in one of the two only
    what: str


@dataclass(slots=True)
class Verification:
    """What the recomputation of a sample has shown.

    Attributes:
        settings: settings that decide about results and differ between the run and here.
        faults: what is wrong with run.json and the parts as such.
        run_rows: rows of the run that were compared.
        rows: rows that were computed here.
        matching: rows of them that are equal.
        findings: the first rows that are not.
        columns: number of rows in which a column differs.
        tolerance: largest difference of log-probs that counts as equal.
        computed_by: device, mesh, dtype and versions of the sampled parts.
        verified_by: the same of this recomputation.
        comparison: of tokens and log-probs; None: nothing was computed.
    """

    settings: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    run_rows: int = 0
    rows: int = 0
    matching: int = 0
    findings: list[RowFinding] = field(default_factory=list)
    columns: Counter[str] = field(default_factory=Counter)
    tolerance: float = EXACT_TOLERANCE
    computed_by: Mapping[str, str] = field(default_factory=dict)
    verified_by: Mapping[str, str] = field(default_factory=dict)
    comparison: Comparison | None = None

    @property
    def match_rate(self) -> float:
        """Share of the rows that are equal."""
        total = max(self.rows, self.run_rows)
        if not total:
            return 0.0
        return self.matching / total

    def add_finding(self, finding: RowFinding) -> None:
        """Counts a row that is not equal."""
        self.columns.update(finding.columns)
        if len(self.findings) < LISTED:
            self.findings.append(finding)


def verification_config(
    folder: RunFolder, output: str, overrides: Mapping[str, Any]
) -> ScoreConfig:
    """Returns the configuration that computes rows of a run again.

    Args:
        folder: of the run.
        output: where the rows are written.
        overrides: flags that replace those of the run, by field; None: as in the run.

    Raises:
        ConfigError: run.json has no configuration of a run of this job, or flags do not fit.
    """
    stored = folder.description().get("config")
    names = {config_field.name for config_field in dataclasses.fields(ScoreConfig)}
    if not isinstance(stored, dict) or not {"input", "model", "task"} <= stored.keys():
        raise ConfigError(
            f"{bare(folder.run_url)} is not the description of a run of rows; give the run folder "
            "of `score`, or the folder of completions in that of another job"
        )
    values: dict[str, Any] = {}
    for name, value in stored.items():
        if name in names:
            values[name] = tuple(value) if isinstance(value, list) else value
    if not values.get("deterministic"):
        # Sizes of the machines of the run; results do not depend on them.
        values |= dict.fromkeys(SIZE_FLAGS, AUTO)
    values |= {name: value for name, value in overrides.items() if value is not None}
    values |= {
        "output": output,
        "partition": "0/1",
        "resume": "auto",
        "retry_failed": False,
        "reuse": (),
        "dry_run": False,
        "max_error_rate": 1.0,
    }
    return ScoreConfig(**values)


def check_run_folder(folder: RunFolder, config: ScoreConfig, verification: Verification) -> None:
    """Compares run.json with the settings here, and the fingerprints of all parts with run.json.

    Args:
        folder: of the run.
        config: as from `verification_config`.
        verification: receives settings and faults.
    """
    description = folder.description()
    stored_keys = description["fingerprint_keys"]
    stored = description.get("fingerprint")
    if fingerprint(stored_keys) != stored:
        verification.faults.append(
            "run.json was edited: its fingerprint is not that of its fingerprint_keys"
        )

    plan = make_plan(config, [folder.url])
    keys = fingerprint_keys(plan)
    keys["input"] = run_input_keys(folder, plan.files)
    verification.settings += key_differences(stored_keys, keys)

    numbers = sorted(folder.committed())
    footers = read_ahead(lambda number: part_footer(folder, number), numbers)
    for number, footer in zip(numbers, footers, strict=True):
        written_by = footer.get(FINGERPRINT_KEY.decode())
        if written_by != stored and len(verification.faults) < LISTED:
            verification.faults.append(
                f"part-{number:05d}.parquet was written by another run (fingerprint "
                f"{bare(written_by or 'none')}, not {bare(stored)}): with another seed, checkpoint "
                "or other settings"
            )


def part_footer(folder: RunFolder, number: int) -> dict[str, str]:
    """Returns the metadata of the Parquet file of a part."""
    with formats.open_parquet(folder.part_url(number), client=folder.client) as parquet:
        metadata = parquet.metadata.metadata or {}
    return {name.decode(): value.decode(errors="replace") for name, value in metadata.items()}


def compare_sample(
    folder: RunFolder,
    computed: RunFolder,
    work: Path,
    config: ScoreConfig,
    tolerance: float | None,
    verification: Verification,
) -> None:
    """Compares the rows that were computed with those of the run.

    Args:
        folder: of the run.
        computed: of the recomputation.
        work: a folder for copies of the rows of the run that were computed again.
        config: of the recomputation.
        tolerance: largest difference of log-probs that counts as equal; None: by the devices.
        verification: receives the result.
    """
    numbers = sorted(computed.committed())
    verification.computed_by = _environment(folder, numbers)
    verification.verified_by = _environment(computed, numbers)
    verification.tolerance = _tolerance(verification, config)
    if tolerance is not None:
        verification.tolerance = tolerance

    sampled = RunFolder(str(work))
    present = folder.committed()
    for number in numbers:
        expected = _part(computed, number)
        ids = set(_column(expected, "id"))
        written = expected.slice(0, 0)
        if number in present:
            part = _part(folder, number)
            is_sampled = [row_id in ids for row_id in _column(part, "id")]
            written = part.filter(pa.array(is_sampled, pa.bool_()))
        sampled.client.put_if_absent(sampled.part_url(number), to_parquet(written))
        _compare_part(written, expected, verification)
    if numbers:
        verification.comparison = compare_runs(sampled, computed)


def _environment(folder: RunFolder, numbers: Sequence[int]) -> dict[str, str]:
    """Returns what computed some parts, with all values that occur."""
    values: dict[str, set[str]] = {}
    for number in numbers:
        footer = part_footer(folder, number)
        for name in KEYS:
            if name in footer:
                values.setdefault(name, set()).add(footer[name])
    return {name: ", ".join(sorted(present)) for name, present in values.items()}


def _tolerance(verification: Verification, config: ScoreConfig) -> float:
    """Returns the tolerance: bits are equal on the same CPUs, and elsewhere if the run says so."""
    is_same = verification.computed_by == verification.verified_by
    device = verification.computed_by.get(DEVICE_KIND, "cpu")
    if is_same and (device == "cpu" or config.deterministic):
        return EXACT_TOLERANCE
    return ROUNDING_TOLERANCE[config.dtype]


def _part(folder: RunFolder, number: int) -> pa.Table:
    with formats.open_parquet(folder.part_url(number), client=folder.client) as parquet:
        return parquet.read()


def _column(table: pa.Table, name: str) -> list[Any]:
    return formats.python_values(table[name])[0]


def _compare_part(written: pa.Table, expected: pa.Table, verification: Verification) -> None:
    """Compares all columns of the sampled rows of one part."""
    verification.run_rows += written.num_rows
    verification.rows += expected.num_rows
    written_rows = _rows_by_key(written)
    expected_rows = _rows_by_key(expected)
    for key in written_rows.keys() - expected_rows.keys():
        verification.add_finding(RowFinding(*key, (), "the input gives no such row"))

    names = [name for name in expected.column_names if name not in UNSTABLE_COLUMNS]
    for key, expected_row in expected_rows.items():
        row = written_rows.get(key)
        if row is None:
            verification.add_finding(RowFinding(*key, (), "the run does not have it"))
            continue
        columns: list[str] = []
        for name in names:
            equal = vectors_equal if name == EMBEDDING else values_equal
            is_equal = name in row and equal(row[name], expected_row[name], verification.tolerance)
            if not is_equal:
                columns.append(name)
        if columns:
            finding = RowFinding(*key, tuple(columns), _difference(row, expected_row, columns))
            verification.add_finding(finding)
        else:
            verification.matching += 1


def _rows_by_key(table: pa.Table) -> dict[Key, dict[str, Any]]:
    names = table.column_names
    columns = [_column(table, name) for name in names]
    rows: dict[Key, dict[str, Any]] = {}
    for items in zip(*columns, strict=True):
        row = dict(zip(names, items, strict=True))
        rows[row["id"], row.get("sample_index") or 0] = row
    return rows


def _difference(row: Mapping[str, Any], expected: Mapping[str, Any], columns: Sequence[str]) -> str:
    """Returns the values of the first column that differs, the run's first."""
    name = columns[0]
    if "seed" in columns:
        name = "seed"  # explains all others
    return f"{name} is {bare(_shown(row.get(name)))}, expected {bare(_shown(expected[name]))}"


def _shown(value: Any) -> Any:
    if isinstance(value, array):
        return list(value)
    return value


def values_equal(value: Any, expected: Any, tolerance: float) -> bool:
    """Returns whether two values are equal, numbers within a tolerance that grows above 1."""
    if isinstance(value, float) and isinstance(expected, float):
        if value == expected or (math.isnan(value) and math.isnan(expected)):
            return True
        return abs(value - expected) <= tolerance * max(1.0, abs(expected))
    if isinstance(value, list | tuple | array) and isinstance(expected, list | tuple | array):
        if len(value) != len(expected):
            return False
        pairs = zip(value, expected, strict=True)
        return all(values_equal(one, other, tolerance) for one, other in pairs)
    if isinstance(value, dict) and isinstance(expected, dict):
        if value.keys() != expected.keys():
            return False
        return all(values_equal(value[name], expected[name], tolerance) for name in value)
    return bool(value == expected)


def vectors_equal(value: Any, expected: Any, tolerance: float) -> bool:
    """Returns whether two embeddings differ by at most `tolerance` of the length of one.

    Numbers of a vector of length 1 are small: compared one by one, all of them would be equal.
    """
    if value is None or expected is None or len(value) != len(expected):
        return value is None and expected is None
    difference = math.dist(value, expected)
    return difference <= tolerance * max(math.hypot(*expected), math.ulp(0.0))


def environment_text(environment: Mapping[str, str]) -> str:
    """Returns what computed rows as one line."""
    if not environment:
        return "not recorded"
    parts: list[str] = []
    for name in KEYS:
        parts += _environment_parts(name, environment.get(name))
    return ", ".join(parts)


def _environment_parts(name: str, value: str | None) -> Iterator[str]:
    if value is None:
        return
    try:
        versions = json.loads(value)
    except ValueError:
        versions = None
    if name != KEYS[-1] or not isinstance(versions, dict):
        yield value
        return
    for library, version in versions.items():
        yield f"{library} {version}"
