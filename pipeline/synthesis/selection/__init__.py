"""Selection of samples: parsing, filters, duplicates, votes."""
