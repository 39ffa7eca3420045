"""What is measured, and at which size."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.suite.schema import Size

ROOT = Path(__file__).parents[2]
NETWORKS: dict[str, dict[str, Any]] = {
    "ENet": {"arch": "custom/enet"},
    "ERFNet": {"arch": "custom/erfnet"},
    "U-Net R34": {"arch": "smp/unet", "encoder": "resnet34"},
    "PSPNet R50": {"arch": "custom/pspnet"},
    "R2U-Net": {"arch": "custom/r2unet"},
    "DeepLabv3 R50": {"arch": "torchvision/deeplabv3_resnet50", "aux_loss": True},
}
CASES = (  # globs on the names of camvid_all, in the order in which they run
    "*__enet__*",
    "*__erfnet*",
    "*__smp-unet__*",
    "*__unet__*",
    "*__pspnet__*",
    "*__deeplabv3-r50__*",
    "*__fcn8s-once__*",
    "*__r2unet__*",
)


@dataclass(frozen=True)
class Settings:
    """What every stage knows.

    camvid: the folder of CamVid; None: training images are drawn shapes.
    size, batch_size: of training steps.
    rounds: how often alternatives run in turn, each for about `round_s` seconds.
    is_toy: whether everything is as small as can be, on any device, to try the command.
    seconds: that a stage may take.
    out: the folder of everything that is written.
    """

    device: str
    camvid: str | None
    size: Size
    batch_size: int
    rounds: int
    round_s: float
    is_toy: bool
    seconds: float
    out: str

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> "Settings":
        """Read settings that `json` wrote."""
        height, width = stored["size"]
        return cls(**{**stored, "size": (height, width)})

    def json(self) -> str:
        """Return the settings as JSON."""
        return json.dumps(asdict(self))

    @property
    def networks(self) -> dict[str, dict[str, Any]]:
        """The networks by their names in tables."""
        return {"ENet": NETWORKS["ENet"]} if self.is_toy else NETWORKS


def settings(device: str, camvid: str | None, out: str, *, is_toy: bool) -> Settings:
    """Return the settings of a measurement, before its stages are given their time."""
    sized: dict[str, Any] = {"size": (360, 480), "batch_size": 8, "rounds": 5, "round_s": 0.4}
    if is_toy:
        sized = {"size": (32, 32), "batch_size": 2, "rounds": 2, "round_s": 0.0}
    return Settings(device, camvid, **sized, is_toy=is_toy, seconds=0.0, out=out)
