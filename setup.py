"""Put suites/ into the wheel as bench/shipped_suites; everything else is in pyproject.toml."""

from setuptools import setup
from setuptools.command.build_py import build_py

SUITES = ["bench.shipped_suites", "bench.shipped_suites.documents"]


class BuildWithSuites(build_py):
    """Build the packages that setuptools finds, and the suites, which are in another folder."""

    def finalize_options(self) -> None:
        """Add the suites, except to an editable install, which reads them from the checkout."""
        super().finalize_options()
        if not self.editable_mode:
            self.packages = [*self.packages, *SUITES]


setup(cmdclass={"build_py": BuildWithSuites})
