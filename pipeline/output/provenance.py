"""What computed the rows of a part, as metadata of its Parquet file.

device_kind   kinds of the devices, as JAX names them
mesh          DATAxMODEL devices of one replica
dtype         of activations
versions      JSON: versions of this package and of the libraries that compute results
"""

import json
from collections.abc import Iterable, Mapping

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


def join_metadata(footers: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Returns the metadata of a part whose rows come from several parts.

    Values that differ are joined by commas, as those of replicas. All other keys are left out.
    """
    values: dict[str, set[str]] = {}
    versions: dict[str, set[str]] = {}
    for footer in footers:
        for name in (DEVICE_KIND, MESH, DTYPE):
            if name in footer:
                values.setdefault(name, set()).update(footer[name].split(", "))
        for library, version in _versions(footer).items():
            versions.setdefault(library, set()).update(version.split(", "))

    joined = {name: _joined(values[name]) for name in (DEVICE_KIND, MESH, DTYPE) if name in values}
    if versions:
        joined[VERSIONS] = json.dumps(
            {name: _joined(numbers) for name, numbers in versions.items()}
        )
    return joined


def _versions(footer: Mapping[str, str]) -> dict[str, str]:
    try:
        versions = json.loads(footer.get(VERSIONS, "{}"))
    except ValueError:
        return {}
    if not isinstance(versions, dict):
        return {}
    return {str(name): str(version) for name, version in versions.items()}
