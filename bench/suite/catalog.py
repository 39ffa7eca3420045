"""What a suite or a command can name: shipped suites, architectures, encoders.

Architectures are read from the source of the installed packages: importing torch, timm and
segmentation_models_pytorch takes seconds, which is too slow for checking a name.
"""

import ast
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from bench.errors import UserError
from bench.lookup import unknown
from custom_models import ARCHITECTURES

SUITE_SUFFIXES = (".yaml", ".yml")


def package_folder(name: str) -> Path:
    """Return the folder of an installed top-level package."""
    spec = find_spec(name)  # for a top-level package this runs none of its code
    if spec is None or spec.origin is None:
        raise UserError(f"The package {name!r} is not installed; install this project with pip.")
    return Path(spec.origin).parent


def shipped_suites() -> dict[str, Path]:
    """Return the files of the shipped suites by name: "quick", "documents/fcn-idd", …"""
    package = package_folder("bench")
    installed = package / "shipped_suites"
    folder = installed if installed.is_dir() else package.parent / "suites"  # in a checkout
    return {
        file.relative_to(folder).with_suffix("").as_posix(): file
        for file in sorted(folder.rglob("*.yaml"))
    }


def is_suite(target: str | Path) -> bool:
    """Return whether a target is a suite: a YAML file, or the name of a shipped suite."""
    path = Path(target)
    return path.suffix in SUITE_SUFFIXES or (not path.exists() and str(target) in shipped_suites())


def find_suite(target: str | Path) -> Path:
    """Return the file of a suite; an existing path is preferred to a shipped suite.

    Raises:
        UserError: if it is neither a file nor the name of a shipped suite.
    """
    path = Path(target)
    if not str(target) or path.is_dir():
        what = f"{path} is a folder" if str(target) else "The name of the suite is empty"
        raise UserError(f"{what}; name a suite file or a shipped suite, such as quick.")
    if path.exists():
        return path
    shipped = shipped_suites()
    if str(target) in shipped:
        return shipped[str(target)]
    for other in (path.with_suffix(suffix) for suffix in SUITE_SUFFIXES):
        if other.is_file():
            raise UserError(f"No suite file {path}. Did you mean {other}?")
    if path.stem in shipped:
        raise UserError(f"No suite file {path}. The shipped suite is called {path.stem}.")
    raise UserError(f"No suite file {path}. {unknown('shipped suite', path.stem, shipped)}")


@cache
def smp_architectures() -> tuple[str, ...]:
    """List smp's architectures, as `create_model` takes them: "unet", "pspnet", …"""
    tree = ast.parse(
        (package_folder("segmentation_models_pytorch") / "__init__.py").read_text(encoding="utf-8")
    )
    return tuple(
        sorted(
            alias.name.lower()
            for node in tree.body
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("decoders.")
            for alias in node.names
        )
    )


@cache
def smp_encoders() -> tuple[str, ...]:
    """List smp's own encoders: "resnet18", "mit_b0", …"""
    folder = package_folder("segmentation_models_pytorch") / "encoders"
    names: set[str] = set()
    for file in folder.glob("[a-z]*.py"):
        for node in ast.parse(file.read_bytes()).body:
            if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)):
                continue
            target = node.targets[0]
            if isinstance(target, ast.Name) and target.id.endswith("_encoders"):
                names.update(str(k.value) for k in node.value.keys if isinstance(k, ast.Constant))
    return tuple(sorted(names))


@cache
def timm_models() -> tuple[str, ...]:
    """List timm's architectures, without pretrained tags: "resnet50", …"""
    folder = package_folder("timm") / "models"
    pattern = re.compile(r"^@register_model\s*\ndef (\w+)", re.MULTILINE)
    return tuple(
        sorted(
            name
            for f in folder.glob("*.py")
            for name in pattern.findall(f.read_text(encoding="utf-8"))
        )
    )


def encoders() -> tuple[str, ...]:
    """List every encoder that `smp/…` takes: smp's own, and timm's as "tu-…"."""
    return smp_encoders() + tuple(f"tu-{name}" for name in timm_models())


@cache
def custom_options(name: str) -> dict[str, str]:
    """Return the options of a network of `custom_models` with their defaults, as Python source.

    The option `pretrained` is left out: `weights:` sets it.
    """
    tree = ast.parse((package_folder("custom_models") / f"{name}.py").read_bytes())
    [build] = (n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "build")
    names = [argument.arg for argument in build.args.args[1:]]
    defaults = map(ast.unparse, build.args.defaults)
    return {k: v for k, v in zip(names, defaults, strict=True) if k != "pretrained"}


@cache
def torchvision_architectures() -> tuple[str, ...]:
    """List torchvision's segmentation networks: "deeplabv3_resnet50", …"""
    folder = package_folder("torchvision") / "models" / "segmentation"
    return tuple(
        sorted(
            node.name
            for file in folder.glob("[a-z]*.py")
            for node in ast.parse(file.read_bytes()).body
            if isinstance(node, ast.FunctionDef)
            and any("register_model" in ast.unparse(d) for d in node.decorator_list)
        )
    )


@cache
def architectures() -> tuple[str, ...]:
    """List every architecture that a suite can name."""
    names = {
        "custom": ARCHITECTURES,
        "smp": smp_architectures(),
        "torchvision": torchvision_architectures(),
        "timm": timm_models(),
    }
    return tuple(f"{kind}/{name}" for kind, listed in names.items() for name in listed)
