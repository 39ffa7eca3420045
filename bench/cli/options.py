"""Flags that several commands share, and how their values are read."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bench.errors import Exit, UserError
from bench.text import name_and_value

if TYPE_CHECKING:
    from bench.runner.task import Options

Suites = Annotated[list[str], typer.Argument(help="suite files, or names of shipped suites")]
Filter = Annotated[str | None, typer.Option("--filter", help="glob on case names")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="key=value that overrides the suite; repeatable")
]
Limit = Annotated[
    str | None,
    typer.Option(
        help="use only this number or fraction of the images of each split; short for --set limit=…"
    ),
]
Roots = Annotated[
    list[str] | None, typer.Option("--root", help="name=path of a dataset, repeatable")
]
Out = Annotated[Path, typer.Option(help="folder for results")]
Results = Annotated[Path, typer.Option(help="folder with results")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps")]
LoaderWorkers = Annotated[
    int | None, typer.Option(help="processes that read images; default: chosen by measuring")
]
Cache = Literal["auto", "ram", "disk", "none"]
CacheMode = Annotated[
    Cache | None,
    typer.Option(help="where decoded images are kept; default: as the suite says"),
]
JsonLines = Annotated[bool, typer.Option("--json", help="print one line of JSON per case")]
ROOT_EXAMPLE = "camvid=/data/camvid"
UNITS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Where:
    """Flags that say where and how to run; none changes what a case is."""

    device: str = "auto"
    roots: Sequence[str] = ()
    out: Path = Path("results")
    loader_workers: int | None = None
    cache: Cache | None = None

    def options(self) -> "Options":
        """Return the flags as the runner takes them."""
        from bench.runner.task import Options

        return Options(
            device=self.device,
            roots=read_roots(self.roots),
            loader_workers=self.loader_workers,
            cache=self.cache,
        )


def all_settings(settings: Sequence[str] | None, limit: str | None) -> list[str]:
    """Return --set and --limit, which is short for one of them; of one key, only the last."""
    given = [*(settings or []), *([f"limit={limit}"] if limit is not None else [])]
    return list({setting.partition("=")[0].strip(): setting for setting in given}.values())


def read_names(listed: str | None) -> list[str]:
    """Split a comma-separated list of names."""
    return [name.strip() for name in (listed or "").split(",") if name.strip()]


def read_roots(given: Sequence[str], name: str | None = None) -> Mapping[str, Path]:
    """Read --root name=path.

    Args:
        name: of the only dataset; then a path alone will do.

    Raises:
        UserError: if a name or a path is missing.
    """
    roots = {}
    for item in given:
        text = f"{name}={item}" if name is not None and "=" not in item else item
        key, path = name_and_value(text, "--root", ROOT_EXAMPLE)
        if not path:
            raise UserError(f"--root takes NAME=VALUE, such as {ROOT_EXAMPLE}, not {item!r}.")
        roots[key] = Path(path).expanduser()
    return roots


def read_seconds(flag: str, text: str | None) -> float | None:
    """Read a duration: 90, 90s, 30m or 8h."""
    if text is None:
        return None
    number, unit = (text[:-1], text[-1]) if text[-1:] in UNITS else (text, "s")
    try:
        seconds = float(number) * UNITS[unit]
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise UserError(f"{flag} takes 90, 90s, 30m or 8h, not {text!r}.")
    return seconds


def read_size(text: str | None) -> tuple[int, int] | None:
    """Read the --size of images, such as 360x640."""
    if text is None:
        return None
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text.strip())
    if match is None:
        raise UserError(f"--size takes HxW in pixels, such as 360x640, not {text!r}.")
    return int(match[1]), int(match[2])


def leave(code: Exit) -> None:
    """End the command with an exit code, unless all is well."""
    if code:
        raise typer.Exit(code)
