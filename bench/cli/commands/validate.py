"""The command `validate`."""

from collections.abc import Sequence

from bench.cli.console import Console
from bench.cli.options import Where
from bench.runner.validate import check, load_checked, missing_files, remarks
from bench.suite.load import SuiteSource
from bench.text import plural


def validate_suites(
    sources: Sequence[SuiteSource],
    settings: Sequence[str],
    where: Where,
    console: Console,
    *,
    deep: bool,
) -> None:
    """Say of each suite that it is valid, with a line for each case that was tried."""
    options = where.options()
    for source in sources:
        file = load_checked(source, settings)
        cases = file.cases()
        checked = check(file, cases, options.roots, need_data=deep, device_name=options.device)
        if deep:
            from bench.runner.deep_check import check_deep

            for case, loss in check_deep(file, cases, options.roots, options.device):
                console.say(f"  {case.name}: loss {loss:.4f}")
        missing = [] if deep else list(missing_files(file.suite, cases, options.roots))
        for remark in remarks(file.suite, cases, options.roots, checked):
            console.say(f"Note: {remark}.")
        unseen = f"; not checked: {', '.join(missing)}" if missing else ""
        console.say(f"{source}: valid, {plural(len(cases), 'case')}{unseen}")
