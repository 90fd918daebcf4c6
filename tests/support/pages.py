"""Pages of the documentation whose examples are run."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[2]

in_checkout = pytest.mark.skipif(
    not (ROOT / "README.md").exists(), reason="not running from a checkout"
)


def example(page, name=""):
    """The marked code of a page (``"docs/mbq.md"``), and the output that it prints.

    Of several the one whose marker has the name, ``<!-- example:NAME -->``.
    """
    text = (ROOT / page).read_text()
    mark = f":{name}" if name else ""
    code, said = (
        re.search(
            rf"<!-- {part}{mark} -->\n```{kind}\n(.*?)```", text, re.DOTALL
        ).group(1)
        for part, kind in (("example", "python"), ("output", "text"))
    )
    return code, said
