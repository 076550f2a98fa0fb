"""Three requests: one that is scored, one that is completed, and one with two samples."""

from pipeline.evals.suite import EvalRequest

SCORED = EvalRequest(
    "mmlu_anatomy/0", "mmlu_anatomy", 0, "q", " B", choices=(" A", " B", " C", " D")
)
COMPLETED = EvalRequest(
    "gsm8k/0", "gsm8k", 0, "q", "#### 4", stop=("Question:",), max_tokens=9, temperature=0.0, n=1
)
SAMPLED = EvalRequest(
    "humaneval/0",
    "humaneval",
    0,
    "def f():",
    "check(f)",
    stop=("\ndef",),
    max_tokens=9,
    temperature=1.0,
    n=2,
)
REQUESTS = (SCORED, COMPLETED, SAMPLED)
