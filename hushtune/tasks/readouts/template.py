"""The words around a text: a template with {text} and, where it is read out, {label}."""

from __future__ import annotations

import string
from collections.abc import Callable

from hushtune.config import ConfigError


class Template:
    """A checked template.

    Args:
        template: with {text} once and {label} at most once; empty: `default`.
        default: what an empty template stands for.
        label: "required" anywhere, "last" (required, after the texts), or "optional".
        pairs: whether {second} is a field as well.

    Raises:
        ConfigError: if the template lacks a field, repeats one, or has another one.
    """

    def __init__(self, template: str, default: str, *, label: str, pairs: bool = False) -> None:
        self._template = template or default
        fields = _fields(self._template)
        texts = ["text", "second"] if pairs else ["text"]
        wanted = " and ".join(f"{{{field}}}" for field in texts)
        if label != "optional":
            wanted += " and, after it, {label}" if label == "last" else " and {label}"
        known = all(fields.count(field) == 1 for field in texts) and fields.count("label") <= 1
        others = set(fields) - {*texts, "label"}
        enough = (
            label == "optional"
            or (label == "required" and "label" in fields)
            or (label == "last" and fields[-1] == "label")
        )
        if not known or others or not enough:
            raise ConfigError(
                f"task.template: {template!r} is not accepted; it must contain {wanted} once, and "
                "nothing else in braces (a brace itself is written twice)."
            )

    def fill(self, text: str, second: str = "", *, label: str = "") -> str:
        """The template with its fields filled in."""
        return self._template.format(text=text, second=second, label=label)

    @property
    def label_is_last(self) -> bool:
        """Whether the label comes after the text."""
        return _fields(self._template)[-1] == "label"

    def before_label(self) -> Template:
        """The part before {label}, without the space there: tokenizers attach it to the label."""
        before = self._template.split("{label}")[0].rstrip()
        return Template(before, "", label="optional", pairs="{second}" in before)

    def label_space(self) -> str:
        """The space between `before_label` and the label."""
        before = self._template.split("{label}")[0]
        return before[len(before.rstrip()) :]


def fill_columns(template: str, column: Callable[[str], str]) -> str:
    """A template whose fields are columns of a row, filled in.

    Raises:
        ConfigError: if a field is no plain name, or there is none.
    """
    return template.format(**{field: column(field) for field in columns_of(template)})


def columns_of(template: str) -> tuple[str, ...]:
    """The columns that a template names, in order and each once.

    Raises:
        ConfigError: if a field is no plain name, or there is none.
    """
    fields = _fields(template)
    if not fields or not all(field.isidentifier() for field in fields):
        raise ConfigError(
            f"task.template: {template!r} is not accepted; it must name columns in braces, and "
            "nothing else (a brace itself is written twice)."
        )
    return tuple(dict.fromkeys(fields))


def _fields(template: str) -> list[str]:
    """Names of the fields in order; a malformed or formatted field becomes the name "?"."""
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError:
        return ["?"]
    return [
        name if not specification and conversion is None else "?"
        for _, name, specification, conversion in parsed
        if name is not None
    ]
