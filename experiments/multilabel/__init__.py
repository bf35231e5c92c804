"""Many binary labels of one example, each a task."""
