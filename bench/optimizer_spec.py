"""Optimizers and schedules as a recipe names them."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from bench.schema import Fraction, Frozen


class Adam(Frozen):
    """Kingma and Ba 2015, arXiv 1412.6980; weight decay is added to the gradient."""

    name: Literal["adam"] = "adam"
    lr: PositiveFloat = 1e-3
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    weight_decay: NonNegativeFloat = 0.0
    amsgrad: bool = Field(
        False,
        description="Reddi, Kale and Kumar 2018, arXiv 1904.09237",
        json_schema_extra={"added": True},
    )


class AdamW(Frozen):
    """Loshchilov and Hutter 2019, arXiv 1711.05101: decoupled weight decay."""

    name: Literal["adamw"] = "adamw"
    lr: PositiveFloat = 1e-3
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    weight_decay: NonNegativeFloat = 0.01
    amsgrad: bool = Field(False, json_schema_extra={"added": True})


class SGD(Frozen):
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"] = "sgd"
    lr: PositiveFloat = 0.01
    momentum: Fraction = 0.9
    weight_decay: NonNegativeFloat = 0.0


class Constant(Frozen):
    """The learning rate stays."""

    name: Literal["constant"] = "constant"


class Poly(Frozen):
    """lr (1 - step / steps) ^ power, each step."""

    name: Literal["poly"] = "poly"
    power: PositiveFloat = 0.9


class Cosine(Frozen):
    """Half a cosine from lr to eta_min, moved once an epoch (arXiv 1608.03983, one cycle)."""

    name: Literal["cosine"] = "cosine"
    eta_min: NonNegativeFloat = 0.0


class Step(Frozen):
    """lr times gamma every so many epochs."""

    name: Literal["step"] = "step"
    every: PositiveInt = Field(description="epochs")
    gamma: PositiveFloat = 0.1


class Warmup(Frozen):
    """A linear rise from factor x lr to lr over the first steps, times the schedule."""

    steps: PositiveInt
    factor: Annotated[float, Field(ge=0, le=1)] = 0.1
