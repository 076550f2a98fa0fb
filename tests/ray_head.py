"""`ray start` without the processes that no test uses: dashboard, autoscaler and log monitor.

python -m tests.ray_head start --head …
"""

from ray.scripts.scripts import main

from jobs.cluster.local_node import small_nodes

if __name__ == "__main__":
    with small_nodes():
        main()
