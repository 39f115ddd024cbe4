"""The documentation, built by `make docs`."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]

import phosphene  # noqa: E402

project = "phosphene"
author = copyright = "The phosphene authors"
version = release = phosphene.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "extension"]
exclude_patterns = ["_build", "extension"]
source_suffix = {".rst": "restructuredtext", ".md": "myst-nb", ".ipynb": "myst-nb"}
root_doc = "index"
language = "en"
nitpicky = True
# What annotations name that is no page of ours.
nitpick_ignore_regex = [("py:.*", ".*")]

# Lessons are shown as they were saved.
nb_execution_mode = "off"
nb_ipywidgets_js = {}  # which would be fetched from elsewhere
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 4
myst_links_external_new_tab = False

default_role = "code"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
smartquotes = False  # which would make a dash of --
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
python_display_short_literal_types = True
toc_object_entries_show_parents = "hide"

html_math_renderer = "mathml"
html_theme = "furo"
html_title = "phosphene"
html_baseurl = ""
html_static_path = ["static"]
html_css_files = ["phosphene.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
# From the disk a browser may not read pages to quote them; the results themselves are there.
html_show_search_summary = True
pygments_style = "friendly"
pygments_dark_style = "github-dark"
suppress_warnings = ["myst-nb.lexer"]
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#6a3d9a", "color-brand-content": "#6a3d9a"},
    "dark_css_variables": {"color-brand-primary": "#c9a6f0", "color-brand-content": "#c9a6f0"},
}
