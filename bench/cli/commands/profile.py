"""The command `profile`."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import cast, get_args

from bench.cli.console import Console
from bench.cli.options import read_names, read_size
from bench.cli.outcomes import nothing_matched
from bench.errors import Exit, Fault, UserError
from bench.lookup import unknown
from bench.machine.device import pick_device
from bench.machine.files import write_json, write_text
from bench.machine.numerics import CompileMode, MemoryFormat, Precision
from bench.models.networks import RUN_ERRORS
from bench.records.case_folder import CaseFolder, results_folder
from bench.records.record import Profile, Resolved, write_resolved
from bench.report.report import report
from bench.report.write import USUAL_FORMATS, write
from bench.runner.profile import Conditions, profile_case
from bench.runner.validate import load_checked
from bench.suite.case import Case
from bench.suite.expand import matching
from bench.suite.load import SuiteSource
from bench.text import first_line

SHOWN_TABLES = ("profile", "reported")


def profile_suite(
    source: SuiteSource,
    pattern: str | None,
    settings: Sequence[str],
    device_name: str,
    out: Path,
    console: Console,
    conditions: Sequence[Conditions] = (Conditions(),),
) -> Exit:
    """Count and time every network of a suite, without its data, and print the table.

    Args:
        conditions: under which each network is timed in turn.

    Raises:
        UserError: if networks do not run, with the line of each, after the others are done.
    """
    device = pick_device(device_name)
    file = load_checked(source, settings)
    cases = file.cases()
    chosen = _one_of_each(matching(cases, pattern))
    if not chosen:
        return nothing_matched(console, pattern)
    folder = results_folder(out, file.suite, settings)
    write_resolved(folder, Resolved(suite=file.suite, settings=tuple(settings), cases=tuple(cases)))
    faults = []
    todo = [(case, one) for case in chosen for one in conditions]
    for number, (case, one) in enumerate(todo, 1):
        how = _difference(one, conditions)
        head = f"[{number}/{len(todo)}] {case.label}{how and ', '}{how}"
        try:
            profile = profile_case(case, device, one)
        except (UserError, *RUN_ERRORS) as error:  # memory may run out, too
            faults.append(Fault(("models", case.model_name), first_line(error)))
            console.say(f"{head}: failed")
            continue
        kept = CaseFolder(folder / case.folder)
        write_json(kept.case, case.model_dump(mode="json"))
        place = kept.profile("-".join(how.split()))
        write_text(place, profile.model_dump_json(indent=1) + "\n")
        _show(profile, head, console)
    if len(faults) < len(todo):
        _report(folder, console)
    if faults:
        raise file.error(faults)
    return Exit.OK


def _difference(one: Conditions, all_of_them: Sequence[Conditions]) -> str:
    """Write what tells conditions from the others, such as "bf16 batch-8"; empty if alone."""
    named = {
        "precision": one.precision or "",
        "memory_format": one.memory_format or "",
        "compile": f"compile-{one.compile}" if one.compile else "",
        "batch_size": f"batch-{one.batch_size}",
    }
    differ = [key for key in named if len({getattr(other, key) for other in all_of_them}) > 1]
    return " ".join(named[key] for key in differ if named[key])


def _one_of_each(cases: Iterable[Case]) -> list[Case]:
    """Leave out the further seeds of a dataset, model and recipe: they cost the same."""
    found: dict[tuple[str, str, str], Case] = {}
    for case in cases:
        found.setdefault((case.dataset_name, case.model_name, case.recipe_name), case)
    return list(found.values())


def _show(profile: Profile, head: str, console: Console) -> None:
    """Print what a network costs."""
    if console.json_lines:
        line = profile.model_dump(mode="json", exclude={"case"})
        console.json(line | {"case": profile.case.name})
        return
    latency = profile.latency
    timed = (
        f"{latency.p50_ms:.1f} ms at {latency.size[0]}x{latency.size[1]}"
        if latency is not None
        else f"not timed: {profile.untimed}"
    )
    console.say(
        f"{head}: {profile.complexity['num_params'] / 1e6:.2f} M parameters, "
        f"{profile.complexity['gmacs']:.2f} GMAC, {timed}"
    )


def _report(folder: Path, console: Console) -> None:
    """Write the report of a profiled suite, and print its tables of costs."""
    [made] = report([folder], folder.parent)
    write([made], USUAL_FORMATS, None)
    if not console.json_lines:
        console.say("")
        console.report(made, [table for table in made.tables if table.kind in SHOWN_TABLES])
        console.say(f"Tables: {folder / 'report'}")


def read_conditions(
    size: str | None,
    threads: int | None,
    batch_sizes: str,
    precisions: str | None,
    memory_formats: str | None,
    compile_modes: str | None,
) -> list[Conditions]:
    """Read what to time under: every combination of the values, separated by commas.

    Raises:
        UserError: if a value is not one of those known.
    """
    for name in read_names(batch_sizes):
        if not name.isdecimal() or int(name) < 1:
            raise UserError(f"--batch-size takes numbers of images, such as 1,8, not {name!r}.")
    modes = _known("compile", compile_modes, ("none", *get_args(CompileMode)))
    return [
        Conditions(read_size(size), int(batch), precision, threads, memory_format, _mode(mode))
        for precision in _known("precision", precisions, get_args(Precision))
        for memory_format in _known("memory format", memory_formats, get_args(MemoryFormat))
        for mode in modes
        for batch in read_names(batch_sizes)
    ]


def _known(kind: str, given: str | None, known: Sequence[str]) -> Sequence[str | None]:
    names = list(dict.fromkeys(read_names(given)))
    for name in names:
        if name not in known:
            raise UserError(unknown(kind, name, known))
    return names or [None]


def _mode(name: str | None) -> CompileMode | None:
    return None if name in (None, "none") else cast("CompileMode", name)
