"""The command `evaluate`."""

from collections.abc import Sequence
from pathlib import Path

from bench.cli.commands.run import run_suites
from bench.cli.console import Console
from bench.cli.options import Where
from bench.cli.outcomes import Outcomes, exit_code, nothing_matched
from bench.errors import Exit, UserError
from bench.runner.scoring import Scoring, checkpoint_settings, scoring_of_folder, scoring_of_suite
from bench.runner.validate import load_checked
from bench.suite.expand import matching
from bench.suite.load import as_settings


def evaluate_target(
    target: str,
    pattern: str | None,
    settings: Sequence[str],
    where: Where,
    checkpoint: Path | None,
    console: Console,
) -> Exit:
    """Run the evaluations that cases still lack on their kept weights, or score a checkpoint."""
    if Path(target).is_dir():
        if pattern or checkpoint or settings:
            raise UserError(
                "The folder of a case is scored as its suite says; --filter, --checkpoint, --set "
                "and --limit go with a suite file."
            )
        return _evaluate(scoring_of_folder(Path(target)), where, console)
    file = load_checked(target, settings)
    if not matching(file.cases(), pattern):
        return nothing_matched(console, pattern)
    if checkpoint is not None:
        own = as_settings(checkpoint_settings(file, pattern, checkpoint))
        return run_suites([target], pattern, [*settings, *own], where, console, retry_failed=True)
    return _evaluate(scoring_of_suite(file, pattern, settings, where.out), where, console)


def _evaluate(scoring: Scoring, where: Where, console: Console) -> Exit:
    shown = Outcomes(scoring.suite, len(scoring.tasks), console)
    for task, outcome in zip(scoring.tasks, scoring.run(where.options()), strict=True):
        shown.add(outcome, task)
    return exit_code(shown.ended)
