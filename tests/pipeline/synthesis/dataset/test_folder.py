import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import storage
from pipeline.errors import ConfigError, DatasetError
from pipeline.synthesis.dataset import files
from pipeline.synthesis.dataset.card import CardTexts, render
from pipeline.synthesis.dataset.folder import DatasetFolder, Layout
from pipeline.synthesis.dataset.markdown import bar, block, code, inline, table
from pipeline.synthesis.prompts.templates import TemplateSpec
from pipeline.synthesis.selection.rules import SelectionRules
from pipeline.synthesis.selection.selection import Selection
from tests.memory_s3 import MemoryS3, serve
from tests.pipeline.synthesis.sample_tables import KEPT
from tests.pipeline.synthesis.selection.test_completions_and_selection_pass import own_run, seeds
from tests.pipeline.synthesis.written_run import OwnRun, write_prompts

TEXTS = CardTexts(
    "Ours", "cc0-1.0", (("model", "demo"),), (("n", 2),), (TemplateSpec("t", "{{ a }}"),), (), ()
)
RULES = SelectionRules(dedup_memory_mb=1)


@pytest.fixture
def run(tmp_path: Path) -> OwnRun:
    made = OwnRun(str(tmp_path), write_prompts(str(tmp_path), seeds(tmp_path / "seeds.parquet")))
    made.commit(range(len(made.shards)))
    return made


def write(
    run: OwnRun, url: Path | str, rules: SelectionRules = RULES, by: tuple[str, ...] = ()
) -> dict[str, Any]:
    completions = run.completions()
    selection = Selection(rules, completions.kept, logprobs=True, partition_by=by)
    return DatasetFolder(str(url)).write(
        completions, selection, Layout(10**9, by), replace(TEXTS, partition_by=by), None
    )


