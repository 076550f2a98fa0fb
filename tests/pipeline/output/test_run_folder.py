import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import storage
from pipeline.errors import ConfigError, DatasetError
from pipeline.output.run_folder import RunFolder, check_run, fingerprint, input_keys
from pipeline.records import InputFile
from tests.memory_s3 import MemoryS3, serve
from tests.s3 import S3Faults


@pytest.fixture(params=["disk", pytest.param("s3", marks=pytest.mark.s3)])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "disk" else str(request.getfixturevalue("s3_url"))


KEYS = {
    "model": "demo",
    "sampling": {"temperature": 0.0, "seed": 1},
    "input": [["a.parquet", 10, "v1", 5]],
}


def test_first_run_writes_run_json_and_the_next_agrees(root: str) -> None:
    folder = RunFolder(storage.join(root, "run"))
    assert not check_run(folder, KEYS, {"version": "0.1.0"})
    stored = json.loads(storage.read(folder.run_url)[0])
    assert stored == {
        "version": "0.1.0",
        "fingerprint": fingerprint(KEYS),
        "fingerprint_keys": KEYS,
    }
    assert check_run(folder, dict(reversed(KEYS.items())), {"version": "0.2.0"})
    assert json.loads(storage.read(folder.run_url)[0]) == stored


def test_another_configuration_is_refused_with_every_key_named(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path))
    check_run(folder, KEYS, {})
    other = {
        **KEYS,
        "model": "grok-1",
        "sampling": {"temperature": 0.7, "seed": 1},
        "task": "score",
    }
    with pytest.raises(ConfigError) as caught:
        check_run(folder, other, {})
    message = str(caught.value)
    for part in (
        'model was "demo", is "grok-1"',
        "sampling.temperature was 0.0, is 0.7",
        'task was null, is "score"',
        str(tmp_path),
    ):
        assert part in message
    assert "seed" not in message


def test_long_listings_are_named_by_their_first_difference(tmp_path: Path) -> None:
    files = [InputFile(f"/data/part-{number}.parquet", 10, "v1", 5) for number in range(100)]
    folder = RunFolder(str(tmp_path))
    check_run(folder, {"input": input_keys(files)}, {})
    changed = [*files[:7], InputFile(files[7].url, 10, "v2", 5), *files[8:]]
    with pytest.raises(
        ConfigError, match=r'input\[7\] was \["/data/part-7.parquet",10,"v1",5\], is .*"v2"'
    ):
        check_run(folder, {"input": input_keys(changed)}, {})
    with pytest.raises(ConfigError, match=r"input had 100 entries .*part-99.*has 99"):
        check_run(folder, {"input": input_keys(files[:99])}, {})


def test_resume_modes_check_the_folder(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path / "run"))
    with pytest.raises(ConfigError, match="--resume require"):
        check_run(folder, KEYS, {}, resume="require")
    assert not check_run(folder, KEYS, {}, resume="never")
    with pytest.raises(ConfigError, match="--resume never"):
        check_run(folder, KEYS, {}, resume="never")
    assert check_run(folder, KEYS, {}, resume="require")


def test_damaged_run_json(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(DatasetError, match=r"run\.json is not a run description"):
        check_run(RunFolder(str(tmp_path)), KEYS, {})


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(), st.integers() | st.text() | st.none(), min_size=1))
def test_fingerprint_ignores_order_only(keys: dict[str, object]) -> None:
    assert fingerprint(dict(reversed(keys.items()))) == fingerprint(keys)
    name = next(iter(keys))
    assert fingerprint({**keys, name: [keys[name]]}) != fingerprint(keys)


def test_driver_that_loses_the_race_for_run_json_is_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another driver creates `run.json` between the check and the write of this one."""
    for winner_keys, is_same in ((KEYS, True), ({**KEYS, "model": "grok-1"}, False)):
        store = MemoryS3()
        with monkeypatch.context() as patch:
            folder = RunFolder(serve(store, patch))
            winner = json.dumps({"fingerprint": "x", "fingerprint_keys": winner_keys}).encode()

            def overtake(operation: str, when: str, store: Any = store, data: Any = winner) -> None:
                if (operation, when) == ("put", "before"):
                    store.objects.setdefault("bucket/run/run.json", data)

            store.at = overtake
            if is_same:
                assert check_run(folder, KEYS, {})
            else:
                with pytest.raises(ConfigError, match='model was "grok-1", is "demo"'):
                    check_run(folder, KEYS, {})
            with pytest.raises(ConfigError, match="--resume never"):
                check_run(folder, winner_keys, {}, resume="never")
            assert store.objects["bucket/run/run.json"] == winner


def test_key_that_only_one_side_has_is_a_difference(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path))
    check_run(folder, KEYS, {})
    with pytest.raises(ConfigError, match='task was null, is "score"'):
        check_run(folder, {**KEYS, "task": "score"}, {})
    with pytest.raises(ConfigError, match='model was "demo", is null'):
        check_run(folder, {key: KEYS[key] for key in ("sampling", "input")}, {})


def test_input_keys_have_no_credentials() -> None:
    signed = InputFile("https://user:secret@host/a.parquet?X-Amz-Signature=secret", 10, "v1", 5)
    [key] = input_keys([signed])
    assert "secret" not in key[0]
    assert key[1:] == [10, "v1", 5]


@pytest.mark.s3
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("501", "does not accept a PutObject with If-None-Match"),
        ("ignore conditions", "ignores conditional writes: a PutObject with If-None-Match"),
    ],
)
def test_store_without_conditions_is_refused_at_the_start(
    fault: str, message: str, s3_url: str, s3_faults: S3Faults
) -> None:
    s3_faults.rule = lambda method, path: fault if method == "PUT" else None
    folder = RunFolder(f"{s3_url}/run")
    for _ in range(2):
        with pytest.raises(DatasetError, match=message):
            check_run(folder, KEYS, {})
