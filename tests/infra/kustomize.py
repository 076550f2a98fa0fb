"""As much of kustomize as infra/kuberay uses: an overlay's folder → its resources.

Compared with kubectl's where that is.
"""

import copy
import re
from pathlib import Path
from typing import Any

import yaml

Resource = dict[str, Any]
KEYS = {
    "apiVersion",
    "kind",
    "namespace",
    "labels",
    "resources",
    "components",
    "configMapGenerator",
    "patches",
    "replacements",
    "images",
}
LOCAL = "config.kubernetes.io/local-config"


def build(folder: Path) -> list[Resource]:
    """Returns the resources of a folder, those left out that are for the composition only."""
    return [
        each
        for each in _compose(folder, [])
        if LOCAL not in each["metadata"].get("annotations", {})
    ]


def _compose(folder: Path, given: list[Resource]) -> list[Resource]:
    rules = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert set(rules) <= KEYS, f"{folder.name}: this composer does not know {set(rules) - KEYS}"
    found = list(given)
    for name in rules.get("resources", []):
        path = folder / name
        found += (
            _compose(path, [])
            if path.is_dir()
            else [each for each in yaml.safe_load_all(path.read_text()) if each]
        )
    found = copy.deepcopy(found)  # anchors of YAML would be changed in all their places
    for name in rules.get("components", []):
        found = _compose(folder / name, found)
    found += [_config_map(folder, each) for each in rules.get("configMapGenerator", [])]
    for patch in rules.get("patches", []):
        for each in (each for each in found if each["kind"] == patch["target"]["kind"]):
            for step in yaml.safe_load(patch["patch"]):
                _patch(each, step)
    for rule in rules.get("replacements", []):
        _replace(found, rule)
    _transform(found, rules)
    return found


def _replace(found: list[Resource], rule: dict[str, Any]) -> None:
    [source] = [each for each in found if each["kind"] == rule["source"]["kind"]]
    for target in rule["targets"]:
        for each in (each for each in found if each["kind"] == target["select"]["kind"]):
            *way, last = target["fieldPaths"][0].split(".")
            _at(each, way)[last] = copy.deepcopy(source[rule["source"]["fieldPath"]])


def _transform(found: list[Resource], rules: dict[str, Any]) -> None:
    for each in found:
        if "namespace" in rules and each["kind"] != "Namespace":
            each["metadata"]["namespace"] = rules["namespace"]
        for labels in rules.get("labels", []):
            each["metadata"].setdefault("labels", {}).update(labels["pairs"])
        for image in rules.get("images", []):
            _rename(each, image)


def _config_map(folder: Path, rule: dict[str, Any]) -> Resource:
    data = {name: (folder / name).read_text() for name in rule.get("files", [])}
    for name in rule.get("envs", []):
        lines = [
            line
            for line in (folder / name).read_text().splitlines()
            if line and not line.startswith("#")
        ]
        data |= dict(line.split("=", 1) for line in lines)
    assert rule["options"] == {"disableNameSuffixHash": True}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": rule["name"]},
        "data": data,
    }


def _at(value: Any, way: list[str]) -> Any:
    for step in way:
        value = value[int(step) if isinstance(value, list) else step]
    return value


def _patch(resource: Resource, step: dict[str, Any]) -> None:
    *way, last = [
        part.replace("~1", "/").replace("~0", "~") for part in step["path"].strip("/").split("/")
    ]
    inside, value = _at(resource, way), copy.deepcopy(step["value"])
    if step["op"] == "test":
        assert inside[last] == value, step
    elif isinstance(inside, list) and step["op"] == "add":
        inside.insert(len(inside) if last == "-" else int(last), value)
    else:
        assert step["op"] == "add" or last in inside or isinstance(inside, list), step
        inside[int(last) if isinstance(inside, list) else last] = value


def _rename(value: Any, image: dict[str, str]) -> None:
    if isinstance(value, dict):
        name = re.split(r"[:@]", str(value.get("image", "")))[0]
        if name == image["name"]:
            value["image"] = f"{image.get('newName', name)}:{image['newTag']}@{image['digest']}"
        for each in value.values():
            _rename(each, image)
    elif isinstance(value, list):
        for each in value:
            _rename(each, image)
