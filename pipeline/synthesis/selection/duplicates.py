"""Stage `duplicate`: rejects samples that repeat an accepted one before them, exactly or nearly.

Exact: the compared texts are equal. Near: the estimated Jaccard similarity of their sets of 5
characters (after Unicode normalisation, case folding and joining of white space: no language is
split into words) reaches the threshold. Estimates are MinHash signatures of rensa; candidates come
from bands of the signature, and each is verified by the full signature.

Samples are compared with the last `capacity` accepted ones: as many as `dedup_memory_mb` holds, so
memory is fixed.
"""

import hashlib
import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import rensa

from pipeline.synthesis.rejections import Rejection
from pipeline.synthesis.selection.recent_rows import BYTES_PER_KEY, MAX_CHAIN, RecentRows
from pipeline.synthesis.selection.rules import SelectionRules
from pipeline.synthesis.selection.samples import StageResult

PERMUTATIONS = 128
SIGNATURE_SEED = 42
SHINGLE_CHARS = 5
# share of pairs exactly at the threshold that the bands find; pairs above are found almost surely
RECALL = 0.98
NAME_BYTES = 64  # kept of the name of an accepted sample
DIGEST_BYTES = 16
DEFAULT_COLUMNS = ("prompt", "completion")
# hashing of the selections whose fingerprint does not record it
FIRST_HASHING: Mapping[str, object] = {
    "algorithm": "rensa.RMinHash",
    "version": "0.5.0",
    "permutations": 128,
    "seed": 42,
    "shingle_chars": 5,
    "normalization": "NFKC, case folded, white space joined",
    "recall": 0.98,
    "max_chain": 32,
}
Signature = npt.NDArray[np.uint32]


def hashing_keys(rules: SelectionRules, version: str | None = None) -> dict[str, object]:
    """Returns the keys that near-duplicate hashing adds to the fingerprint of a selection.

    Selections of earlier releases do not record the hashing; theirs is `FIRST_HASHING`. A selection
    with the same hashing has no key either, so that both have one fingerprint.

    Args:
        rules: rules of the selection.
        version: version of rensa; None: the installed one.
    """
    if rules.dedup != "near":
        return {}
    hashing = {
        "algorithm": "rensa.RMinHash",
        "version": version or metadata.version("rensa"),
        "permutations": PERMUTATIONS,
        "seed": SIGNATURE_SEED,
        "shingle_chars": SHINGLE_CHARS,
        "normalization": "NFKC, case folded, white space joined",
        "recall": RECALL,
        "max_chain": MAX_CHAIN,
    }
    if hashing == FIRST_HASHING:
        return {}
    return {"near_duplicates": hashing}


@dataclass(frozen=True, slots=True)
class Bands:
    """Division of a signature into keys.

    Two samples are candidates if they agree in all values of one band.
    """

    count: int
    width: int

    @classmethod
    def of(cls, threshold: float) -> "Bands":
        """Returns the widest bands that find pairs at the threshold with `RECALL`.

        The widest bands give the fewest candidates.
        """
        for width in range(PERMUTATIONS, 0, -1):
            count = PERMUTATIONS // width
            recall = 1 - (1 - threshold**width) ** count
            if recall >= RECALL:
                return cls(count, width)
        return cls(PERMUTATIONS, 1)

    def keys(self, signature: Signature) -> list[int]:
        """Returns a key per band."""
        used = signature[: self.count * self.width]
        bands = used.reshape(self.count, self.width).astype(np.uint64)
        keys = (bands * _MULTIPLIERS[: self.width]).sum(axis=1, dtype=np.uint64)
        return list(map(int, keys))


def _odd_multipliers() -> npt.NDArray[np.uint64]:
    generator = np.random.default_rng(SIGNATURE_SEED)
    integers = generator.integers(0, 2**63, PERMUTATIONS, np.uint64)
    return integers * np.uint64(2) + np.uint64(1)


_MULTIPLIERS = _odd_multipliers()


def signature(text: str) -> Signature:
    """Returns the MinHash signature of a text's shingles."""
    normalized = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    last_start = max(0, len(normalized) - SHINGLE_CHARS)
    shingles = [normalized[start : start + SHINGLE_CHARS] for start in range(last_start + 1)]
    sketch = rensa.RMinHash(num_perm=PERMUTATIONS, seed=SIGNATURE_SEED)
    sketch.update(shingles)
    return np.array(sketch.digest(), np.uint32)


