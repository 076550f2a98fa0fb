"""Input files: listing, schema, shards and rows."""
