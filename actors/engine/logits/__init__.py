"""Changes to the logits of a decode step before a token is drawn, each an object of its own."""
