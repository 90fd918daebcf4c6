"""The example of docs/dm_bnn.md prints what the page says."""

from support import pages


@pages.in_checkout
def test_the_example_of_the_page_prints_what_it_says(capsys):
    code, said = pages.example("docs/dm_bnn.md")
    exec(compile(code, "docs/dm_bnn.md", "exec"), {})
    assert capsys.readouterr().out == said
