"""Run a function in several processes that train together, on the CPU by gloo."""

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from commands import FORKS
from torch import nn

from bench.evaluation.setup import Setup
from bench.machine.clock import Clock
from bench.machine.numerics import Numerics
from bench.machine.world import ALONE, Place, World, join
from bench.models.activation_checkpointing import recompute_activations
from bench.models.batch_norm import synchronise
from bench.models.geometry import Geometry
from bench.models.segmenter import Segmenter, build_model
from bench.suite.loss import CrossEntropy
from bench.suite.model import ModelSpec
from bench.suite.recipe import Recipe
from bench.training.distributed import give_to_first
from bench.training.loop import TrainState, train_epoch
from bench.training.losses import build_loss

CPU = torch.device("cpu")
NUM_CLASSES = 4
Work = Callable[..., Any]


def together(work: Work, *args: object, size: int = 2) -> list[Any]:
    """Return what `work(world, *args)` returns in each of several processes."""
    with TemporaryDirectory() as folder:
        processes = [
            FORKS.Process(target=_run, args=(rank, size, folder, work, args))
            for rank in range(size)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(120)
            assert process.exitcode == 0
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=False) for rank in range(size)]


def _run(rank: int, size: int, folder: str, work: Work, args: Sequence[object]) -> None:
    torch.set_num_threads(1)
    world = join(Place(rank, size, Path(folder) / "store", "gloo"))
    torch.save(work(world, *args), Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


class Plain(nn.Module):
    """A network without BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, NUM_CLASSES, 1)
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.layers(image)


def build(spec: dict[str, Any] | None) -> Segmenter:
    """Build a network without dropout, whose draws would differ; None: one without BatchNorm."""
    torch.manual_seed(0)
    if spec is None:
        return Segmenter(Plain(), None, Geometry(1, 1))
    model, _ = build_model(ModelSpec.model_validate(spec), NUM_CLASSES)
    for module in model.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.p = 0.0
    return model.double()  # what is left is the rounding of the loss


def batches(num: int, side: int) -> list[tuple[torch.Tensor, torch.Tensor, list[str]]]:
    """Make batches of eight images; in the first, half of the images are all void."""
    generator = torch.Generator().manual_seed(1)
    made = []
    for i in range(num):
        coarse = torch.rand(8, 3, side // 4, side // 4, generator=generator)
        images = (255 * F.interpolate(coarse, scale_factor=4)).to(torch.uint8)
        targets = torch.randint(0, NUM_CLASSES, (8, side, side), generator=generator).byte()
        targets[: 1 + i % 7, : side // 2] = 255
        if i == 0:
            targets[4:] = 255
        made.append((images, targets, [f"{i}-{j}" for j in range(8)]))
    return made


def steps(
    world: World,
    spec: dict[str, Any] | None,
    num_steps: int,
    side: int,
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Train on whole batches, of which each process takes its share; return what came of it."""
    recipe = Recipe.model_validate({"epochs": 1, "batch_size": 8, "schedule": "poly"} | settings)
    model = build(spec)
    synchronise(model, world)
    if recipe.memory == "checkpoint":
        recompute_activations(model.net)
    places = world.places(8, recipe.micro_batch)
    mine = [
        (images[places], targets[places], [ids[place] for place in places])
        for images, targets, ids in batches(num_steps, side)
    ]
    state = TrainState(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), 0.05, momentum=0.9),
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        num_steps=num_steps,
        steps_per_epoch=num_steps,
        losses=torch.zeros(num_steps),
        counts=torch.zeros(4, NUM_CLASSES, dtype=torch.int64),
        clock=Clock(),
    )
    state.optimizer.param_groups[0]["lr_factor"] = 1.0
    numerics = Numerics("cpu", micro_batch=recipe.micro_batch, world_size=world.size)
    loss = build_loss(CrossEntropy(), NUM_CLASSES, CPU, 0.4)
    train_epoch(state, mine, recipe, Setup(CPU, numerics, NUM_CLASSES, loss, world=world))
    give_to_first(state, world, CPU)
    return {"state": dict(model.state_dict()), "losses": state.losses, "counts": state.counts}


def alone(*args: Any) -> dict[str, Any]:
    """Do the same in this process."""
    return steps(ALONE, *args)
