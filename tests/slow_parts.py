"""A column that waits, an augment that computes: what the doctor must find."""

from __future__ import annotations

import time

import torch

from luodi.fields.number import Number
from luodi.train.loop.augments.image.affine import Affine


class Waiting(Number):
    """A number that is read from a slow disk: every cell keeps its reader waiting, and the processor idle."""

    def read(self, wire):
        time.sleep(0.0005)
        return super().read(wire)


class Computing(Affine):
    """An augment that works for a while on every batch."""

    def apply(self, values, generator):
        end = time.thread_time() + 0.05
        while time.thread_time() < end:
            torch.ones(64, 64) @ torch.ones(64, 64)
        return values
