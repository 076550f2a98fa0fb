"""Memory and programs of an engine, planned without its devices."""
