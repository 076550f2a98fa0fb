"""Evaluation: data sets as request rows, and their output rows as metrics, history and report.

data sets ─ tasks/*.py ─▶ EvalRequest ─ requests.py ─▶ requests.parquet ─ the pipeline ─▶ outputs
                             │                                                          │
                             └───────────── answers.py (join by id) ◀───────────────────┘
                                              │ scoring.py ─▶ Sample ─ metrics.py ─▶ metrics.json
                                              └ history.py, comparison.py ─ report/ ─▶ report.html

Every name and number of a task is that of lm-evaluation-harness.
"""
