"""Physics-informed networks: a network that solves a differential equation, a loss a condition."""
