"""What happens between epochs: probes, health, embedding passes, and the way back after a stop."""

from tfssl.callbacks.embed import EmbedEachEpoch
from tfssl.callbacks.health import Health, HealthWarning
from tfssl.callbacks.probe import Probe
from tfssl.callbacks.resume import Resume

__all__ = ["EmbedEachEpoch", "Health", "HealthWarning", "Probe", "Resume"]
