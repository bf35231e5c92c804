"""Rules on small problems with known Pareto sets."""
