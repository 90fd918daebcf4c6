"""How long a decoder takes per token, with packed weights and with dense ones."""

from jeff.models.decode_bench.bench import Report, Row, run
from jeff.models.decode_bench.records import record
from jeff.models.decode_bench.workload import PRESETS, Settings

__all__ = ["PRESETS", "Report", "Row", "Settings", "record", "run"]
