"""The examples of docs/dm_bnn.md print what the page says."""

from support import pages


@pages.in_checkout
def test_the_examples_of_the_page_print_what_it_says(capsys):
    names = {}
    for name in ("", "trees", "training"):  # each goes on where the last one ended
        code, said = pages.example("docs/dm_bnn.md", name)
        exec(compile(code, "docs/dm_bnn.md", "exec"), names)
        assert capsys.readouterr().out == said
