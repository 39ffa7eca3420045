"""A file imports only what its row in this table names."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

TABLE = {
    # the suite and what it is made of
    "__init__": {"frame"},
    "__main__": {"cli"},
    "errors": set(),
    "atomic": {"errors"},
    "lookup": {"errors"},
    "catalog": {"errors"},  # and the names of custom_models
    "columns": set(),
    "yaml_file": {"errors"},
    "schema": {"errors", "lookup"},
    "evaluation": {"schema"},
    "presets": {"errors", "schema"},
    "loss_spec": {"schema"},
    "optimizer_spec": {"schema"},
    "recipe": {
        *("columns", "errors", "lookup", "loss_spec", "optimizer_spec", "presets", "schema"),
        "yaml_file",
    },
    "model_spec": {"catalog", "lookup", "schema"},
    "suite": {
        *("columns", "data", "errors", "evaluation", "gate_spec", "lookup", "model_spec"),
        *("recipe", "schema"),
    },
    "gate_spec": {"columns", "lookup", "schema"},
    "json_schema": {"loss_spec", "optimizer_spec", "suite"},
    "schema_text": set(),
    "suite_file": {"data", "errors", "lookup", "recipe", "schema", "suite", "yaml_file"},
    "source": {"errors"},
    "case": {"data", "errors", "lookup", "model_spec", "recipe", "schema", "source", "suite"},
    "environment": set(),
    "case_folder": {"atomic", "errors", "suite"},
    "record": {"case_folder", "atomic", "case", "errors", "evaluation", "suite"},
    "scores": set(),
    # data
    "class_weights": {"errors", "lookup"},
    "data.__init__": {"data", "errors", "lookup", "source"},
    "data.cache_folder": set(),
    "data.digests": {"atomic", "data", "errors"},
    "data.dataset": {"data", "errors", "lookup"},
    "data.files": {"data", "errors"},
    "data.masks": {"data"},
    "data.camvid": {"data", "errors"},
    "data.cityscapes": {"data", "errors"},
    "data.folder": {"data", "errors"},
    "data.idd": {"data", "errors"},
    "data.shapes": {"data"},
    "data.voc": {"data"},
    "data.voc2007": {"data"},
    "data.voc2012": {"data"},
    "data.voc2012_aug": {"data", "errors"},
    "data.download": {"atomic", "data", "errors"},
    "data.archives": {"data", "errors", "lookup"},
    "data.unpack": {"data", "errors"},
    "data.alignment": {"data"},
    "data.check": {"data", "errors", "lookup"},
    "data.findings": set(),
    "data.rasterise": {"atomic", "data", "errors", "lookup"},
    "data.cache": {"atomic", "data", "errors", "schema"},
    "data.class_counts": {"atomic", "class_weights", "data", "errors"},
    "data.transforms": {"data", "errors", "lookup", "presets", "schema"},
    "data.loading": set(),
    "data.loader": {"data", "errors"},
    "data.images": {"data", "errors", "evaluation", "recipe", "schema"},
    "data.decoding": {"data", "schema"},
    "data.choose_loading": {"atomic", "data", "errors"},
    # running
    "geometry": {"data"},
    "networks": {"errors", "lookup", "model_spec"},
    "models": {"errors", "geometry", "model_spec", "networks", "weights"},
    "recompute": {"errors"},
    "weights": {"errors"},
    "clock": set(),
    "losses": {"class_weights", "data", "errors", "loss_spec"},
    "optim": {"errors", "networks", "optimizer_spec", "recipe"},
    "counts": set(),
    "profiling": {"errors", "geometry", "model_spec", "models", "networks", "schema"},
    "device": {"clock", "errors", "recipe"},
    "reference": {"device"},
    "heartbeat": {"atomic", "case_folder"},
    "train": {"clock", "counts", "data", "device", "losses", "models", "optim", "recipe"},
    "evaluate": {"counts", "data", "device", "evaluation", "losses", "schema"},
    "pictures": {"atomic", "data"},
    "scoring": {
        *("atomic", "case", "columns", "conventions", "data", "device", "errors", "evaluate"),
        *(
            "evaluation",
            "losses",
            "networks",
            "pictures",
            "case_folder",
            "record",
            "schema",
            "scores",
        ),
    },
    "checkpoint": {"atomic", "clock", "device", "networks", "case_folder", "train", "weights"},
    "task": {"case", "evaluation", "schema"},
    "training": {
        *("atomic", "checkpoint", "clock", "columns", "data", "errors", "evaluation"),
        *(
            "heartbeat",
            "models",
            "optim",
            "profiling",
            "recipe",
            "case_folder",
            "record",
            "reference",
            "scores",
            "scoring",
            "train",
        ),
    },
    "attempt": {
        *("atomic", "case", "checkpoint", "clock", "data", "device", "environment", "errors"),
        *(
            "heartbeat",
            "losses",
            "models",
            "profiling",
            "recompute",
            "case_folder",
            "record",
            "scoring",
        ),
        *("task", "training", "weights"),
    },
    "runner": {
        *("atomic", "attempt", "device", "environment", "errors", "heartbeat", "model_spec"),
        *("models", "networks", "profiling", "case_folder", "record", "scoring", "task", "weights"),
    },
    "engines.__init__": {"task"},
    "engines.in_process": {"runner", "task"},
    "engines.processes": {
        "errors",
        "profiling",
        "progress",
        "case_folder",
        "record",
        "runner",
        "task",
    },
    "engines.child": {"case_folder", "runner"},
    "profiles": {
        *("case", "device", "environment", "geometry", "models", "networks", "optim"),
        "profiling",
        *("model_spec", "record", "schema"),
    },
    "validate": {
        *("case", "class_weights", "data", "device", "errors", "lookup", "losses"),
        *("models", "networks", "optim", "profiling", "recipe", "recompute", "schema"),
        "scoring",
        *("geometry", "suite", "suite_file"),
    },
    "schedule": {"case", "engines", "errors", "case_folder", "runner", "suite", "task", "validate"},
    # reading
    "conventions": {"scores"},
    "bootstrap": {"scores"},
    "frame": {"case", "columns", "conventions", "errors", "case_folder", "record"},
    "sources": {"case", "columns", "errors", "frame", "case_folder", "record", "suite_file"},
    "compare.snapshot": {"atomic", "errors", "gate_spec"},
    "compare.records": {"case", "compare", "errors", "frame", "case_folder", "record", "sources"},
    "compare.finding": set(),
    "compare.settings": {"compare"},
    "compare.exact": {"columns", "compare", "gate_spec", "scores"},
    "compare.accuracy": {"bootstrap", "columns", "compare", "frame", "gate_spec"},
    "compare.speed": {"compare"},
    "compare.__init__": {"compare", "gate_spec"},
    "compare.text": {"compare"},
    "report.__init__": {"atomic", "case", "columns", "errors", "lookup", "report", "sources"},
    "report.floor": {"columns", "conventions", "frame", "report", "scores"},
    "report.group": {"columns", "frame", "report", "suite"},
    "report.protocol": {"report"},
    "report.rows": {"columns", "frame", "report"},
    "report.marks": {"bootstrap", "columns", "frame", "report"},
    "report.published": {"columns", "report", "suite"},
    "report.table": set(),
    "report.markdown": {"report"},
    "report.latex": {"report"},
    "report.values": {"report"},
    "report.formats": {"report"},
    "report.page": {"report"},
    "report.curves": {"atomic", "report"},
    "report.histories": {"errors", "report"},
    "report.citations": {"case", "data", "model_spec"},
    "report.methods": {
        *("case", "data", "loss_spec", "recipe", "report", "schema"),
    },
    "report.tables.__init__": {"report", "suite"},
    "report.tables.summary": {"columns", "report"},
    "report.tables.complexity": {"columns", "report"},
    "report.tables.metrics": {"columns", "report"},
    "report.tables.per_class": {"columns", "report"},
    "report.tables.conventions": {"columns", "report"},
    "report.tables.protocol": {"report"},
    "report.tables.own": {"columns", "frame", "report", "suite"},
    "report.tables.profile": {"report"},
    "report.tables.reported": {"columns", "report", "suite"},
    "report.tables.failures": {"report"},
    # commands
    "progress": {"atomic", "case_folder"},
    "screen": {
        "data",
        "progress",
        "case_folder",
        "record",
        "report",
        "schedule",
        "suite",
        "task",
        "validate",
    },
    "listing": {
        *(
            "catalog",
            "data",
            "errors",
            "layers",
            "lookup",
            "case_folder",
            "record",
            "report",
            "yaml_file",
        ),
    },
    "verbs": {
        *("data", "schema"),
        *(
            "case",
            "device",
            "engines",
            "errors",
            "progress",
            "case_folder",
            "record",
            "runner",
            "schedule",
        ),
        *("screen", "suite", "suite_file", "task", "validate"),
    },
    "layers.operations": {"report"},
    "layers.trace": {"layers"},
    "layers.rows": {"layers", "model_spec", "report"},
    "layers.__init__": {
        *("errors", "geometry", "layers", "model_spec", "models", "networks", "report", "schema"),
    },
    "selftest": {
        *("case", "counts", "device", "errors", "loss_spec", "losses", "models", "networks"),
        *("runner", "model_spec", "scores", "suite_file", "task", "weights"),
    },
    "profile_verbs": {
        *(
            "atomic",
            "case",
            "device",
            "errors",
            "networks",
            "profiles",
            "case_folder",
            "record",
            "screen",
        ),
        "validate",
    },
    "sheet": {"data", "pictures"},
    "data_verbs": {
        *("case", "data", "errors", "lookup", "pictures", "progress", "schema", "scoring"),
        *("sheet", "suite_file", "validate", "yaml_file"),
    },
    "compare_verbs": {"compare", "errors", "record", "sources"},
    "compare_cli": {"compare_verbs", "errors"},
    "data_cli": {"data_verbs", "errors"},
    "cli": {
        *(
            "compare_cli",
            "data_cli",
            "device",
            "environment",
            "errors",
            "json_schema",
            "listing",
            "schema_text",
        ),
        *("profile_verbs", "report", "selftest", "verbs"),
    },
}
FILES = {
    ".".join(file.relative_to(ROOT / "bench").with_suffix("").parts): file
    for file in sorted((ROOT / "bench").rglob("*.py"))
}


def imported(file: Path) -> set[str]:
    """List the first names below `bench` that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("bench.")}


