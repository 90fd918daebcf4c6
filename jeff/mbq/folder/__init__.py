"""From a folder with a published model to a folder with the quantized one.

The rest of `jeff.mbq` reads programs and knows no model; what knows how published
models are fed and filed is here.
"""

from jeff.mbq.folder.entries import read_entries, read_samples
from jeff.mbq.folder.job import Prepared, Result, prepare, quantize_folder
from jeff.mbq.folder.settings import FolderSettings

__all__ = [
    "FolderSettings",
    "Prepared",
    "Result",
    "prepare",
    "quantize_folder",
    "read_entries",
    "read_samples",
]
