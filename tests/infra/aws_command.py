"""The few `aws` commands that nodes use, on S3 over HTTP (s3fs) and a folder of SSM parameters.

Run as a script by the tests.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any


def s3() -> Any:
    """Imported only by who needs it: it takes a second."""
    import s3fs

    return s3fs.S3FileSystem(skip_instance_cache=True)


def sync(source: str, target: str) -> None:
    """`aws s3 sync --delete SOURCE TARGET`: what is missing or of another size.

    From S3 to a folder or back.
    """
    files = s3()
    if not source.startswith("s3://"):
        files.put(f"{source}/", target, recursive=True)
        return
    root = source.removeprefix("s3://").rstrip("/")
    wanted = {
        path.removeprefix(root + "/"): entry["size"]
        for path, entry in files.find(root, detail=True).items()
    }
    for name, size in wanted.items():
        path = Path(target, name)
        if not path.exists() or path.stat().st_size != size:
            path.parent.mkdir(parents=True, exist_ok=True)
            files.get_file(f"{root}/{name}", str(path))
    for path in [path for path in Path(target).rglob("*") if path.is_file()]:
        if str(path.relative_to(target)) not in wanted:
            path.unlink()


def copy(source: str, target: str) -> None:
    """`aws s3 cp`."""
    files = s3()
    if source == "-":
        files.pipe_file(target, sys.stdin.read().encode())
    elif source.startswith("s3://"):
        files.get_file(source, target)
    else:
        files.put_file(source, target)


def parameter(words: list[str]) -> None:
    """`aws ssm get-parameter` and `put-parameter`, on a folder."""
    store = Path(os.environ["FAKE_SSM"])
    if words[0] == "put-parameter":
        request = json.loads(
            Path(words[words.index("--cli-input-json") + 1].removeprefix("file://")).read_text()
        )
        assert request["Type"] == "SecureString"
        # fails where it exists, as AWS does
        with (store / request["Name"].strip("/").replace("/", ".")).open("x") as file:
            file.write(request["Value"])
        return
    path = store / words[words.index("--name") + 1].strip("/").replace("/", ".")
    if not path.exists():
        sys.exit("An error occurred (ParameterNotFound) when calling the GetParameter operation")
    sys.stdout.write(f"{path.read_text()}\n")


def main(words: list[str]) -> None:
    """Does what the words say."""
    places = [word for word in words[2:] if not word.startswith("--")]  # "-" is a place
    if words[:2] == ["s3", "sync"]:
        sync(*places)
    elif words[:2] == ["s3", "cp"]:
        copy(*places)
    elif words[:2] == ["s3", "ls"]:
        sys.exit(not s3().exists(places[0]))
    elif words[0] == "ssm":
        parameter(words[1:])


if __name__ == "__main__":
    main(sys.argv[1:])
