"""The folder of a case as one of several processes that train it sees it."""

from dataclasses import dataclass
from pathlib import Path

from bench.records.case_folder import CaseFolder


@dataclass(frozen=True)
class RankFolder(CaseFolder):
    """The files of a case; each process but the first has a log of its own."""

    rank: int = 0

    @property
    def log(self) -> Path:
        """The log, with tracebacks."""
        return self.path / f"log.rank{self.rank}.txt" if self.rank else super().log
