"""Trained models as files that run without this package: ONNX, and torch's `ExportedProgram`."""

from .checking import Difference, compare, largest_differences, reference_logits, run_file
from .network import CHANNEL_ORDERS, OUTPUTS, ExportNetwork
from .writers import FIX_THE_SIZE, FORMATS, ExportError, description, require_packages, write_file

__all__ = [
    'CHANNEL_ORDERS',
    'FIX_THE_SIZE',
    'FORMATS',
    'OUTPUTS',
    'Difference',
    'ExportError',
    'ExportNetwork',
    'compare',
    'description',
    'largest_differences',
    'reference_logits',
    'require_packages',
    'run_file',
    'write_file',
]
