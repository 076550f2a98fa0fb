"""`python -m grok_batch`: the console command where its script is not installed."""

from grok_batch.console import main
from jobs.cli.command import run_main

run_main(main)
