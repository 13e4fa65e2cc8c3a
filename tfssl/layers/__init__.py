"""What methods are made of besides encoders: heads, teachers, queues, prototypes."""

from tfssl.layers.heads import linear, mlp
from tfssl.layers.momentum import Momentum, cosine_momentum
from tfssl.layers.prototypes import Prototypes
from tfssl.layers.queue import Queue
from tfssl.layers.state import step_counter
from tfssl.layers.views import fold, unfold

__all__ = [
    "Momentum",
    "Prototypes",
    "Queue",
    "cosine_momentum",
    "fold",
    "linear",
    "mlp",
    "step_counter",
    "unfold",
]
