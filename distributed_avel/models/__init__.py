"""Base models: the networks that Steps 1 and 3 train. `models.base` explains how to add one."""

from distributed_avel.models import (
    ave,
    avfb,
    avin,
    avsdn,
    avt,
    cman,
    cmran,
    han,
    psp,
)
from distributed_avel.models.base import (
    UNVERIFIED,
    BaseModel,
    ParsingModel,
    VideoProb,
    create_model,
    is_verified,
    model_class,
    model_names,
    model_options,
    register_model,
)
from distributed_avel.models.reference import load_reference

__all__ = [
    "UNVERIFIED",
    "BaseModel",
    "ParsingModel",
    "VideoProb",
    "ave",
    "avfb",
    "avin",
    "avsdn",
    "avt",
    "cman",
    "cmran",
    "create_model",
    "han",
    "is_verified",
    "load_reference",
    "model_class",
    "model_names",
    "model_options",
    "psp",
    "register_model",
]
