"""The example of docs/faults.md prints what the page says."""

from support import pages


@pages.in_checkout
def test_the_example_of_the_page_prints_what_it_says(capsys):
    code, said = pages.example("docs/faults.md")
    exec(compile(code, "docs/faults.md", "exec"), {})
    assert capsys.readouterr().out == said
