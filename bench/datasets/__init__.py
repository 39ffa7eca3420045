"""Datasets: the built-in ones, and the classes to write your own with."""

from bench.datasets.base import IGNORE_INDEX, Dataset, FileFault, Labels, NoOptions, Sample

__all__ = ["IGNORE_INDEX", "Dataset", "FileFault", "Labels", "NoOptions", "Sample"]
