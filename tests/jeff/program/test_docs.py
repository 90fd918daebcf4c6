"""Every block of code of docs/program.md, one after another, prints what follows it."""

import re

from support import pages


@pages.in_checkout
def test_the_code_of_the_page_prints_what_it_says(capsys):
    text = (pages.ROOT / "docs" / "program.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == text.count("```python")
    names = {}
    for code, said in blocks:
        exec(compile(code, "docs/program.md", "exec"), names)
        assert capsys.readouterr().out == said
