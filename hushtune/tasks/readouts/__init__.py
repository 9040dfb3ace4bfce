"""Where a model's answer is read: at the mask, as continuation, from a head or a description."""

from hushtune.tasks.readouts.base import Example, ReadOut, example_length
from hushtune.tasks.readouts.continuation import CausalReadOut, EncoderDecoderReadOut
from hushtune.tasks.readouts.descriptions import DescriptionsReadOut
from hushtune.tasks.readouts.head import HeadReadOut
from hushtune.tasks.readouts.mask import MaskReadOut

__all__ = [
    "CausalReadOut",
    "DescriptionsReadOut",
    "EncoderDecoderReadOut",
    "Example",
    "HeadReadOut",
    "MaskReadOut",
    "ReadOut",
    "example_length",
]
