"""Pages of the documentation whose examples are run."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[2]

in_checkout = pytest.mark.skipif(
    not (ROOT / "README.md").exists(), reason="not running from a checkout"
)


def example(page):
    """The marked code of a page (``"docs/mbq.md"``), and the output that it prints."""
    text = (ROOT / page).read_text()
    code = re.search(r"<!-- example -->\n```python\n(.*?)```", text, re.DOTALL).group(1)
    said = re.search(r"<!-- output -->\n```text\n(.*?)```", text, re.DOTALL).group(1)
    return code, said
