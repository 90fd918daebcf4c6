"""Files: results and the report's data, written atomically and read with checks."""

from jeff.io.atomic import check_writable, write_atomically, write_together
from jeff.io.details import DETAILS_FILE, Details, read_details, write_run
from jeff.io.provenance import device, versions
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
    "RESULT_FILE",
    "RESULT_FORMAT",
    "Details",
    "check_writable",
    "device",
    "read_details",
    "read_result",
    "result_text",
    "validate_result",
    "versions",
    "write_atomically",
    "write_result",
    "write_run",
    "write_together",
]
