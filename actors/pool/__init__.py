"""Ray actors that run replicas, and the monitors that watch them."""
