"""CelebA: forty attributes of a face, the paper's second experiment."""
