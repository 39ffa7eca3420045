"""Ids of cases in the shipped suites must not change, so that published records stay valid."""

from collections.abc import Mapping
from functools import cache

import pytest

from bench.suite.case import Case
from bench.suite.load import load

IDS = (  # suite, case, start of its id: one for each architecture in a suite
    ("camvid_all", "camvid__darrennet__common__s0", "5fb6266e6018af99"),  # custom/darrennet
    (
        "camvid_all",
        "camvid__deeplabv3-deconv__common__s0",
        "386f32a0ae5b05e6",
    ),  # custom/deeplabv3_deconv
    ("camvid_all", "camvid__enet__enet__s0", "f636b14cd8146c8e"),  # custom/enet
    ("camvid_all", "camvid__erfnet-encoder__erfnet__s0", "2112d62f9a483c1d"),  # custom/erfnet
    ("camvid_all", "camvid__fcn__common__s0", "974ccab2e9714887"),  # custom/fcn
    ("camvid_all", "camvid__fcn16s__common__s0", "46c7aa975a1c2402"),  # custom/fcn16s
    ("camvid_all", "camvid__fcn32s__common__s0", "6d28c98da12fa8a2"),  # custom/fcn32s
    ("camvid_all", "camvid__fcn8s__common__s0", "50d7bd73e3a2ebae"),  # custom/fcn8s
    ("camvid_all", "camvid__pspnet__common__s0", "00dd11a6a99f90be"),  # custom/pspnet
    ("camvid_all", "camvid__r2unet__common__s0", "93ad4dd524005509"),  # custom/r2unet
    ("camvid_all", "camvid__resnet34-fcn__common__s0", "5482a13a98c129c5"),  # custom/resnet_fcn
    ("camvid_all", "camvid__rrcnn-fcn__common__s0", "46d6192aeb5b4b59"),  # custom/rrcnn_fcn
    (
        "camvid_all",
        "camvid__simplified-unet__common__s0",
        "25d1499268ac910c",
    ),  # custom/simplified_unet
    ("camvid_all", "camvid__unet__common__s0", "372ed504f69059be"),  # custom/unet
    ("camvid_all", "camvid__unet-valid__common__s0", "5bd60dd5f7bf36c6"),  # custom/unet_valid
    ("camvid_all", "camvid__smp-deeplabv3__common__s0", "97ee33d88d16f505"),  # smp/deeplabv3
    (
        "camvid_all",
        "camvid__smp-deeplabv3plus__common__s0",
        "786efea2c771a843",
    ),  # smp/deeplabv3plus
    ("camvid_all", "camvid__smp-dpt__common__s0", "435cccdf633087c4"),  # smp/dpt
    ("camvid_all", "camvid__smp-fpn__common__s0", "4d295751aaba3851"),  # smp/fpn
    ("camvid_all", "camvid__smp-linknet__common__s0", "b53e2e2fef5f8b4e"),  # smp/linknet
    ("camvid_all", "camvid__smp-manet__common__s0", "c7594de32cca2eb9"),  # smp/manet
    ("camvid_all", "camvid__smp-pan__common__s0", "948e64d023a10db1"),  # smp/pan
    ("camvid_all", "camvid__smp-pspnet__common__s0", "92440561c15babc9"),  # smp/pspnet
    ("camvid_all", "camvid__smp-segformer__common__s0", "666dbca863d7a851"),  # smp/segformer
    ("camvid_all", "camvid__smp-unet__common__s0", "dc2cf97e57c59cd5"),  # smp/unet
    ("camvid_all", "camvid__smp-unetplusplus__common__s0", "7e2fe0fa0cfaa739"),  # smp/unetplusplus
    ("camvid_all", "camvid__smp-upernet__common__s0", "bf3b620a1a9004f0"),  # smp/upernet
    ("ci", "shapes__exact__untrained__s0", "55b6727f75aea7d6"),  # tests.exact_network:build
    ("camvid_all", "camvid__timm-r50__common__s0", "c8d5db21533f1351"),  # timm/resnet50
    (
        "camvid_all",
        "camvid__deeplabv3-r101__common__s0",
        "252da3e5875726a7",
    ),  # torchvision/deeplabv3_resnet101
    (
        "camvid_all",
        "camvid__deeplabv3-r50__common__s0",
        "a8159d5c759b2210",
    ),  # torchvision/deeplabv3_resnet50
    ("camvid_all", "camvid__fcn-r50__common__s0", "93b09ef6c9642248"),  # torchvision/fcn_resnet50
    (
        "camvid_all",
        "camvid__lraspp__common__s0",
        "d0d92f3ffddddc96",
    ),  # torchvision/lraspp_mobilenet_v3_large
)


@cache
def cases(suite: str) -> Mapping[str, Case]:
    return {case.name: case for case in load(suite).cases()}


@pytest.mark.parametrize(("suite", "name", "id_"), IDS, ids=[f"{s}-{n}" for s, n, _ in IDS])
def test_an_id_stays(suite: str, name: str, id_: str) -> None:
    assert cases(suite)[name].id.startswith(id_)
