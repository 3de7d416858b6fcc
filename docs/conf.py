"""The site: `make docs` builds README.md and the pages around it into site/, without network.

Sphinx reads the repository as it is, so a link that leads to a page, a heading or a file there does so on the
site too. One that leads nowhere ends the build.
"""

from sphinx.application import Sphinx

project = html_title = "stochca"
extensions = ["myst_parser"]  # pages in Markdown
root_doc = "README"
include_patterns = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/*.md", "benchmarks/RESULTS.md"]
exclude_patterns = [".*", "data", "models", "mlruns", "results", "site", "work"]  # not searched for pages
myst_heading_anchors = 4  # levels of headings that can be linked to, as on GitHub
highlight_language = "text"  # of examples that name no language

html_theme = "furo"
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
html_use_index = False

CONTENTS = """
```{toctree}
:hidden:
:caption: Use it

docs/own-images
docs/methods
docs/results
docs/analysis
docs/benchmarks
docs/search
docs/operate
docs/language
```

```{toctree}
:hidden:
:caption: The library

docs/library
docs/families
docs/extending
```

```{toctree}
:hidden:
:caption: The project

benchmarks/RESULTS
SECURITY
CONTRIBUTING
```
"""


def add_contents(app: Sphinx, name: str, source: list[str]) -> None:
    """The sidebar's list of pages; a page that it lacks ends the build. GitHub would show it as code."""
    if name == root_doc:
        source[0] += CONTENTS


def setup(app: Sphinx) -> None:
    app.connect("source-read", add_contents)
