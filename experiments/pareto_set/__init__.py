"""One network for a whole front: a hypernetwork from preferences to parameters."""
