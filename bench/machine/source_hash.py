"""A hash of users' and custom source code that ignores comments and formatting."""

import ast
import hashlib
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.errors import UserError


def source_hash(name: str) -> str | None:
    """Hash the code of `custom/…` and of users' own networks and datasets; None for others.

    The hash covers the modules that the code imports from its own package. It ignores comments,
    docstrings and line numbers.

    Raises:
        UserError: if a file is not valid Python.
    """
    if name.startswith("custom/"):
        module = f"custom_models.{name.removeprefix('custom/')}"
    elif ":" in name:
        module = name.partition(":")[0]
    else:
        return None
    digest = hashlib.sha256()
    for imported, file in sorted(_modules(module).items()):
        digest.update(f"{imported}\n{_shape(_parse(file))}\n".encode())
    return digest.hexdigest()[:16]


def _parse(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_text(encoding="utf-8"))
    except SyntaxError as error:
        line = f", line {error.lineno}" if error.lineno else ""
        raise UserError(f"Syntax error in {file}{line}: {error.msg}.") from error
    except ValueError as error:
        raise UserError(f"Cannot read {file} as Python: {error}.") from error


def _modules(name: str) -> dict[str, Path]:
    """Return a module and all that it imports from its own package, without running them."""
    package = name.partition(".")[0]
    found: dict[str, Path] = {}
    waiting = [name]
    while waiting:
        current = waiting.pop()
        file = _file(current)
        if file is None or current in found:
            continue
        found[current] = file
        inside = current if file.name == "__init__.py" else current.rpartition(".")[0]
        for node in ast.walk(_parse(file)):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    above = inside.split(".")[: len(inside.split(".")) - node.level + 1]
                    base = ".".join([*above, *([node.module] if node.module else [])])
                names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
            else:
                continue
            waiting += [n for n in names if n.partition(".")[0] == package]
    return found


def _file(module: str) -> Path | None:
    """Find a module's file in the installed packages or the working directory."""
    top, *rest = module.split(".")
    spec = find_spec(top) or PathFinder.find_spec(top, [str(Path.cwd())])
    name = top
    for part in rest:
        if spec is None:
            return None
        name = f"{name}.{part}"
        spec = PathFinder.find_spec(name, list(spec.submodule_search_locations or []))
    return Path(spec.origin) if spec is not None and spec.origin else None


def _shape(node: object) -> str:
    """Write a syntax tree the same way on every Python: no positions, no empty fields."""
    if isinstance(node, list):
        return f"[{','.join(_shape(item) for item in node)}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = []
    for name, value in ast.iter_fields(node):
        if name == "body" and isinstance(value, list):
            value = value[1:] if _is_docstring(value) else value
        if value not in (None, [], ()):
            fields.append(f"{name}={_shape(value)}")
    return f"{type(node).__name__}({','.join(fields)})"


def _is_docstring(body: list[Any]) -> bool:
    return bool(
        body
        and isinstance(body[0], ast.Expr)
        and isinstance(body[0].value, ast.Constant)
        and isinstance(body[0].value.value, str)
    )
