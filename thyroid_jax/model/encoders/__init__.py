"""Encoders, one file each, all with the same named levels. A new encoder is a new file and an entry here."""

from collections.abc import Callable
from functools import partial
from typing import Any

from thyroid_jax.model.encoders.convnext import ConvNeXt
from thyroid_jax.model.encoders.efficientnet import EfficientNetLite
from thyroid_jax.model.encoders.residual import Residual
from thyroid_jax.model.encoders.resnet import ResNet

ENCODERS: dict[str, Callable[..., Any]] = {
    "residual": Residual,
    "efficientnet_lite0": EfficientNetLite,
    "efficientnet_lite1": partial(EfficientNetLite, depth=1.1),
    "efficientnet_lite2": partial(EfficientNetLite, width=1.1, depth=1.2),
    "resnet18": partial(ResNet, blocks=(2, 2, 2, 2), bottleneck=False),
    "resnet34": partial(ResNet, blocks=(3, 4, 6, 3), bottleneck=False),
    "resnet50": partial(ResNet, blocks=(3, 4, 6, 3), bottleneck=True),
    "convnext_tiny": ConvNeXt,
}
"""name -> a function from the settings to the Flax module"""
