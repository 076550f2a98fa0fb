"""What ends a completion: a token, a stop string, a repeated pattern or its length."""
