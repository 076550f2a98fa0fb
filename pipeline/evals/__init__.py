"""Evaluation: data sets in Parquet → request rows (tasks/).

Output rows → metrics, history, comparison, report.

data sets ─ tasks/*.py ─▶ EvalRequest ─ requests.py ─▶ requests.parquet ─ the pipeline ─▶ output rows
                             │                                                                │
                             └────────────── answers.py (join by id) ◀────────────────────────┘
                                                 │ scoring.py ─▶ Sample ─ metrics.py ─▶ metrics.json
                                                 └ history.py, comparison.py ─ report.py ─▶ report.html

Every name and number of a task is that of lm-evaluation-harness.
"""
