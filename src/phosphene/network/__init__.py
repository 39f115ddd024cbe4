"""Any `nn.Module` as something to look through: its preprocessing, its layers, its activations."""

from phosphene.network.layers import Layer
from phosphene.network.network import Network
from phosphene.network.precision import (
    DTYPES,
    LEAST_COSINE,
    PRECISIONS,
    Precision,
    has_fast_bf16,
    pick_device,
)

__all__ = [
    "DTYPES",
    "LEAST_COSINE",
    "PRECISIONS",
    "Layer",
    "Network",
    "Precision",
    "has_fast_bf16",
    "pick_device",
]
