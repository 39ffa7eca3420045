"""A file imports only from its own sub-package and from those before it in `ORDER`."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

ORDER = (  # data passes down this list and back up once
    *("errors", "text", "lookup", "arguments", "truth_values"),
    *("machine", "datasets", "suite"),
    *("loading", "models", "evaluation"),
    *("records", "training", "report", "compare"),
    *("runner", "cli"),
    *("__init__", "__main__"),
)
EMPTY = ("machine", "evaluation", "loading", "models", "training", "runner")
PACKAGE = ROOT / "bench"
FILES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
    for file in sorted(PACKAGE.rglob("*.py"))
}


def imported(file: Path) -> Iterator[str]:
    """Yield the modules of `bench` that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in FILES else str(node.module) for name in whole]
        else:
            continue
        yield from (name for name in names if name.partition(".")[0] == "bench")


def room(module: str) -> str:
    """Return the sub-package, or the file at the top, that a module is in."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


IMPORTS = {name: sorted(set(imported(file))) for name, file in FILES.items()}


@pytest.mark.parametrize("name", FILES)
def test_imports_only_from_its_own_room_and_those_before(name: str) -> None:
    allowed = ORDER[: ORDER.index(room(name)) + 1]
    if room(name) == "cli":
        allowed += ("__init__",)  # the version
    assert {room(other) for other in IMPORTS[name]} <= set(allowed)


def test_the_readme_has_the_same_order() -> None:
    rooms = re.findall(r"^\| `(\w+)/` \|", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)
    assert rooms == list(ORDER[ORDER.index("machine") : ORDER.index("cli") + 1])


def test_the_list_is_the_package() -> None:
    at_the_top = {path.stem for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert at_the_top - {"py"} == set(ORDER)


def test_no_circle_of_files() -> None:
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"a circle: {' -> '.join((*path, name))}"
        if name not in done:
            for other in IMPORTS[name]:
                visit(other, (*path, name))
            done.add(name)

    for name in FILES:
        visit(name, ())


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*/__init__.py")), ids=str)
def test_an_init_hands_names_on_or_is_empty(file: Path) -> None:
    body = ast.parse(file.read_text(encoding="utf-8")).body
    if file.parent.name in EMPTY:
        assert not body
    for node in body:
        names = ast.unparse(node).startswith("__all__")
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        assert names or docstring or isinstance(node, ast.ImportFrom)


@pytest.mark.parametrize(
    "file", sorted((ROOT / "custom_models").glob("*.py")), ids=lambda f: f.stem
)
def test_custom_models_know_nothing_of_bench(file: Path) -> None:
    assert not list(imported(file))


def test_albumentations_is_reached_through_one_file() -> None:
    users = [name for name, file in FILES.items() if "import albumentations" in file.read_text()]
    assert users == ["bench.loading.transforms"]


TORCH = ["torch", "torchvision", "timm", "segmentation_models_pytorch"]


@pytest.mark.parametrize(
    ("code", "forbidden"),
    [
        ("import bench", ["pandas", "torch", "numpy", "pydantic"]),
        ("import bench.cli.app", ["torch", "numpy", "pandas", "pydantic", "rich.console"]),
        (
            "import bench.report.report, bench.report.write, bench.cli.commands.report",
            [*TORCH, "albumentations", "cv2", "matplotlib", "jinja2"],
        ),
        (
            "import bench.cli.commands.results, bench.cli.commands.compare",
            [*TORCH, "albumentations", "cv2"],
        ),
        ("from bench.runner.plan import look_up, plan", [*TORCH, "pandas"]),
        ("import bench.cli.commands.run, bench.cli.commands.validate", [*TORCH, "cv2"]),
        ("import bench.datasets", [*TORCH, "pandas"]),
        ("import bench.runner.run_case", ["pandas"]),
    ],
)
def test_heavy_packages_stay_out(code: str, forbidden: list[str]) -> None:
    check = f"{code}; import sys; print([m for m in {forbidden!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
