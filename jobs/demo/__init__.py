"""The embedded demo: its questions, the model and tokenizer that `make_demo.py` makes, and the run behind `make demo`."""
