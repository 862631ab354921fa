"""Spiking networks to trace and to train: neurons, reversible sequences, and a zoo of published architectures."""

from pararev_hw.models.convert import fuse, load_published, unfuse
from pararev_hw.models.neurons import IF, LIF, PLIF
from pararev_hw.models.residual import FORMS
from pararev_hw.models.reversible import MergedSequence, ReversibleSequence
from pararev_hw.models.spec import Spec, batch_shapes
from pararev_hw.models.surrogates import ATan, Sigmoid, Triangle
from pararev_hw.models.zoo import create, listing, names, spec
from pararev_hw.types.callable_room import make_callable

__all__ = [
    "FORMS",
    "IF",
    "LIF",
    "PLIF",
    "ATan",
    "MergedSequence",
    "ReversibleSequence",
    "Sigmoid",
    "Spec",
    "Triangle",
    "batch_shapes",
    "create",
    "fuse",
    "listing",
    "load_published",
    "names",
    "spec",
    "unfuse",
]

make_callable(__name__)  # pararev_hw.models() is models.listing()
