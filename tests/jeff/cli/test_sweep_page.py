"""The command of docs/sweep_command.md prints the table of the page."""

import re
import sys

from support import pages

PAGE = "docs/sweep_command.md"


@pages.in_checkout
def test_the_command_prints_the_table_of_the_page(cli, tmp_path, monkeypatch):
    code, said = pages.example(PAGE)
    (tmp_path / "centers.py").write_text(code)
    monkeypatch.setattr(sys, "path", list(sys.path))
    text = (pages.ROOT / PAGE).read_text()
    words = re.search(r"```sh\njeff (sweep centers.*)\n", text).group(1).split()
    # As would be chosen, but nothing is compiled to find that out.
    code, out, err = cli(*words, "--batch", "200")
    sys.modules.pop("centers", None)
    assert code == 0, err
    lines = [line.rstrip() for line in out.splitlines()]
    table = [line.rstrip() for line in said.splitlines()]
    start = lines.index(table[0])
    assert lines[start : start + len(table)] == table
