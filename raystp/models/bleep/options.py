"""Options of BLEEP; its published training is the default of `FitOptions`."""

from dataclasses import dataclass

from raystp.models.contrastive.options import ContrastiveOptions


@dataclass(frozen=True)
class BleepOptions(ContrastiveOptions):
    """Options that change BLEEP's result; the defaults are the published code's, except `feature_scaling`."""
