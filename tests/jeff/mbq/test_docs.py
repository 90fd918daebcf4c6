"""The code of docs/mbq.md runs, and prints what the page says."""

import re

from support import pages


@pages.in_checkout
def test_the_example_of_the_page_prints_what_it_says(python, tmp_path):
    code, said = pages.example("docs/mbq.md")
    done = python("-c", code, cwd=tmp_path)
    assert done.stdout == said, done.stderr


@pages.in_checkout
def test_later_code_of_the_page_runs_after_the_example(python, tmp_path):
    text = (pages.ROOT / "docs" / "mbq.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 6 and "mbq.gptq" in blocks[1]
    check = "\nassert type(result.params['layers'][1]['up']).__name__ == 'QTensor'"
    done = python("-c", "\n".join(blocks) + check, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
