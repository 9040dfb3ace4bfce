"""Write the API documentation as HTML: `make docs`, or `python docs/generate_api.py FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

import pdoc
import pdoc.render

import hushtune

#: What people import; everything else is reached from there.
MODULES = ("hushtune", "hushtune.core", "hushtune.config")


def generate(folder: Path) -> None:
    """One page a module, and a search."""
    # These are imported where they are first used, and pdoc looks at what is there.
    for name in hushtune.__all__:
        setattr(hushtune, name, getattr(hushtune, name))
    pdoc.render.configure(docformat="google", show_source=False, math=False)
    pdoc.pdoc(*MODULES, output_directory=folder)


if __name__ == "__main__":
    generate(Path(sys.argv[1]))
