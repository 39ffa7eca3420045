"""The commands `list`, `show` and `rm`: names, records, folders."""

import fnmatch
import shlex
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from pydantic import ValidationError

from bench.datasets.registry import DATASETS
from bench.errors import UserError
from bench.lookup import pick
from bench.machine.numerics import read_numerics
from bench.records.case_folder import CaseFolder, Held
from bench.records.record import APART, Record, read_evaluations, read_record, read_resolved
from bench.report.formats.formats import FORMATS
from bench.suite import catalog, yaml_file
from bench.suite.catalog import shipped_suites
from bench.text import name_and_value
from custom_models import ARCHITECTURES


def matching_names(kind: str, pattern: str) -> list[str]:
    """List names of a kind that match a glob."""
    names = pick("list", kind, LISTS)()
    return [line for line in names if fnmatch.fnmatchcase(line.split("  ")[0].strip(), pattern)]


def _datasets() -> Iterable[str]:
    for name, dataset in DATASETS.items():
        try:
            labels = dataset.labels(dataset.Options.model_validate({}))
            classes = f"{labels.num_classes} classes"
        except ValidationError:
            classes = "classes given in the suite"
        yield f"{name:12}  {dataset.title}: {classes}; {', '.join(dataset.splits)}"


def _suites() -> Iterable[str]:
    own = {str(file): file for file in _own_suites()}
    for name, file in (own or shipped_suites()).items():
        lines = file.read_text(encoding="utf-8").splitlines()
        first = next((line for line in lines if line.startswith("# ")), "")
        yield f"{name:28}  {_name(file)}: {first.removeprefix('# ')}"


def _models() -> Iterable[str]:
    for name, architecture in ARCHITECTURES.items():
        about = f"{architecture.title}: {architecture.paper} ({architecture.year})"
        options = [f"{key}={default}" for key, default in catalog.custom_options(name).items()]
        about += f"; {', '.join(options)}" if options else ""
        yield f"{'custom/' + name:24}  {about}"
    yield from (f"smp/{name}" for name in catalog.smp_architectures())
    yield from (f"torchvision/{name}" for name in catalog.torchvision_architectures())
    yield f"{'timm/NAME':24}  any of timm's {len(catalog.timm_models())} networks with features"


LISTS: dict[str, Callable[[], Iterable[str]]] = {
    "models": _models,
    "datasets": _datasets,
    "encoders": catalog.encoders,
    "suites": _suites,
}


def layer_text(arch: str, settings: Iterable[str], form: str) -> str:
    """Write the layer tables of a model.

    Args:
        arch: as suites have it; "custom/" may be left out.
        settings: "option=value" of the architecture, or encoder=….
        form: a format of reports.
    """
    _, render = pick("format", form, FORMATS)
    given = (name_and_value(setting, "--set", "bias=true") for setting in settings)
    options = {name: yaml_file.parse_value(text) for name, text in given}
    from bench.report.layers.layers import layer_tables

    full = arch if "/" in arch or ":" in arch else f"custom/{arch}"
    return "\n".join(render(table) for table in layer_tables(full, options))


def shown(name: str, results: Path) -> str:
    """Write a case's record in full, with the command that repeats it.

    Args:
        name: a folder, or a glob on the names of case folders below `results`.
    """
    folder = Path(name)
    if not CaseFolder(folder).record.is_file():
        found = [f for f in _case_folders(results) if fnmatch.fnmatchcase(f.name, f"{name}*")]
        if len(found) != 1:
            listing = "".join(f"\n  {f}" for f in found[:20])
            raise UserError(f"{len(found)} cases match {name!r} in {results}; name one.{listing}")
        [folder] = found
    record = read_record(folder)
    if record is None:
        raise UserError(f"{folder} has no record yet.")
    outcome = record.status if record.reason is None else f"{record.status}: {record.reason}"
    parts = [f"{folder}", outcome, *record.notes, "", record.model_dump_json(indent=2)]
    parts += [evaluation.model_dump_json(indent=2) for evaluation in read_evaluations(folder)]
    return "\n".join([*parts, "", *_how_to_repeat(record, folder)])


def _how_to_repeat(record: Record, folder: Path) -> list[str]:
    resolved = read_resolved(folder.parent)
    lines = []
    if resolved is not None and record.id not in {case.id for case in resolved.cases}:
        lines.append("Its suite has changed since: as it is now, this is another case.")
    name = folder.parent.name.partition("@")[0]
    suites = {_name(file): str(file) for file in _own_suites()}
    suites |= {_name(f): key for key, f in shipped_suites().items() if _name(f) not in suites}
    suite = suites.get(name, f"{name}.yaml")
    settings = resolved.settings if resolved is not None else ()
    words = ["python", "-m", "bench", "run", suite, "--filter", record.case.name]
    words += [word for setting in settings for word in ("--set", setting)]
    words += ["--device", read_numerics(record.numerics).device or "auto"]
    lines.append("To repeat it, add the --root of its data and another --out to")
    lines.append(f"  {shlex.join(words)}")
    return lines


def _own_suites() -> list[Path]:
    """List the suites of the working directory."""
    return sorted(Path("suites").rglob("*.yaml"))


def _name(file: Path) -> str:
    """Return the name of a suite file; its own where it gives none."""
    data = yaml_file.read(file).data
    return str(data.get("name", file.stem)) if isinstance(data, dict) else file.stem


def remove(results: Path, pattern: str, *, stale: bool, failed: bool, dry_run: bool) -> list[Path]:
    """Remove the folders of cases: by glob on names, those of no suite's ids, those that failed.

    A case that is running stays.

    Raises:
        UserError: where nothing says which.
    """
    if not (pattern or stale or failed):
        raise UserError("Say which cases: a glob on their names, --stale or --failed.")
    chosen = []
    for folder in _case_folders(results):
        name, _, short_id = folder.name.rpartition("__")
        if pattern and not fnmatch.fnmatchcase(name, pattern):
            continue
        if stale and not _is_stale(folder, short_id):
            continue
        if failed and not _has_failed(folder):
            continue
        if not dry_run:
            try:
                with CaseFolder(folder).hold():
                    shutil.rmtree(folder)
            except Held:
                continue
        chosen.append(folder)
    return chosen


def _is_stale(folder: Path, short_id: str) -> bool:
    resolved = read_resolved(folder.parent)
    return resolved is not None and short_id not in {case.id[:8] for case in resolved.cases}


def _has_failed(folder: Path) -> bool:
    try:
        record = read_record(folder)
    except UserError:
        return True
    return record is not None and record.status != "ok"


def _case_folders(results: Path) -> list[Path]:
    return [
        file.parent
        for file in sorted(results.rglob("case.json"))
        if file.relative_to(results).parts[0] not in APART
    ]