def similarity(first: Signature, second: Signature) -> float:
    """Returns the estimated Jaccard similarity of two texts."""
    return float(np.mean(first == second))


class Duplicates:
    """The stage; it stores accepted samples."""

    def __init__(self, rules: SelectionRules, capacity: int | None = None) -> None:
        """Reserves the memory that the rules allow.

        Args:
            rules: rules of the selection.
            capacity: accepted samples that are stored; None: as many as the memory holds.
        """
        self.columns = rules.dedup_on or DEFAULT_COLUMNS
        self.capacity = capacity or memory_capacity(rules)
        self._near = rules.dedup == "near"
        self._threshold = rules.dedup_threshold
        self._bands = Bands.of(self._threshold)

        self._exact = RecentRows(self.capacity, 1)
        self._digests = np.zeros((self.capacity, DIGEST_BYTES), np.uint8)
        self._names = np.zeros(self.capacity, f"S{NAME_BYTES}")
        self._similar = RecentRows(self.capacity, self._bands.count if self._near else 0)
        signatures = self.capacity if self._near else 0
        self._signatures = np.zeros((signatures, PERMUTATIONS), np.uint32)

    @property
    def nbytes(self) -> int:
        """Memory of the stored samples, bytes."""
        arrays = self._digests.nbytes + self._names.nbytes + self._signatures.nbytes
        return arrays + self._exact.nbytes + self._similar.nbytes

    @property
    def stored(self) -> int:
        """Accepted samples with which later ones are compared."""
        return min(self._exact.added, self.capacity)

    @property
    def forgotten(self) -> int:
        """Accepted samples that were replaced by later ones."""
        return self._exact.added - self.stored

    def __call__(self, table: pa.Table) -> StageResult:
        """Returns a verdict on every sample, in order; those that pass are stored."""
        ids = table["id"].to_pylist()
        indices = table["sample_index"].to_pylist()
        verdicts = []
        for text, row_id, index in zip(_texts(table, self.columns), ids, indices, strict=True):
            verdicts.append(self._verdict(text, f"{row_id}#{index}"))
        return StageResult(table, verdicts)

    def _verdict(self, text: str, name: str) -> Rejection | None:
        digest = _digest(text)
        key = [int(digest[:8].view(np.uint64)[0])]
        for row in self._exact.candidates(key):
            if np.array_equal(self._digests[self._exact.slot(row)], digest):
                return Rejection("duplicate", "exact", duplicate_of=self._name(row))

        text_signature = None
        if self._near:
            text_signature = signature(text)
            rejection = self._similar_rejection(text_signature)
            if rejection is not None:
                return rejection

        slot = self._exact.slot(self._exact.add(key))
        self._digests[slot] = digest
        self._names[slot] = name.encode()[:NAME_BYTES]
        if text_signature is not None:
            self._similar.add(self._bands.keys(text_signature))
            self._signatures[slot] = text_signature
        return None

    def _similar_rejection(self, text_signature: Signature) -> Rejection | None:
        for row in self._similar.candidates(self._bands.keys(text_signature)):
            stored = self._signatures[self._similar.slot(row)]
            estimate = similarity(text_signature, stored)
            if estimate >= self._threshold:
                detail = f"similarity {estimate:.2f}"
                return Rejection("duplicate", "near", detail, duplicate_of=self._name(row))
        return None

    def _name(self, row: int) -> str:
        return bytes(self._names[self._exact.slot(row)]).decode(errors="ignore")


def bytes_per_sample(rules: SelectionRules) -> int:
    """Returns the memory of an accepted sample, bytes."""
    size = BYTES_PER_KEY + DIGEST_BYTES + NAME_BYTES
    if rules.dedup == "near":
        size += Bands.of(rules.dedup_threshold).count * BYTES_PER_KEY
        size += PERMUTATIONS * 4
    return size


def memory_capacity(rules: SelectionRules) -> int:
    """Returns the number of accepted samples that `dedup_memory_mb` holds."""
    return min(rules.dedup_memory_mb * 2**20 // bytes_per_sample(rules), 2**31)


def _digest(text: str) -> npt.NDArray[np.uint8]:
    digest = hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).digest()
    return np.frombuffer(digest, np.uint8)


def _texts(table: pa.Table, columns: Sequence[str]) -> Iterator[str]:
    """Yields the compared text of each sample: its columns, separated by a control character."""
    parts = [map(_text, table[name].to_pylist()) for name in columns]
    for values in zip(*parts, strict=True):
        yield "\x1f".join(values)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, default=str, sort_keys=True)
