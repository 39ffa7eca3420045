"""Segmentation networks as described in their papers, one file per architecture.

`from custom_models import enet; enet.build(21)` returns an `nn.Module` that maps images
(N, 3, H, W) to logits (N, 21, H, W). A network describes itself by attributes:

- `input_multiple`, `input_remainder` (0) and `input_minimum` (`input_multiple`): height and width
  must be a multiple of the first plus the second, and at least the third.
- `output_margin` (0): how many pixels smaller than the input the output is on each side.
  `output_stride` (1): how much coarser than the input the output is.
- `encoder`: the part that takes pretrained weights. Its method `adapted`, if it has one, renames
  and reshapes a classifier's weights to fit it.

In training, a network with an auxiliary head returns {"out": logits, "aux": logits}.
"""

from dataclasses import dataclass
from importlib import import_module
from inspect import signature
from typing import Any


@dataclass(frozen=True)
class Architecture:
    """One architecture of this package.

    slips: errors in the layer tables of the documents.
    """

    name: str
    title: str
    paper: str
    year: int
    slips: tuple[str, ...] = ()

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of `build` other than `num_classes`, with their defaults."""
        build = import_module(f"{__name__}.{self.name}").build
        parameters = list(signature(build).parameters.values())[1:]
        return {parameter.name: parameter.default for parameter in parameters}


_LONG = "Long, Shelhamer and Darrell, arXiv 1411.4038"
_RONNEBERGER = "Ronneberger, Fischer and Brox, arXiv 1505.04597"
_DARRENNET = "Szeto, Yu and Thomas, DarrenNet (report, PASCAL VOC 2007)"
_IDD = "Ai, Qiao and Zhang, Semantic segmentation using full convolutional network (report, IDD)"
_VOC = "Lim, Chen, Wan and Wang, FCN for Semantic Segmentation (report, PASCAL VOC 2007)"

ARCHITECTURES: dict[str, Architecture] = {
    architecture.name: architecture
    for architecture in (
        Architecture("fcn", "FCN baseline", f"{_IDD}; after {_LONG}", 2021),
        Architecture("fcn32s", "FCN-32s", _LONG, 2015),
        Architecture("fcn16s", "FCN-16s", _LONG, 2015),
        Architecture("fcn8s", "FCN-8s", _LONG, 2015),
        Architecture(
            "erfnet",
            "ERFNet",
            "Romera, Alvarez, Bergasa and Arroyo, 10.1109/TITS.2017.2750080",
            2018,
        ),
        Architecture(
            "darrennet",
            "DarrenNet",
            _DARRENNET,
            2024,
            slips=(
                "Table 1 gives the initial block a stride of 1 and omits its 3 input channels; the "
                "stride is 2.",
                "Table 1 lists padding 0 for all blocks and stride 1 for the upsamplers; to keep "
                "or double the size, they need padding 1 and stride 2.",
                "Table 1 calls blocks 3x3 that are pairs of 3x1 and 1x3 (table 2), and does not "
                "say that blocks 6 to 13 dilate their second pair by 2, 4, 8, 16, 2, 4, 8, 16.",
                "Table 2 lists a ReLU after each of the four convolutions; the last one comes "
                "after the addition.",
                "Tables 3 and 4 name no activation; both blocks end with BatchNorm and ReLU.",
            ),
        ),
        Architecture(
            "enet", "ENet", "Paszke, Chaurasia, Kim and Culurciello, arXiv 1606.02147", 2016
        ),
        Architecture(
            "r2unet",
            "R2U-Net",
            "Alom, Hasan, Yakopcic, Taha and Asari, arXiv 1802.06955",
            2018,
        ),
        Architecture("rrcnn_fcn", "RRCNN-FCN", _IDD, 2021),
        Architecture(
            "unet",
            "U-Net",
            f"after {_RONNEBERGER}",
            2015,
            slips=(
                "darrennet-voc2007, table 6 lists conv17 as 64 to 64; it is 128 to 64, because "
                "the skip is concatenated as at every level. The output has no ReLU.",
                "fcn-resnet50-voc2007, table 3: the last layer is a classifier that gives logits "
                "(there called softmax).",
                "Both tables list a ReLU after the transposed convolutions; neither the code in "
                "the appendix of fcn-resnet50-voc2007 nor this network has one.",
                "fcn-resnet50-voc2007 uses one BatchNorm for both convolutions of a block; here "
                "each has its own. Its crop has no effect, because the convolutions are padded.",
            ),
        ),
        Architecture("unet_valid", "U-Net (valid convolutions)", _RONNEBERGER, 2015),
        Architecture(
            "simplified_unet",
            "SimplifiedUNet",
            _VOC,
            2024,
            slips=("Table 1 leaves out the three max-pools; the text has them.",),
        ),
        Architecture(
            "resnet_fcn",
            "ResNet-FCN",
            f"{_VOC}; {_DARRENNET}",
            2024,
            slips=(
                "fcn-resnet50-voc2007, table 2: four transposed convolutions lead from stride 32 "
                "to 2; a bilinear upsampling by 2, which it leaves out, leads to the image. The "
                "text has BatchNorm after each convolution, the table and this network only after "
                "the last two.",
                "darrennet-voc2007, table 5 (ResNet-34) lists deconv1 twice, 512 to 256; the "
                "first is 512 to 512. Its last row is a 1x1 convolution of stride 1 that gives "
                "logits (there 3x3, stride 2, softmax).",
            ),
        ),
        Architecture("pspnet", "PSPNet", "Zhao, Shi, Qi, Wang and Jia, arXiv 1612.01105", 2017),
        Architecture(
            "deeplabv3_deconv",
            "DeepLabv3 + deconvolutions",
            f"{_IDD}; DeepLabv3: Chen, Papandreou, Schroff and Adam, arXiv 1706.05587",
            2021,
        ),
    )
}
