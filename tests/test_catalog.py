"""Names read from the installed source must be the names that the libraries themselves list."""

import segmentation_models_pytorch as smp
import timm

from bench import catalog


def test_smp_architectures() -> None:
    assert set(catalog.smp_architectures()) == set(smp.MODEL_ARCHITECTURES_MAPPING)


def test_smp_encoders() -> None:
    assert set(catalog.smp_encoders()) == set(smp.encoders.encoders)


def test_timm_models() -> None:
    assert set(catalog.timm_models()) == set(timm.list_models())


def test_custom_architectures() -> None:
    assert {"enet", "fcn"} <= set(catalog.custom_architectures())
    assert {"smp/unet", "custom/enet"} <= set(catalog.architectures())
