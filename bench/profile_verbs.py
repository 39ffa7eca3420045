"""What `profile` does."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.atomic import write_json, write_text
from bench.case import Case, expand, matching
from bench.case_folder import CaseFolder, results_folder
from bench.device import pick_device
from bench.errors import Exit, Fault, Faults, UserError
from bench.networks import RUN_ERRORS, first_line
from bench.profiles import profile_case
from bench.record import Resolved, write_resolved
from bench.screen import Screen
from bench.validate import load_checked


def profile_suite(
    path: Path,
    pattern: str | None,
    settings: Sequence[str],
    device_name: str,
    out: Path,
    json_lines: bool,
) -> Exit:
    """Count and time every network of a suite, without its data, and print the table.

    Raises:
        UserError: after the others are done, with every network that does not run, and its line.
    """
    screen = Screen(json_lines)
    device = pick_device(device_name)
    file = load_checked(path, settings)
    try:
        cases = expand(file.suite)
    except Faults as error:
        raise file.error(error.faults) from error
    chosen = _one_of_each(matching(cases, pattern))
    if not chosen:
        screen.say(f"No case matches {pattern!r}.")
        return Exit.NOTHING_MATCHED
    folder = results_folder(out, file.suite, settings)
    write_resolved(folder, Resolved(suite=file.suite, settings=tuple(settings), cases=tuple(cases)))
    faults = []
    for number, case in enumerate(chosen, 1):
        try:
            profile = profile_case(case, device)
        except (UserError, *RUN_ERRORS) as error:  # memory may end, too
            faults.append(Fault(("models", case.model_name), first_line(error)))
            screen.say(f"[{number}/{len(chosen)}] {case.label}: failed")
            continue
        kept = CaseFolder(folder / case.folder)
        write_json(kept.case, case.model_dump(mode="json"))
        write_text(kept.profile, profile.model_dump_json(indent=1) + "\n")
        screen.profile(profile, number, len(chosen))
    screen.profiles(folder)
    if faults:
        raise file.error(faults)
    return Exit.OK


def _one_of_each(cases: Iterable[Case]) -> list[Case]:
    """Leave out the further seeds of a dataset, model and recipe: they cost the same."""
    found: dict[tuple[str, str, str], Case] = {}
    for case in cases:
        found.setdefault((case.dataset_name, case.model_name, case.recipe_name), case)
    return list(found.values())
