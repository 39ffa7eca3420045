"""Datasets: the built-in ones, and the classes to write your own with."""

from bench.datasets.base import IGNORE_INDEX, BaseOptions, Dataset, FileFault, Labels, Sample

__all__ = ["IGNORE_INDEX", "BaseOptions", "Dataset", "FileFault", "Labels", "Sample"]
