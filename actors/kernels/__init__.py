"""The parts of a layer whose speed depends on the platform: experts and attention over pages."""
