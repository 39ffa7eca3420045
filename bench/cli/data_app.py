"""The commands of `bench data`: parse, call, print."""

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.console import Console
from bench.cli.options import leave
from bench.errors import UserError

app = typer.Typer(
    name="data",
    help="Download, check and look at datasets.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Argument(help="a dataset; `bench list datasets` lists them")]
Root = Annotated[str | None, typer.Option(help="folder; default: $BENCH_DATA/NAME")]
Roots = Annotated[
    list[str] | None, typer.Option("--root", help="folder of the dataset, or name=path, repeatable")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="key=value: an option of the dataset, or a change of the suite"),
]


@app.command()
def get(name: Name, root: Root = None) -> None:
    """Download a dataset and unpack it, or say where it comes from."""
    from bench.cli.commands.data import get

    get(name, root, Console())


@app.command()
def prepare(
    name: Name,
    root: Root = None,
    label_set: Annotated[
        str, typer.Option(help="level1, level2, level3, level4 or csTrainId")
    ] = "level3",
    workers: Annotated[
        int | None, typer.Option(min=0, help="worker processes; 0: none; default: one per core")
    ] = None,
) -> None:
    """Draw the masks of IDD from its polygons."""
    from bench.cli.commands.data import prepare

    leave(prepare(name, root, label_set, workers, Console()))


@app.command()
def check(
    target: Annotated[str, typer.Argument(help="a dataset, or a suite file")],
    root: Roots = None,
    settings: Settings = None,
    split: Annotated[
        list[str] | None, typer.Option(help="only this split, repeatable; default: all")
    ] = None,
    json_lines: Annotated[
        bool, typer.Option("--json", help="print one line of JSON per dataset, with all findings")
    ] = False,
) -> None:
    """Read every image and mask, and report what is wrong.

    Exit codes: 0 nothing wrong, 1 findings, 2 usage or no such data.
    """
    from bench.cli.commands.data import check

    leave(check(target, split or [], root or [], settings or [], Console(json_lines)))


@app.command()
def show(
    name: Name,
    suite: Annotated[str | None, typer.Option(help="augment as a recipe of this suite")] = None,
    recipe: Annotated[
        str | None, typer.Option(help="a recipe of the suite; default: its first")
    ] = None,
    split: Annotated[str | None, typer.Option(help="default: train")] = None,
    num: Annotated[
        int | None, typer.Option(min=1, help="number of images; default: 16, or 4 with --suite")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="seed of the augmentation")] = 0,
    out: Annotated[Path | None, typer.Option(help="PNG file; default: NAME_SPLIT.png")] = None,
    root: Roots = None,
    settings: Settings = None,
) -> None:
    """Draw images with their masks, as stored or as augmented.

    With --suite, NAME is a dataset of the suite; each row is an image as stored and in three
    epochs of the recipe.
    """
    from bench.cli.commands.data import show, show_augmented

    roots, changes = root or [], settings or []
    if out is not None and out.suffix.lower() != ".png":
        raise UserError(f"--out is a PNG file, such as {out.with_suffix('.png')}, not {out}.")
    if suite is not None:
        shown = show_augmented(name, suite, recipe, split, num or 4, seed, out, roots, changes)
    elif recipe is not None:
        raise UserError("--recipe names a recipe of a suite; give --suite too.")
    elif seed:
        raise UserError("--seed is for augmenting as a suite does; give --suite too.")
    else:
        shown = show(name, split, num or 16, out, roots, changes)
    if shown.note:
        Console().say(shown.note)
    Console().say(f"Wrote {shown.file}")


@app.command()
def cache(
    clear: Annotated[
        bool, typer.Option("--clear", help="remove them, and everything else that can be remade")
    ] = False,
) -> None:
    """List the decoded images that are kept, or remove them."""
    from bench.cli.commands.data import cache

    cache(Console(), clear=clear)
