"""The example of docs/kernels.md prints what the page says."""

import pathlib
import re

import pytest

PAGE = pathlib.Path(__file__).parents[3] / "docs" / "kernels.md"


@pytest.mark.skipif(not PAGE.exists(), reason="not running from a checkout")
def test_the_example_of_the_page_prints_what_it_says(capsys):
    text = PAGE.read_text()
    code = re.search(r"<!-- example -->\n```python\n(.*?)```", text, re.DOTALL).group(1)
    said = re.search(r"<!-- output -->\n```text\n(.*?)```", text, re.DOTALL).group(1)
    exec(compile(code, str(PAGE), "exec"), {})
    assert capsys.readouterr().out == said
