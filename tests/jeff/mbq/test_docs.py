import pathlib
import re

import pytest

PAGE = pathlib.Path(__file__).parents[3] / "docs" / "mbq.md"


@pytest.mark.skipif(not PAGE.exists(), reason="not running from a checkout")
def test_the_example_of_the_page_prints_what_it_says(python, tmp_path):
    text = PAGE.read_text()
    code = re.search(r"<!-- example -->\n```python\n(.*?)```", text, re.DOTALL).group(1)
    said = re.search(r"<!-- output -->\n```text\n(.*?)```", text, re.DOTALL).group(1)
    done = python("-c", code, cwd=tmp_path)
    assert done.stdout == said, done.stderr


@pytest.mark.skipif(not PAGE.exists(), reason="not running from a checkout")
def test_later_code_of_the_page_runs_after_the_example(python, tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 2 and "mbq.gptq" in blocks[1]
    check = "\nassert type(result.params['layers'][1]['up']).__name__ == 'QTensor'"
    done = python("-c", "\n".join(blocks) + check, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
