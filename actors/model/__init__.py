"""Grok-1's mathematics, one step at a time. No Ray, no text; files only in checkpoint.py.

Everything that touches weights is written for one device of a mesh ("data", "model") and runs
inside `jax.shard_map`: arrays are local shards, and the collectives over "model" stand in the code
where they happen.

Names of arrays end in their dimensions, in order:

    B sequences of a step      H query heads (on this device)    E experts T query tokens
    K key/value heads (this device)   X experts chosen per token S cached tokens            G query
    heads per KV head         F expert width (this device) D model width              C width of one
    head               V vocabulary (U: this device's rows of it) W columns of D held here   (all of
    them, or D / m when activations are split over the m devices of "model") N tokens, B and T
    merged   L layers                          P pages;  Z tokens per page
"""
