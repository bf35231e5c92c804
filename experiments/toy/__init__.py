"""Rules on two losses in the plane."""
