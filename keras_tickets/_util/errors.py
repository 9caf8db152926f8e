"""What goes wrong on the way to a file, by kind, for those who catch it."""

from __future__ import annotations


class ConversionError(RuntimeError):
    """A converter cannot write the model, or writes what no runtime carries."""


class VerificationError(RuntimeError):
    """A file does not compute what its model computes, or cannot be run to see it."""


class UnavailableError(RuntimeError):
    """A place that files run on is not there: something has to be installed first."""
