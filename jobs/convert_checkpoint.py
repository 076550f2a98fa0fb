"""Converts xAI's ckpt-0 to one safetensors file per tensor and a manifest of digests.

    python jobs/convert_checkpoint.py --source ckpt-0 --target s3://models/grok-1-converted

Source and target are folders on disk or URLs (s3:// and others to read, s3:// to write). Files
appear complete and are never overwritten; the manifest comes last. A conversion that was killed
continues with the same command: existing files are compared with the source, not written again.
Every file is read back and compared, number by number, unless --verify false.

Exit codes: 0 converted, or nothing to do; 2 bad arguments, or no checkpoint at the source; 75
interrupted, the same command continues; 1 anything else. Memory: about four tensors per worker, for
Grok-1 some 13 GB each.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

# Started as a file, Python looks for modules in jobs/, not in the repository.
if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from actors.protocol.plain_text import bare
from jobs.cli.command import run_command, run_main
from jobs.cli.exit_codes import ExitCode
from jobs.cli.parser import parse
from jobs.run.models import model_config
from jobs.weights.convert import ConvertConfig, check_source, convert


def main(arguments: Sequence[str], *, program: str = "convert_checkpoint.py") -> int:
    """Converts the checkpoint of a command line and returns the exit code."""
    return run_command(lambda: _convert(arguments, program))


def _convert(arguments: Sequence[str], program: str) -> int:
    config = parse(ConvertConfig, arguments, program=program, description=str(__doc__))
    source = str(config.source)
    target = str(config.target)
    model = model_config(config.model)

    check_source(source, model)
    manifest = convert(source, target, model, workers=config.workers, verify=config.verify)

    total_bytes = sum(file.size for file in manifest.files.values())
    print(
        f"{bare(target)}: {len(manifest.files):,} tensors, {total_bytes / 1e9:,.2f} GB, "
        f"{manifest.digest()}"
    )
    return ExitCode.OK


if __name__ == "__main__":
    run_main(main)
