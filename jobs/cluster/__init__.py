"""Connection of a driver to Ray: a running cluster, or a local one that ends with the driver."""
