import inspect

import pytest
from ray._private import node

from jobs.cluster.local_node import small_nodes

UNUSED = ("start_api_server", "start_monitor", "start_log_monitor")


def test_small_nodes_are_the_nodes_of_ray_init_within_the_block() -> None:
    ray_node = node.Node

    with small_nodes():
        assert issubclass(node.Node, ray_node)
        assert node.Node is not ray_node

    assert node.Node is ray_node


@pytest.mark.parametrize("method", UNUSED)
def test_small_node_replaces_a_method_that_ray_calls(method: str) -> None:
    with small_nodes():
        small_node = node.Node

    own_parameters = inspect.signature(vars(small_node)[method]).parameters
    ray_parameters = inspect.signature(getattr(node.Node, method)).parameters
    assert own_parameters.keys() == ray_parameters.keys()
    starts = inspect.getsource(node.Node.start_head_processes)
    starts += inspect.getsource(node.Node.start_ray_processes)
    assert f"self.{method}(" in starts
