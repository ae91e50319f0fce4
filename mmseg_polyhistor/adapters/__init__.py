"""Parameter-efficient adaptation in pure torch: nothing in here imports mmengine, mmcv or mmseg."""

from .base import AdapterMethod, CannotMergeError, InsertedAdapter
from .functional import ACTIVATIONS, AdapterWeights, Change, LowRankWeights, Prompts, adapter
from .hyper import HyperAdapter, HyperFormer, Polyhistor, PolyhistorLite
from .inner import BitFit, RelativeBias
from .kernels import ScalingKernels, kron_sum
from .lora import LoRA, MTLoRA
from .prompts import VisualPrompt
from .sites import POSITIONS, BackboneLayout, LinearSite, ParameterSite, Site
from .static import AdaptFormer, BottleneckAdapter, Compacter, LowRankAdapter, PHMAdapter
from .tuned import TunedParameters

#: The methods that a config can name, by their class names.
METHODS: tuple[type[AdapterMethod], ...] = (
    BitFit,
    RelativeBias,
    VisualPrompt,
    LoRA,
    BottleneckAdapter,
    LowRankAdapter,
    PHMAdapter,
    Compacter,
    AdaptFormer,
    MTLoRA,
    HyperAdapter,
    HyperFormer,
    Polyhistor,
    PolyhistorLite,
)

__all__ = [
    'ACTIVATIONS',
    'METHODS',
    'POSITIONS',
    'AdaptFormer',
    'AdapterMethod',
    'AdapterWeights',
    'BackboneLayout',
    'BitFit',
    'BottleneckAdapter',
    'CannotMergeError',
    'Change',
    'Compacter',
    'HyperAdapter',
    'HyperFormer',
    'InsertedAdapter',
    'LinearSite',
    'LoRA',
    'LowRankAdapter',
    'LowRankWeights',
    'MTLoRA',
    'PHMAdapter',
    'ParameterSite',
    'Polyhistor',
    'PolyhistorLite',
    'Prompts',
    'RelativeBias',
    'ScalingKernels',
    'Site',
    'TunedParameters',
    'VisualPrompt',
    'adapter',
    'kron_sum',
]
