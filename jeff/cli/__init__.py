"""The command ``jeff``: arguments, tables, progress bars and the HTML report.

Nothing is computed here: a system's numbers come from its study
(`jeff.evaluate.Study`), found through the registry in `jeff.cli.systems`.
"""

from jeff.cli.errors import BadInput, RunFailed
from jeff.cli.main import main
from jeff.cli.systems import SYSTEMS, System

__all__ = ["SYSTEMS", "BadInput", "RunFailed", "System", "main"]
