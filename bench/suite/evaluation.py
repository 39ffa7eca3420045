"""One way of scoring a trained case."""

import operator
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, model_validator

from bench.suite.schema import SIZE_OR_SIDE, Frozen, Side, Size


class Evaluation(Frozen):
    """One way of scoring a trained case."""

    split: str = Field(description="name of a split of the dataset")
    size: Annotated[Size | Side | Literal["recipe", "stored"], SIZE_OR_SIDE] = Field(
        "recipe",
        description="size of the network's input: [H, W], {longest: px} or {shortest: px}; recipe: "
        "the recipe's size; stored: the stored size of each image",
    )
    method: Literal["whole", "centre_crop", "sliding"] = Field(
        "whole",
        description="how an image is predicted: as a whole, only its centre crop, or in sliding "
        "windows",
    )
    crop: Size | None = Field(
        None, description="[H, W] of the centre crop or of the sliding window"
    )
    stride: Size | None = Field(
        None, description="[H, W] by which the sliding window moves; null: two thirds of crop"
    )
    flip: bool = Field(False, description="average with the prediction on the mirrored image")
    scales: tuple[PositiveFloat, ...] = Field(
        (1.0,), min_length=1, description="average predictions over these multiples of size"
    )
    score_at: Literal["stored", "input"] = Field(
        "stored", description="resolution of the masks: as stored, or that of the network's input"
    )

    @model_validator(mode="after")
    def _agree(self) -> "Evaluation":
        if (self.method == "whole") != (self.crop is None):
            given = "takes no crop" if self.crop else "needs crop: [H, W]"
            raise ValueError(f"method {self.method} {given}.")
        if (
            isinstance(self.size, tuple)
            and self.crop
            and any(map(operator.gt, self.crop, self.size))
        ):
            raise ValueError(f"crop {self.crop} is larger than size {self.size}.")
        if self.stride is not None and self.method != "sliding":
            raise ValueError(f"stride is for method: sliding, not {self.method}.")
        if self.stride and self.crop and any(map(operator.gt, self.stride, self.crop)):
            raise ValueError(
                f"stride {self.stride} is larger than crop {self.crop}; that leaves gaps."
            )
        if self.method == "centre_crop" and self.score_at == "stored" and self.size != "stored":
            raise ValueError(
                "method centre_crop predicts only a part of the stored mask: give score_at: input, "
                "or size: stored."
            )
        return self

    @property
    def window_stride(self) -> Size:
        """The (H, W) by which the sliding window moves."""
        assert self.crop is not None
        return self.stride or (max(1, self.crop[0] * 2 // 3), max(1, self.crop[1] * 2 // 3))

    @property
    def description(self) -> str:
        """The method as it is written in the protocol."""
        text = self.method.replace("_", " ")
        if self.crop is not None:
            text += f" {self.crop[0]}x{self.crop[1]}"
        if self.method == "sliding":
            text += f", steps {self.window_stride[0]}x{self.window_stride[1]}"
        if self.flip:
            text += ", with mirror image"
        if self.scales != (1.0,):
            text += f", scales {', '.join(f'{scale:g}' for scale in self.scales)}"
        return text
