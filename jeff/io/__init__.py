"""Files: results and the report's data, written atomically and read with checks."""

from jeff.io.atomic import check_writable, write_atomically
from jeff.io.details import DETAILS_FILE, Details, read_details, write_details
from jeff.io.provenance import device, versions
from jeff.io.results import (
    RESULT_FILE,
    read_result,
    result_text,
    validate_result,
    write_result,
)

__all__ = [
    "DETAILS_FILE",
    "RESULT_FILE",
    "Details",
    "check_writable",
    "device",
    "read_details",
    "read_result",
    "result_text",
    "validate_result",
    "versions",
    "write_atomically",
    "write_details",
    "write_result",
]
