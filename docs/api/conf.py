"""Pages of the public API, from the docstrings: `make docs` writes them to build/docs."""

import fq_tvm

project = "fq_tvm"
release = version = fq_tvm.__version__
copyright = "the authors of fq_tvm"

extensions = ["sphinx.ext.autodoc", "sphinx.ext.viewcode", "numpydoc"]
html_theme = "alabaster"  # comes with Sphinx; the pages load nothing from elsewhere
html_theme_options = {"description": "Per-channel fake quantization with a cache mask", "page_width": "1100px"}
html_sidebars = {"**": ["about.html", "navigation.html", "searchbox.html"]}

default_role = "literal"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
numpydoc_show_class_members = False  # autodoc lists them
