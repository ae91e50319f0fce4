"""Parameter-efficient adaptation in pure torch: nothing in here imports mmengine, mmcv or mmseg."""

from .base import AdapterMethod
from .functional import ACTIVATIONS, AdapterWeights, adapter
from .hyper import HyperAdapter, HyperFormer, Polyhistor, PolyhistorLite
from .kernels import ScalingKernels, kron_sum
from .sites import POSITIONS, BackboneLayout, Site
from .static import BottleneckAdapter, LowRankAdapter

#: The methods that a config can name, by their class names.
METHODS: tuple[type[AdapterMethod], ...] = (
    BottleneckAdapter,
    LowRankAdapter,
    HyperAdapter,
    HyperFormer,
    Polyhistor,
    PolyhistorLite,
)

__all__ = [
    'ACTIVATIONS',
    'METHODS',
    'POSITIONS',
    'AdapterMethod',
    'AdapterWeights',
    'BackboneLayout',
    'BottleneckAdapter',
    'HyperAdapter',
    'HyperFormer',
    'LowRankAdapter',
    'Polyhistor',
    'PolyhistorLite',
    'ScalingKernels',
    'Site',
    'adapter',
    'kron_sum',
]
