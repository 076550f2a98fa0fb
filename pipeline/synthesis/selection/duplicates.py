"""Samples in input order → those that repeat none of the accepted ones before them, exactly or nearly. Memory is fixed.

Exact: the texts that are compared are the same. Near: the estimated Jaccard similarity of their
sets of 5 characters (after Unicode normalisation, case folding and joining of white space: no
language is split into words) reaches the threshold. Estimates are MinHash signatures of rensa;
candidates come from bands of the signature, and each is verified by the whole signature.

Compared is with the last `capacity` accepted samples: that is what `memory_mb` has room for, and
what bounds memory.
"""

import hashlib
import json
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import rensa

from pipeline.synthesis.selection.recent_rows import BYTES_PER_KEY, RecentRows
from pipeline.synthesis.selection.rejections import Rejection
from pipeline.synthesis.selection.rules import SelectionRules
from pipeline.synthesis.selection.samples import Judged

PERMUTATIONS, SIGNATURE_SEED, SHINGLE_CHARS = 128, 42, 5
# share of pairs exactly at the threshold that the bands find; pairs above are found almost surely
RECALL = 0.98
NAME_BYTES = 64  # kept of the name of an accepted sample
DIGEST_BYTES = 16
DEFAULT_COLUMNS = ("prompt", "completion")
Signature = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Bands:
    """How a signature is cut into keys: two samples are candidates if they agree in all values of one band."""

    count: int
    width: int

    @classmethod
    def of(cls, threshold: float) -> "Bands":
        """Returns the widest bands, hence the fewest candidates, that find pairs at the threshold with `RECALL`."""
        for width in range(PERMUTATIONS, 0, -1):
            count = PERMUTATIONS // width
            if 1 - (1 - threshold**width) ** count >= RECALL:
                return cls(count, width)
        return cls(PERMUTATIONS, 1)

    def keys(self, signature: Signature) -> list[int]:
        """Returns a key per band."""
        cut = signature[: self.count * self.width].reshape(self.count, self.width).astype(np.uint64)
        mixed = (cut * _ODD[: self.width]).sum(axis=1, dtype=np.uint64)
        return [int(key) for key in mixed]


_ODD = np.random.default_rng(SIGNATURE_SEED).integers(
    0, 2**63, PERMUTATIONS, np.uint64
) * np.uint64(2) + np.uint64(1)


def signature(text: str) -> Signature:
    """Returns the MinHash signature of a text's shingles."""
    plain = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    sketch = rensa.RMinHash(num_perm=PERMUTATIONS, seed=SIGNATURE_SEED)
    sketch.update(
        [
            plain[start : start + SHINGLE_CHARS]
            for start in range(max(1, len(plain) - SHINGLE_CHARS + 1))
        ]
    )
    return np.array(sketch.digest(), np.uint32)


def similarity(one: Signature, other: Signature) -> float:
    """Returns the estimated Jaccard similarity."""
    return float(np.mean(one == other))


class Duplicates:
    """Remembers accepted samples and leaves out what repeats them.

    A stage; the only one that remembers.
    """

    def __init__(self, rules: SelectionRules) -> None:
        """Takes the memory that the rules allow, as it is filled."""
        self.columns = rules.dedup_on or DEFAULT_COLUMNS
        self._near, self._threshold = rules.dedup == "near", rules.dedup_threshold
        self._bands = Bands.of(self._threshold)
        self.capacity = capacity(rules)
        self._exact = RecentRows(self.capacity, 1)
        self._digests = np.zeros((self.capacity, DIGEST_BYTES), np.uint8)
        self._names = np.zeros(self.capacity, f"S{NAME_BYTES}")
        self._similar = RecentRows(self.capacity, self._bands.count if self._near else 0)
        self._signatures = np.zeros((self.capacity if self._near else 0, PERMUTATIONS), np.uint32)

    @property
    def remembered(self) -> int:
        """Accepted samples that later ones are compared with."""
        return min(self._exact.added, self.capacity)

    @property
    def forgotten(self) -> int:
        """Accepted samples that had to make room."""
        return self._exact.added - self.remembered

    def __call__(self, table: pa.Table) -> Judged:
        """Judges the samples in their order; what passes is remembered."""
        texts = _texts(table, self.columns)
        names = zip(table["id"].to_pylist(), table["sample_index"].to_pylist(), strict=True)
        return Judged(
            table,
            [
                self._judge(text, f"{row}#{sample}")
                for text, (row, sample) in zip(texts, names, strict=True)
            ],
        )

    def _judge(self, text: str, name: str) -> Rejection | None:
        digest = np.frombuffer(
            hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).digest(), np.uint8
        )
        key = [int(digest[:8].view(np.uint64)[0])]
        for row in self._exact.candidates(key):
            if np.array_equal(self._digests[self._exact.place(row)], digest):
                return Rejection("duplicate", "exact", duplicate_of=self._name(row))
        found = self._find_similar(text) if self._near else None
        if isinstance(found, Rejection):
            return found
        place = self._exact.place(self._exact.add(key))
        self._digests[place] = digest
        self._names[place] = name.encode()[:NAME_BYTES]
        if found is not None:
            self._similar.add(self._bands.keys(found))
            self._signatures[place] = found
        return None

    def _find_similar(self, text: str) -> Signature | Rejection:
        """Returns the signature of a text that resembles none."""
        own = signature(text)
        for row in self._similar.candidates(self._bands.keys(own)):
            alike = similarity(own, self._signatures[self._similar.place(row)])
            if alike >= self._threshold:
                return Rejection(
                    "duplicate", "near", f"similarity {alike:.2f}", duplicate_of=self._name(row)
                )
        return own

    def _name(self, row: int) -> str:
        return bytes(self._names[self._exact.place(row)]).decode(errors="ignore")


def bytes_per_sample(rules: SelectionRules) -> int:
    """Returns the memory that an accepted sample takes."""
    own = BYTES_PER_KEY + DIGEST_BYTES + NAME_BYTES
    if rules.dedup != "near":
        return own
    return own + Bands.of(rules.dedup_threshold).count * BYTES_PER_KEY + PERMUTATIONS * 4


def capacity(rules: SelectionRules) -> int:
    """Returns how many accepted samples `dedup_memory_mb` has room for."""
    return min(rules.dedup_memory_mb * 2**20 // bytes_per_sample(rules), 2**31)


def _texts(table: pa.Table, columns: Sequence[str]) -> Iterator[str]:
    """Yields what is compared of each sample: its columns, told apart by a character that texts do not have."""
    parts = [map(_text, table[name].to_pylist()) for name in columns]
    return ("\x1f".join(values) for values in zip(*parts, strict=True))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, sort_keys=True)
