"""What computed the rows of a part, as metadata of its Parquet file.

device_kind   kinds of the devices, as JAX names them
mesh          DATAxMODEL devices of one replica
dtype         of activations
versions      JSON: versions of this package and of the libraries that compute results
"""

import json
from collections.abc import Iterable

from actors.protocol.messages import ReplicaInfo

DEVICE_KIND = "device_kind"
MESH = "mesh"
DTYPE = "dtype"
VERSIONS = "versions"
KEYS = (DEVICE_KIND, MESH, DTYPE, VERSIONS)


def part_metadata(replicas: Iterable[ReplicaInfo]) -> dict[str, str]:
    """Returns the metadata of parts whose rows `replicas` computed.

    Values of replicas that differ are joined by commas. Empty if no replica has described itself.
    """
    devices: set[str] = set()
    meshes: set[str] = set()
    dtypes: set[str] = set()
    versions: dict[str, set[str]] = {}
    for info in replicas:
        devices.update(info.devices)
        meshes.add(info.mesh)
        dtypes.add(info.dtype)
        for name, version in info.versions:
            versions.setdefault(name, set()).add(version)
    if not devices:
        return {}
    return {
        DEVICE_KIND: _joined(devices),
        MESH: _joined(meshes),
        DTYPE: _joined(dtypes),
        VERSIONS: json.dumps({name: _joined(numbers) for name, numbers in versions.items()}),
    }


def _joined(values: Iterable[str]) -> str:
    return ", ".join(sorted(values))
