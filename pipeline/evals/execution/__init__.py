"""Execution of generated programs in a sandbox.

sandbox.py        the driver's side: sends programs, receives whether each ran to its end
sandbox_child.py  the process that forks one or two confined processes per program
confinement.py    what a confined process may do
remote_calls.py   calls of a candidate in a process of its own, as plain values
programs.py       a program in its parts
"""
