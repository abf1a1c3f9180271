"""Methods that keep tokens as they are and drop the others."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from edgevtc.compressors.base import Compressor, Features, Plan
from edgevtc.compressors.blocks.slots import raster_slots

__all__ = ["Selection"]


class Selection(Compressor):
    """A subclass sets `spec` and writes `choose`."""

    @abstractmethod
    def choose(self, features: Features) -> Tensor:
        """[T, N] bool with exactly B true entries."""

    def plan(self, features: Features) -> Plan:
        return Plan(*raster_slots(self.choose(features), None, self.budget))

    def apply(self, plan: Plan, x: Tensor) -> Tensor:  # type: ignore[override]
        return x.reshape(-1, x.shape[-1]).index_select(0, plan.positions)
