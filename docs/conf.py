"""Sphinx settings. Build: ``sphinx-build -W --keep-going -b html docs docs/_build``."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import jeff

project = "jeff"
author = "the jeff authors"
release = jeff.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "jeff"

myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3

# A name in single backquotes in a docstring links to its description if there is one.
default_role = "py:obj"
autodoc_default_options = {"members": True, "imported-members": True}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 80
add_module_names = False

napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # fields are described once, in their class's docstring
napoleon_use_rtype = False


def _skip_fields(app, what, name, obj, skip, options):
    """Leaves out NamedTuple fields, which `Attributes` already describes."""
    del app, what, name, options
    return True if type(obj).__name__ == "_tuplegetter" else skip


def setup(app):
    """Registers the hook above."""
    app.connect("autodoc-skip-member", _skip_fields)