def contents(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_a_data_set_has_all_its_parts_and_counts_that_add_up(run: OwnRun, tmp_path: Path) -> None:
    report = write(run, tmp_path / "out")
    assert sorted(contents(tmp_path / "out")) == [
        "README.md", "_SUCCESS", "data/train-00000.parquet", "rejected/rejected-00000.parquet", "sources.json", "statistics.json",
    ]  # fmt: skip
    accepted, rejected = (pq.read_table(tmp_path / "out" / name) for name in ("data", "rejected"))
    assert accepted.num_rows == report["accepted"]
    assert sum(rejected["samples"].to_pylist()) == report["rejected"] + report["failed"]
    assert report["samples"] == report["accepted"] + report["rejected"] + report["failed"] == 2 * 20
    assert json.loads((tmp_path / "out" / "statistics.json").read_text()) == json.loads(
        json.dumps(report, default=str)
    )
    assert sum(each["rows"] for each in report["files"]) == accepted.num_rows + rejected.num_rows


def test_a_selection_killed_at_any_write_is_repeated_and_gives_the_same_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(files, "GROUP_ROWS", 4)
    rules, by, store = SelectionRules(dedup_memory_mb=1, target_rows=20), ("a",), MemoryS3()
    root = serve(store, monkeypatch)
    run = own_run(root)
    run.commit(range(len(run.shards)))
    write(run, f"{root}/whole", rules, by)
    expected = below(store, "bucket/run/whole/")
    for last in range(len(expected)):
        puts = [last]

        def dying(operation: str, when: str, puts: list[int] = puts) -> None:
            if (operation, when) == ("put", "before"):
                if not puts[0]:
                    raise KeyboardInterrupt
                puts[0] -= 1

        store.at = dying
        with pytest.raises(KeyboardInterrupt):
            write(run, f"{root}/again-{last}", rules, by)
        store.at = lambda operation, when: None
        write(run, f"{root}/again-{last}", rules, by)
        assert below(store, f"bucket/run/again-{last}/") == expected


def below(store: MemoryS3, folder: str) -> dict[str, bytes]:
    return {
        name.removeprefix(folder): data
        for name, data in store.objects.items()
        if name.startswith(folder)
    }


@pytest.mark.s3
def test_a_data_set_on_object_storage_is_the_same(run: OwnRun, tmp_path: Path, s3_url: str) -> None:
    write(run, tmp_path / "out")
    write(run, f"{s3_url}/out")
    stored = {
        each.url.removeprefix(f"{s3_url}/out/"): storage.read(each.url)[0]
        for each in storage.list_objects(f"{s3_url}/out")
    }
    assert stored == contents(tmp_path / "out")


def test_a_run_that_is_not_complete_is_not_selected_from(tmp_path: Path) -> None:
    run = OwnRun(str(tmp_path), write_prompts(str(tmp_path), seeds(tmp_path / "seeds.parquet")))
    run.commit([0, 2])
    with pytest.raises(
        DatasetError,
        match=r"part-00001.parquet is not there yet, and there are not enough rows without it",
    ):
        write(run, tmp_path / "out")
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    report = write(run, tmp_path / "less", SelectionRules(dedup_memory_mb=1, target_rows=3))
    assert (report["accepted"], report["stopped_by"]) == (3, "target_rows")
    assert report["seed_rows_not_needed"] == 20 - report["seed_rows"] > 0


def test_a_budget_that_ended_before_the_first_shard_leaves_nothing_to_select(
    run: OwnRun, tmp_path: Path
) -> None:
    completions = run.completions()
    with pytest.raises(DatasetError, match="there is nothing to select from"):
        DatasetFolder(str(tmp_path / "out")).write(
            completions, Selection(RULES, completions.kept, logprobs=True), Layout(10**9), TEXTS, 0
        )


def test_completions_that_changed_since_are_noticed(run: OwnRun, tmp_path: Path) -> None:
    write(run, tmp_path / "out")
    DatasetFolder(str(tmp_path / "out")).check_sources(run.completions())
    (part, *_) = sorted((tmp_path / "completions" / "data").iterdir())
    data = part.read_bytes()
    part.unlink()
    part.write_bytes(data)
    with pytest.raises(
        ConfigError, match="was made of other completions: rows were run again since"
    ):
        DatasetFolder(str(tmp_path / "out")).check_sources(run.completions())


# -- the card -------------------------------------------------------------------------------------------------------------------


def test_the_card_tells_everything(run: OwnRun, tmp_path: Path) -> None:
    rules = SelectionRules(
        dedup_memory_mb=1, where=("a > 3",), dedup_on=("prompt",), must_match=("sample",)
    )
    write(run, tmp_path / "out", rules, by=("a",))
    card = (tmp_path / "out" / "README.md").read_text()
    for expected in (
        'pretty_name: "Ours"', 'license: "cc0-1.0"', "- n<1K", 'path: "data/**/*.parquet"', "# Ours", "`null_value`",
        "| `a > 3` | ",
        "an accepted sample", "```jinja\n{{ a }}\n```", TEXTS.templates[0].digest, "| 4 | ", "-0.50 to -0.25", "⟦ s4, sample 0⟧",
        "`where`: `a > 3`", "the name of a folder, not in the files",
    ):  # fmt: skip
        assert expected in card


HOSTILE = "```\n# heading\n<script>alert(1)</script> ![x](http://evil) | a | b\n---\n~~~ \x1b[31m \u202e www.evil.org `x``"


def test_nothing_from_outside_takes_effect_in_the_card(run: OwnRun, tmp_path: Path) -> None:
    hostile = {"s0", "s1"}
    run = OwnRun(
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
    """Returns the lines that are no fenced block, their code spans taken out: what a renderer reads as Markdown."""
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


@settings(deadline=None)
@given(st.text(min_size=1))
def test_code_and_cells_hold_any_text(text: str) -> None:
    for shown in (inline(text), code(text)):
        assert "\n" not in shown
        assert "\r" not in shown
        assert not _unescaped_pipe(shown)
    (line,) = table(("a", "b"), [(code(text), inline(text))]).splitlines()[2:]
    assert line.startswith("| ")
    assert line.endswith(" |")
    fenced = block(text).splitlines()
    assert fenced[0] == fenced[-1]
    assert fenced[0] not in fenced[1:-1]


def _unescaped_pipe(shown: str) -> bool:
    at = 0
    while at < len(shown):
        if shown[at] == "|":
            return True
        at += 2 if shown[at] == "\\" and at + 1 < len(shown) else 1
    return False


def test_what_markdown_helpers_give() -> None:
    assert inline("a_b | <x> https://h www.h") == "a\\_b \\| \\<x\\> https:/\\/h www\\.h"
    assert code("a|b") == "<code>a&#124;b</code>"
    assert code("`") == "`` ` ``"
    assert code("s3://user:secret@bucket/x") == "`s3://bucket/x`"
    assert (bar(1), bar(0), bar(0.5)) == ("█" * 24, "", "█" * 12)


def test_figures_of_a_card_are_those_of_the_report() -> None:
    report: dict[str, Any] = {
        "accepted": 2_000_000, "rejected": 7, "failed": 1, "samples": 2_000_008, "seed_rows": 9,
        "tokens": {"prompt": 1, "completion": 2},
        "stages": [{"stage": "generation", "samples": 2_000_008, "left_out": 1}], "reasons": {"generation": {"engine_crash": 1}},
        "templates": {}, "completion_tokens_histogram": {"accepted": [], "rejected": []}, "seed_rows_not_needed": 0,
        "mean_logprob_histogram": {"accepted": [], "rejected": []}, "duplicates": None, "examples": [], "rejected_examples": [],
    }  # fmt: skip
    card = render(TEXTS, report, Selection(RULES, KEPT, logprobs=True).schema, [])
    assert "- 1M<n<10M" in card
    assert "2,000,008 samples = 2,000,000 accepted + 7 rejected + 1 failed." in card
    assert "Not looked for." in card
