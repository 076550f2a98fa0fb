"""Synthetic data: seed rows and templates to prompts, completions to a data set with a data card.

    seeds ── prompts/seed_rows ──▶ rows ── prompts/builder (templates, shots) ──▶ request rows
                                             │ rows without a prompt               │
                                             ▼                                     ▼
                                     prompts/rejected                          the main job
                                             │                                     │
                                             ▼                                     ▼
    selection/selection_pass ◀── blocks in input order ── selection/completions ◀── output rows
             │ selection/selection: filters, fields, expressions, choice, partitions, duplicates
             ▼
    accepted and rejected rows ── dataset/folder (files, card) ──▶ data/, rejected/, README.md

Every sample ends in one place: accepted, or rejected with stage and reason. The result for a row
depends on rows before it, never on rows after it or on the order in which shards are committed.
"""
