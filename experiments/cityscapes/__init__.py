"""Cityscapes: segmentation, instances and depth, the paper's third experiment."""
