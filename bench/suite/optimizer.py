"""The schema of optimizers and learning-rate schedules."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from bench.suite.schema import Fraction, Frozen


class Adam(Frozen):
    """Kingma and Ba 2015, arXiv 1412.6980; weight decay is added to the gradient."""

    name: Literal["adam"] = "adam"
    lr: PositiveFloat = Field(1e-3, description="learning rate")
    betas: tuple[Fraction, Fraction] = Field(
        (0.9, 0.999), description="decay rates of the two running means"
    )
    weight_decay: NonNegativeFloat = Field(
        0.0, description="this times the weights is added to the gradient"
    )
    amsgrad: bool = Field(
        False,
        description="use AMSGrad (Reddi, Kale and Kumar 2018, arXiv 1904.09237)",
    )


class AdamW(Frozen):
    """Loshchilov and Hutter 2019, arXiv 1711.05101: decoupled weight decay."""

    name: Literal["adamw"] = "adamw"
    lr: PositiveFloat = Field(1e-3, description="learning rate")
    betas: tuple[Fraction, Fraction] = Field(
        (0.9, 0.999), description="decay rates of the two running means"
    )
    weight_decay: NonNegativeFloat = Field(
        0.01, description="each step shrinks the weights by this times the learning rate"
    )
    amsgrad: bool = Field(False, description="use AMSGrad, as in adam")


class SGD(Frozen):
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"] = "sgd"
    lr: PositiveFloat = Field(0.01, description="learning rate")
    momentum: Fraction = Field(0.9, description="factor of the running sum of gradients")
    weight_decay: NonNegativeFloat = Field(
        0.0, description="this times the weights is added to the gradient"
    )


class Constant(Frozen):
    """The learning rate stays constant."""

    name: Literal["constant"] = "constant"


class Poly(Frozen):
    """lr (1 - step / steps) ^ power, updated at each step."""

    name: Literal["poly"] = "poly"
    power: PositiveFloat = Field(0.9, description="exponent; 1: linear decay")


class Cosine(Frozen):
    """Half a cosine from lr to eta_min, updated once per epoch (arXiv 1608.03983, one cycle)."""

    name: Literal["cosine"] = "cosine"
    eta_min: NonNegativeFloat = Field(0.0, description="learning rate at the end")


class Step(Frozen):
    """The learning rate is multiplied by gamma at a fixed interval of epochs."""

    name: Literal["step"] = "step"
    every: PositiveInt = Field(description="interval in epochs")
    gamma: PositiveFloat = Field(0.1, description="factor of the learning rate")


class Warmup(Frozen):
    """A linear rise from factor x lr to lr over the first steps, multiplied by the schedule."""

    steps: PositiveInt = Field(description="length in optimizer steps")
    factor: Annotated[float, Field(ge=0, le=1)] = Field(
        0.1, description="factor of the learning rate at the first step"
    )
