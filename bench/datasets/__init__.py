"""Datasets: what a suite can name, and what users' own are made of."""

from bench.datasets.base import IGNORE_INDEX, Dataset, FileFault, Labels, NoOptions, Sample

__all__ = ["IGNORE_INDEX", "Dataset", "FileFault", "Labels", "NoOptions", "Sample"]
