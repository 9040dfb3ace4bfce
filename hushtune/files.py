"""Files of a run folder, written whole."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

from hushtune.config import Config


def write_config(path: Path, config: Config) -> None:
    """The configuration as YAML, complete."""
    from ruamel.yaml import YAML

    yaml: Any = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # the order of the labels has a meaning
    text = io.StringIO()
    yaml.dump(json.loads(json.dumps(config.to_json())), text)
    write_whole(path, text.getvalue())


def write_json(path: Path, value: Any) -> None:
    """Indented JSON with a final newline."""
    write_whole(path, json.dumps(value, indent=2) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Write a file so that whoever reads it, after a crash too, finds the old or the new one."""
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)
