"""What is scored without training: kept weights that lack evaluations, or a user's checkpoint."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.records.case_folder import CaseFolder, results_folder
from bench.records.record import Resolved, read_record, read_resolved, write_resolved
from bench.runner.task import Options, Outcome, Task
from bench.suite.expand import matching
from bench.suite.load import SuiteFile
from bench.suite.suite import Suite


def checkpoint_settings(
    file: SuiteFile, pattern: str | None, checkpoint: Path
) -> Mapping[str, Any]:
    """Return the settings that make a suite score a checkpoint instead of training.

    Raises:
        UserError: if the matching cases have several models, or the file does not exist.
    """
    cases = matching(file.cases(), pattern)
    models = sorted({case.model_name for case in cases})
    if len(models) > 1:
        raise UserError(
            "A checkpoint belongs to one model; choose it with --filter (now: "
            f"{', '.join(models)})."
        )
    if not checkpoint.is_file():
        what = "is a folder; give a file" if checkpoint.is_dir() else "does not exist"
        raise UserError(f"Checkpoint {checkpoint} {what}.")
    weights = {f"models.{name}.weights": {"model": str(checkpoint.resolve())} for name in models}
    once = {} if file.suite.cases is not None else {"seeds": [min(case.seed for case in cases)]}
    return {**weights, "recipe.epochs": 0, **(once if len(file.suite.seeds) > 1 else {})}


@dataclass(frozen=True)
class Scoring:
    """The cases of a suite to score with the evaluations that they lack."""

    suite: Suite
    tasks: Sequence[Task]

    def run(self, options: Options) -> Iterator[Outcome]:
        """Score case after case."""
        from bench.runner.run_case import evaluate_case

        return (evaluate_case(task, options) for task in self.tasks)


def scoring_of_suite(
    file: SuiteFile, pattern: str | None, settings: Sequence[str], out: Path
) -> Scoring:
    """Return the cases of a suite to score; save its new evaluations with its results."""
    cases = file.cases()
    folder = results_folder(out, file.suite, settings)
    chosen = matching(cases, pattern)
    if chosen and (folder / "suite.json").exists():
        resolved = Resolved(suite=file.suite, settings=tuple(settings), cases=tuple(cases))
        write_resolved(folder, resolved)
    tasks = [Task.of(file.suite, case, folder / case.folder) for case in chosen]
    return Scoring(file.suite, tasks)


def scoring_of_folder(folder: Path) -> Scoring:
    """Return the one case in a folder, to score with the evaluations of its suite.

    Raises:
        UserError: if it is not the folder of a case.
    """
    record, resolved = read_record(folder), read_resolved(folder.parent)
    if record is None and CaseFolder(folder).case.is_file():
        raise UserError(f"{folder} has no record: {CaseFolder(folder).unfinished}.")
    if record is None or resolved is None:
        raise UserError(f"{folder} is not the folder of a case; it has no record.json.")
    return Scoring(resolved.suite, [Task.of(resolved.suite, record.case, folder)])
