import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.synthesis.dataset.card import CardTexts, render
from pipeline.synthesis.dataset.folder import DatasetFolder, Layout
from pipeline.synthesis.prompts.templates import TemplateSpec
from pipeline.synthesis.selection.rules import SelectionRules
from pipeline.synthesis.selection.selection import Selection
from tests.pipeline.synthesis.sample_tables import KEPT
from tests.pipeline.synthesis.written_run import WrittenRun, seeds, write_prompts

TEXTS = CardTexts(
    "Ours", "cc0-1.0", (("model", "demo"),), (("n", 2),), (TemplateSpec("t", "{{ a }}"),), (), ()
)


RULES = SelectionRules(dedup_memory_mb=1)


@pytest.fixture
def run(tmp_path: Path) -> WrittenRun:
    made = WrittenRun(
        str(tmp_path), write_prompts(str(tmp_path), seeds(tmp_path / "seeds.parquet"))
    )
    made.commit(range(len(made.shards)))
    return made


def write(
    run: WrittenRun, url: Path | str, rules: SelectionRules = RULES, by: tuple[str, ...] = ()
) -> dict[str, Any]:
    completions = run.completions()
    selection = Selection(rules, completions.kept, logprobs=True, partition_by=by)
    return DatasetFolder(str(url)).write(
        completions, selection, Layout(10**9, by), replace(TEXTS, partition_by=by), None
    )


def test_card_shows_all_sections(run: WrittenRun, tmp_path: Path) -> None:
    rules = SelectionRules(
        dedup_memory_mb=1, where=("a > 3",), dedup_on=("prompt",), must_match=("sample",)
    )
    write(run, tmp_path / "out", rules, by=("a",))
    card = (tmp_path / "out" / "README.md").read_text()
    for expected in (
        'pretty_name: "Ours"',
        'license: "cc0-1.0"',
        "- n<1K",
        'path: "data/**/*.parquet"',
        "# Ours",
        "`null_value`",
        "| `a > 3` | ",
        "an accepted sample",
        "```jinja\n{{ a }}\n```",
        TEXTS.templates[0].digest,
        "| 4 | ",
        "-0.50 to -0.25",
        "⟦ s4, sample 0⟧",
        "`where`: `a > 3`",
        "the name of a folder, not in the files",
    ):
        assert expected in card


HOSTILE = (
    "```\n# heading\n<script>alert(1)</script> ![x](http://evil) | a | b\n---\n~~~ \x1b[31m \u202e "
    "www.evil.org `x``"
)


def test_card_shows_outside_text_literally(run: WrittenRun, tmp_path: Path) -> None:
    hostile = {"s0", "s1"}
    run = WrittenRun(
        str(tmp_path / "h"),
        run.prompts,
        answer=lambda row, sample: {"text": HOSTILE if row["id"] in hostile else "x"},
    )
    run.commit(range(len(run.shards)))
    completions = run.completions()
    selection = Selection(
        SelectionRules(must_not_match=("^x|y$",), dedup="none"), completions.kept, logprobs=True
    )
    texts = CardTexts(
        HOSTILE,
        HOSTILE,
        (("model", HOSTILE),),
        ((HOSTILE, HOSTILE),),
        (TemplateSpec(HOSTILE, HOSTILE),),
        (),
        (),
    )
    DatasetFolder(str(tmp_path / "out")).write(completions, selection, Layout(10**9), texts, None)
    card = (tmp_path / "out" / "README.md").read_text()
    # the front matter before it is YAML of JSON texts
    outside = outside_of_code(card.split("\n---\n", 1)[1])
    assert re.search(r"(?<!\\)<script", outside) is None
    assert re.search(r"(?<!\\)\[x", outside) is None
    assert not any(line.startswith("# heading") for line in outside.splitlines())
    assert "http://evil" not in outside
    assert "\x1b" not in card
    assert "\u202e" not in card
    assert [line[:8] for line in outside.splitlines() if line.startswith("# ")] == ["# \\`\\`\\`"]


def outside_of_code(card: str) -> str:
    """Returns the lines outside fenced blocks, without code spans: what a renderer reads."""
    lines, fence = [], ""
    for line in card.splitlines():
        opening = re.match(r"(`{3,})(\w*)$", line)
        if fence:
            fence = "" if line == fence else fence
        elif opening:
            fence = opening[1]
        else:
            lines.append(re.sub(r"(?<![`\\])(`+)(?!`).*?(?<!`)\1(?!`)", "", line))
    assert not fence
    return "\n".join(lines)


REPORT: dict[str, Any] = {
    "accepted": 2_000_000,
    "rejected": 7,
    "failed": 1,
    "samples": 2_000_008,
    "seed_rows": 9,
    "tokens": {"prompt": 1, "completion": 2},
    "stages": [{"stage": "generation", "samples": 2_000_008, "left_out": 1}],
    "reasons": {"generation": {"engine_crash": 1}},
    "templates": {},
    "completion_tokens_histogram": {"accepted": [], "rejected": []},
    "seed_rows_not_needed": 0,
    "mean_logprob_histogram": {"accepted": [], "rejected": []},
    "duplicates": None,
    "examples": [],
    "rejected_examples": [],
}


def test_card_shows_figures_of_the_report() -> None:
    card = render(TEXTS, REPORT, Selection(RULES, KEPT, logprobs=True).schema, [])
    assert "- 1M<n<10M" in card
    assert "2,000,008 samples = 2,000,000 accepted + 7 rejected + 1 failed." in card
    assert "Not looked for." in card


@pytest.mark.parametrize(
    ("rows", "category"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (10**8 - 1, "10M<n<100M"), (10**8, "n>100M")],
)
def test_card_has_size_category_of_the_hub(rows: int, category: str) -> None:
    schema = Selection(RULES, KEPT, logprobs=True).schema
    assert f"\n- {category}\n" in render(TEXTS, {**REPORT, "accepted": rows}, schema, [])


def test_card_shows_histograms_and_bounded_examples() -> None:
    def bins(rows: int) -> list[dict[str, float]]:
        return [{"from": -0.5, "to": -0.25, "rows": rows}]

    rejected = [{"id": f"r{n}", "stage": "stop", "reason": f"reason {n}"} for n in range(12)]
    report = {
        **REPORT,
        "mean_logprob_histogram": {"accepted": bins(8), "rejected": bins(4)},
        "rejected_examples": rejected,
    }
    card = render(TEXTS, report, Selection(RULES, KEPT, logprobs=True).schema, [])
    assert f"| -0.50 to -0.25 | 8 | {'█' * 24} | 4 | {'█' * 12} |\n" in card
    assert card.count("`stop`: `reason ") == 10
