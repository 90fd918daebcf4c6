"""The example of docs/hwsim.md prints what the page says."""

from support import pages


@pages.in_checkout
def test_the_example_of_the_page_prints_what_it_says(capsys):
    code, said = pages.example("docs/hwsim.md")
    exec(compile(code, "docs/hwsim.md", "exec"), {})
    assert capsys.readouterr().out == said
