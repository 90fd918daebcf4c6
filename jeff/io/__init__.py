"""Files: results and the report's data, written atomically and read with checks."""

from jeff.io.atomic import (
    check_place,
    check_writable,
    write_atomically,
    write_together,
)
from jeff.io.autoawq import write_autoawq
from jeff.io.checkpoint import Checkpoint, Tensors, read_checkpoint
from jeff.io.compressed_tensors import write_compressed_tensors
from jeff.io.details import DETAILS_FILE, Details, read_details, write_run
from jeff.io.formats import FORMATS, check_format, write_format
from jeff.io.gptq_format import write_gptq
from jeff.io.named_arrays import fill_params, read_arrays
from jeff.io.orbax import read_orbax
from jeff.io.packed_format import write_quantized
from jeff.io.provenance import device, numerics, versions
from jeff.io.quantized import QuantizedCheckpoint, read_quantized
from jeff.io.results import (
    RESULT_FILE,
    RESULT_FORMAT,
    read_result,
    result_text,
    validate_result,
    write_result,
)

__all__ = [
    "DETAILS_FILE",
    "FORMATS",
    "RESULT_FILE",
    "RESULT_FORMAT",
    "Checkpoint",
    "Details",
    "QuantizedCheckpoint",
    "Tensors",
    "check_format",
    "check_place",
    "check_writable",
    "device",
    "fill_params",
    "numerics",
    "read_arrays",
    "read_checkpoint",
    "read_details",
    "read_orbax",
    "read_quantized",
    "read_result",
    "result_text",
    "validate_result",
    "versions",
    "write_atomically",
    "write_autoawq",
    "write_compressed_tensors",
    "write_format",
    "write_gptq",
    "write_quantized",
    "write_result",
    "write_run",
    "write_together",
]
