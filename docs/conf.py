"""Sphinx's settings. The pages come from `build.py`; nothing here needs a network, neither the build nor a reader."""

import sys
from pathlib import Path

import snnlib

sys.path.insert(0, str(Path(__file__).parent))

project = "snnlib"
author = "the snnlib authors"
copyright = "the snnlib authors, MIT licence"
version = release = snnlib.__version__
language = "en"

extensions = ["myst_nb", "mathml"]
myst_enable_extensions = ["colon_fence", "dollarmath", "html_image"]
myst_dmath_allow_labels = False  # what follows a formula in brackets is text
myst_heading_anchors = 3
nb_execution_mode = "off"  # the notebooks are shown as they were published
nb_merge_streams = True

suppress_warnings = ["ref.python"]  # two classes are called Finding; annotations name them without their modules
html_math_renderer = "mathml"
html_theme = "sphinx_book_theme"
html_title = "snnlib"
html_context = {"default_mode": "auto"}  # as the reader's system has it
html_theme_options = {
    "show_toc_level": 2,
    "navbar_persistent": [],  # the sidebar has the search
    "use_download_button": False,
    "use_fullscreen_button": False,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_static_path = [str(Path(__file__).parent / "style.css")]
html_css_files = ["style.css"]
html_copy_source = False
html_show_sphinx = False
