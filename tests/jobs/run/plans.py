"""Plans over a small input of their own, for the tests of this folder."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.run.config import ScoreConfig
from jobs.run.plan import Plan, make_plan

PROMPT = range(3, 11)  # eight token ids


def demo_plan(folder: Path, prompts: Sequence[Sequence[int]], **flags: Any) -> Plan:
    """Returns the plan of the demo model for prompts of token ids."""
    source = folder / "rows.jsonl"
    rows = [json.dumps({"prompt_token_ids": list(prompt)}) for prompt in prompts]
    source.write_text("\n".join(rows) + "\n")

    values: dict[str, Any] = {
        "input": str(source),
        "output": str(folder / "out"),
        "model": "demo",
        "max_tokens": 6,
    }
    return make_plan(ScoreConfig(**(values | flags)))
