"""Types that cross the border between driver and replicas. Standard library only."""