@pytest.mark.parametrize("name", FILES)
def test_imports_only_what_the_table_names(name: str) -> None:
    assert imported(FILES[name]) <= TABLE[name]


def test_every_row_has_a_file() -> None:
    assert set(TABLE) == set(FILES)


@pytest.mark.parametrize(
    "file", sorted((ROOT / "custom_models").glob("*.py")), ids=lambda f: f.stem
)
def test_custom_models_know_nothing_of_bench(file: Path) -> None:
    assert imported(file) == set()


def test_albumentations_is_reached_through_one_file() -> None:
    users = [name for name, file in FILES.items() if "import albumentations" in file.read_text()]
    assert users == ["data.transforms"]


@pytest.mark.parametrize(
    ("code", "forbidden"),
    [
        ("import bench.cli", ["torch", "numpy", "pandas", "pydantic"]),
        (
            "import bench.report, bench.listing, bench.compare_verbs",
            ["torch", "albumentations", "cv2"],
        ),
        ("import bench.report", ["matplotlib", "jinja2"]),
        ("import bench.runner", ["pandas"]),
        ("import bench", ["pandas", "torch", "numpy"]),
    ],
)
def test_heavy_packages_stay_out(code: str, forbidden: list[str]) -> None:
    check = f"{code}; import sys; print([m for m in {forbidden!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
