"""MultiMNIST: two digits in one picture, the paper's first experiment."""
