"""Puts suites/ into the wheel as bench/shipped_suites; all else stands in pyproject.toml."""

from setuptools import setup
from setuptools.command.build_py import build_py

SUITES = ["bench.shipped_suites", "bench.shipped_suites.documents"]


class BuildWithSuites(build_py):
    """Builds the packages that were found, and the suites, which lie elsewhere."""

    def finalize_options(self) -> None:
        """Add the suites, of which an editable install knows nothing."""
        super().finalize_options()
        if not self.editable_mode:
            self.packages = [*self.packages, *SUITES]


setup(cmdclass={"build_py": BuildWithSuites})
