"""GSM8K: word problems, answered in free text, as lm-evaluation-harness asks them (gsm8k 3.0, gsm8k_cot 3.0).

    gsm8k        5 shots, drawn from the training rows anew for every document
    gsm8k_cot    8 fixed worked examples ("chain of thought"), which are data: gsm8k/cot_shots.jsonl beside the data set

Both filters are reported. Traps that are the task's own: "18.00" is not "18"; the strict pattern of
gsm8k_cot ends in any character, so that "The answer is 42" at the end of a text gives "4"; "Q:"
ends a completion inside "FAQ:" too.
"""

import random
from collections.abc import Iterator, Mapping, Sequence

from pipeline.errors import DatasetError
from pipeline.evals.data_folder import DataFolder
from pipeline.evals.suite import Answer, EvalRequest, PromptOptions, Suite, Verdict
from pipeline.evals.text_match import Extraction, exact_match

FOLDER = "gsm8k/main"
COT_SHOTS = "gsm8k/cot_shots.jsonl"
COLUMNS = ("question", "answer")
SHOTS, COT_SHOT_COUNT, SHOT_SEED = 5, 8, 1234
MAX_TOKENS = 256  # the harness's default for models
END_MARKS = ("</s>", "<|im_end|>")
FLEXIBLE = Extraction("flexible-extract", r"(-?[$0-9.,]{2,})|(-?[0-9]+)", -1)
EXTRACTIONS = {
    "gsm8k": (Extraction("strict-match", r"#### (\-?[0-9\.\,]+)"), FLEXIBLE),
    "gsm8k_cot": (Extraction("strict-match", r"The answer is (\-?[0-9.,]+)."), FLEXIBLE),
}
IGNORED = (",", r"\$", r"(?s).*#### ", r"\.$")


def prompts(data: DataFolder, task: str, options: PromptOptions) -> Iterator[EvalRequest]:
    """Yields the requests of one task.

    Raises:
        DatasetError: the data set, or for gsm8k_cot the file of worked examples, is missing or has too few rows.
    """
    documents = data.rows(FOLDER, "test", COLUMNS)
    return (
        _drawn_shots(data, documents[: options.limit])
        if task == "gsm8k"
        else _fixed_shots(data, documents[: options.limit])
    )


def _drawn_shots(data: DataFolder, documents: Sequence[Mapping[str, str]]) -> Iterator[EvalRequest]:
    pool = data.rows(FOLDER, "train", COLUMNS)
    if len(pool) < SHOTS:
        raise DatasetError(
            f"{FOLDER}/train: expected at least {SHOTS} rows to draw shots from, found {len(pool)}"
        )
    # one for the whole task: a document's shots depend on its position
    draw = random.Random(SHOT_SEED)
    for doc_id, row in enumerate(documents):
        shots = (
            f"Question: {each['question']}\nAnswer: {each['answer']}\n\n"
            for each in draw.sample(pool, SHOTS)
        )
        prompt = f"{''.join(shots)}Question: {row['question']}\nAnswer:"
        yield _request("gsm8k", doc_id, prompt, row["answer"], "Question:")


def _fixed_shots(data: DataFolder, documents: Sequence[Mapping[str, str]]) -> Iterator[EvalRequest]:
    examples = data.json_lines(COT_SHOTS, COLUMNS)
    if len(examples) != COT_SHOT_COUNT:
        raise DatasetError(
            f"{COT_SHOTS}: expected {COT_SHOT_COUNT} worked examples, found {len(examples)}"
        )
    shots = "".join(f"Q: {each['question']}\nA: {each['answer']}\n\n" for each in examples)
    for doc_id, row in enumerate(documents):
        target = row["answer"].split("####")[-1].strip()
        yield _request("gsm8k_cot", doc_id, f"{shots}Q: {row['question']}\nA:", target, "Q:")


def _request(task: str, doc_id: int, prompt: str, target: str, stop: str) -> EvalRequest:
    return EvalRequest(
        f"{task}/{doc_id}",
        task,
        doc_id,
        prompt,
        target,
        stop=(stop, *END_MARKS),
        max_tokens=MAX_TOKENS,
        temperature=0.0,
        n=1,
    )


def score(request: EvalRequest, answers: Sequence[Answer]) -> Verdict:
    """Returns whether each filter finds the right number.

    A failed row has no text, and is wrong.
    """
    [answer] = answers
    found = {each.name: each.answer(answer.text) for each in EXTRACTIONS[request.task]}
    values = {
        f"exact_match,{name}": float(exact_match(text, request.target, IGNORED))
        for name, text in found.items()
    }
    return Verdict(values, " | ".join(dict.fromkeys(found.values())))


SUITES = tuple(Suite(name, {name: name}, prompts, score) for name in ("gsm8k", "gsm8k_cot"))
