"""Grok-1's mathematics, one step at a time.

Everything that touches weights is written for one device of a mesh ("data", "model") and runs
inside `jax.shard_map`: arrays are local shards, and the collectives over "model" stand in the code
where they happen.

Names of arrays end in their dimensions, in order:

    B  sequences of a step          T  query tokens           N  tokens, B and T merged
    H  query heads (this device)    K  key/value heads (this device)
    G  query heads per KV head      C  width of one head      S  cached tokens
    E  experts                      X  experts chosen per token
    F  expert width (this device)   L  layers
    D  model width                  V  vocabulary             U  this device's rows of it
    P  pages                        Z  tokens per page        J  entries of a page table
    W  columns of D on this device: all of them, or D / m when activations are split over the m
       devices of "model"
"""
