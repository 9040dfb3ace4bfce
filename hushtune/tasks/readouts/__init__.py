"""Where a model's answer is read: at the mask, as continuation, from a head or a description.

Read-outs of tasks that learn text read it off every token of that text.
"""

from hushtune.tasks.readouts.base import Example, ReadOut, example_length
from hushtune.tasks.readouts.chat import ChatReadOut
from hushtune.tasks.readouts.classifying import ClassifyingReadOut
from hushtune.tasks.readouts.continuation import CausalReadOut, EncoderDecoderReadOut
from hushtune.tasks.readouts.descriptions import DescriptionsReadOut
from hushtune.tasks.readouts.head import HeadReadOut
from hushtune.tasks.readouts.mask import MaskReadOut
from hushtune.tasks.readouts.sequences import ChoicesReadOut, SequenceReadOut
from hushtune.tasks.readouts.writing import (
    CompletionReadOut,
    Continuation,
    DocumentReadOut,
    WritingReadOut,
)

__all__ = [
    "CausalReadOut",
    "ChatReadOut",
    "ChoicesReadOut",
    "ClassifyingReadOut",
    "CompletionReadOut",
    "Continuation",
    "DescriptionsReadOut",
    "DocumentReadOut",
    "EncoderDecoderReadOut",
    "Example",
    "HeadReadOut",
    "MaskReadOut",
    "ReadOut",
    "SequenceReadOut",
    "WritingReadOut",
    "example_length",
]
