import json

from actors.protocol.messages import ReplicaInfo
from pipeline.output.provenance import join_metadata, part_metadata


def replica(device: str, jax: str = "0.10.2") -> ReplicaInfo:
    return ReplicaInfo(
        name="r",
        node="n",
        devices=(device, device),
        mesh="1x2",
        weight_bytes=1,
        cache_bytes=1,
        cache_tokens=1,
        slots=1,
        load_s=1.0,
        dtype="bfloat16",
        versions=(("jax", jax),),
    )


def test_part_metadata_joins_values_of_replicas_that_differ() -> None:
    metadata = part_metadata([replica("H100"), replica("A100", "0.10.3"), replica("H100")])
    versions = json.loads(metadata.pop("versions"))
    assert metadata == {"device_kind": "A100, H100", "mesh": "1x2", "dtype": "bfloat16"}
    assert versions == {"jax": "0.10.2, 0.10.3"}


def test_part_metadata_is_empty_without_descriptions() -> None:
    assert part_metadata([]) == {}


def test_join_metadata_lists_all_that_computed_rows() -> None:
    parts = [part_metadata([replica("H100")]), part_metadata([replica("cpu", "0.10.3")])]
    joined = join_metadata([*parts, {"versions": "damaged", "row_digests": "x"}])
    assert json.loads(joined.pop("versions")) == {"jax": "0.10.2, 0.10.3"}
    assert joined == {"device_kind": "H100, cpu", "mesh": "1x2", "dtype": "bfloat16"}
    assert join_metadata([{}, {}]) == {}
