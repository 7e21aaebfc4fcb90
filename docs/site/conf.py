"""The settings of the documentation site; `make docs` builds it from what assemble.py gathers."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "src")]
from docstrings import to_rst  # noqa: E402

import nearkin  # noqa: E402

project = "Nearkin"
author = "the Nearkin authors"
project_copyright = ""
version = release = nearkin.__version__
language = "en"
smartquotes = False  # or --out becomes another word

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
suppress_warnings = [
    "myst.header",
    "ref.python",
]  # of names that several classes have
exclude_patterns = ["**/GALLERY_HEADER.rst", "gallery/*.ipynb", "gallery/*.py"]
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_preserve_defaults = True

sphinx_gallery_conf = {
    "examples_dirs": [str(HERE / "gallery")],
    "gallery_dirs": ["gallery"],
    "filename_pattern": r"/plot_",
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "show_memory": False,
    "write_computation_times": False,  # a page that fetches scripts from elsewhere
    "min_reported_time": 1e9,
    "remove_config_comments": True,
    "abort_on_example_error": True,
    "reset_modules": ("matplotlib",),
    "copyfile_regex": r".*\.rst",
}

templates_path = ["_templates"]
html_theme = "pydata_sphinx_theme"
html_title = "Nearkin"
html_static_path = ["_static"]
html_css_files = ["nearkin.css"]
html_show_sourcelink = False
html_show_copyright = False
html_copy_source = False
html_context = {"default_mode": "auto"}
html_theme_options = {
    "logo": {"text": "Nearkin"},
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "navbar_persistent": ["search-field"],
    "show_prev_next": True,
    "header_links_before_dropdown": 6,
    "footer_start": ["theme-version"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_sidebars = {"index": [], "faq": [], "quickstart": [], "which-loss": []}


def setup(app):
    """Docstrings of ours are plain text: they become reStructuredText before autodoc reads them."""

    def plain(app, what, name, thing, options, lines):
        lines[:] = to_rst("\n".join(lines)).splitlines()

    app.connect("autodoc-process-docstring", plain)
