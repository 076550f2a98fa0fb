"""Synthetic data: seed rows and templates → request rows.

Output rows of the pipeline → accepted and rejected rows, a data card.

seeds ─ seeds.py ─▶ rows ─ prompts.py (templates.py, shots.py) ─▶ prompts/data ─ the pipeline ─▶ completions/data
                                      │ template rejected                                              │
                                      ▼                                                                │ completions.py (join)
                              prompts/rejected ──────▶ selection.py, shard by shard, in input order ◀──┘
                                                         filters.py  fields.py  expressions.py  choice.py  duplicates.py
                                                                  │                        │
                                            dataset/data, rejected (files.py)     statistics.py ─ card.py ─▶ dataset/README.md

Every sample ends in exactly one place: accepted, or rejected with stage and reason. A row's fate
depends on rows before it and never on rows after it, nor on which shard was finished first.
"""
