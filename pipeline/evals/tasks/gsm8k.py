"""GSM8K: word problems, answered in free text (lm-evaluation-harness: gsm8k 3.0, gsm8k_cot 3.0).

    gsm8k        5 shots, drawn from the training rows anew for every document
    gsm8k_cot    8 fixed worked examples ("chain of thought"), read from gsm8k/cot_shots.jsonl

Both filters are reported. Pitfalls of the task itself: "18.00" is not "18"; the strict pattern of
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
COLUMNS = ("question", "answer")
SHOTS = 5
COT_SHOTS_FILE = "gsm8k/cot_shots.jsonl"
COT_SHOTS = 8
SHOT_SEED = 1234
MAX_TOKENS = 256  # the harness's default for models
END_MARKS = ("</s>", "<|im_end|>")
FLEXIBLE = Extraction("flexible-extract", r"(-?[$0-9.,]{2,})|(-?[0-9]+)", match_index=-1)
EXTRACTIONS = {
    "gsm8k": (Extraction("strict-match", r"#### (\-?[0-9\.\,]+)"), FLEXIBLE),
    "gsm8k_cot": (Extraction("strict-match", r"The answer is (\-?[0-9.,]+)."), FLEXIBLE),
}
IGNORED = (",", r"\$", r"(?s).*#### ", r"\.$")


def prompts(data: DataFolder, task: str, options: PromptOptions) -> Iterator[EvalRequest]:
    """Yields the requests of one task.

    Raises:
        DatasetError: the data set, or for gsm8k_cot the file of worked examples, is missing or has
            too few rows.
    """
    documents = data.rows(FOLDER, "test", COLUMNS)[: options.limit]
    if task == "gsm8k":
        return _drawn_shots(data, documents)
    return _fixed_shots(data, documents)


def _drawn_shots(data: DataFolder, documents: Sequence[Mapping[str, str]]) -> Iterator[EvalRequest]:
    pool = data.rows(FOLDER, "train", COLUMNS)
    if len(pool) < SHOTS:
        raise DatasetError(
            f"{FOLDER}/train: expected at least {SHOTS} rows to draw shots from, found {len(pool)}"
        )
    # one generator for all documents: the shots of a document depend on its position
    generator = random.Random(SHOT_SEED)
    for doc_id, row in enumerate(documents):
        shots = ""
        for example in generator.sample(pool, SHOTS):
            shots += f"Question: {example['question']}\nAnswer: {example['answer']}\n\n"
        prompt = f"{shots}Question: {row['question']}\nAnswer:"
        yield _request("gsm8k", doc_id, prompt, row["answer"], "Question:")


def _fixed_shots(data: DataFolder, documents: Sequence[Mapping[str, str]]) -> Iterator[EvalRequest]:
    examples = data.json_lines(COT_SHOTS_FILE, COLUMNS)
    if len(examples) != COT_SHOTS:
        raise DatasetError(
            f"{COT_SHOTS_FILE}: expected {COT_SHOTS} worked examples, found {len(examples)}"
        )
    shots = ""
    for example in examples:
        shots += f"Q: {example['question']}\nA: {example['answer']}\n\n"
    for doc_id, row in enumerate(documents):
        target = row["answer"].split("####")[-1].strip()
        yield _request("gsm8k_cot", doc_id, f"{shots}Q: {row['question']}\nA:", target, "Q:")


def _request(task: str, doc_id: int, prompt: str, target: str, stop: str) -> EvalRequest:
    stops = (stop, *END_MARKS)
    return EvalRequest.of_completion(
        task, doc_id, prompt, target, stop=stops, max_tokens=MAX_TOKENS
    )


def score(request: EvalRequest, answers: Sequence[Answer]) -> Verdict:
    """Returns whether each filter finds the right number.

    A failed row has no text, and is wrong.
    """
    [answer] = answers
    values = {}
    extracted = []
    for extraction in EXTRACTIONS[request.task]:
        text = extraction.answer(answer.text)
        extracted.append(text)
        is_right = exact_match(text, request.target, IGNORED)
        values[f"exact_match,{extraction.name}"] = float(is_right)
    return Verdict(values, " | ".join(dict.fromkeys(extracted)))


SUITES = tuple(Suite(name, {name: name}, prompts, score) for name in ("gsm8k", "gsm8k_cot"))
