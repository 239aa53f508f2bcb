"""The pages of the API, from signatures and docstrings, which are Markdown."""

from __future__ import annotations

import importlib
import inspect
import re
from types import ModuleType

import snnlib

SIGN_OF_AN_OBJECT = re.compile(r"<[^>]*>")


def pages() -> dict[str, str]:
    """Name of each public subpackage -> its page in MyST Markdown."""
    return {name: module_page(importlib.import_module(f"snnlib.{name}")) for name in snnlib.__all__}


def module_page(module: ModuleType) -> str:
    """What the module says of itself, then its public names: functions, classes, values."""
    parts = [f"# {module.__name__}", text_of(module)]
    for name in public_names(module):
        value = getattr(module, name)
        if inspect.isclass(value):
            parts.append(class_text(module.__name__, name, value))
        elif callable(value):
            parts.append(directive("function", module.__name__, f"{name}{signature(value)}", text_of(value)))
        elif not inspect.ismodule(value):
            parts.append(directive("data", module.__name__, name, _kind_of(value)))
    return "\n\n".join(parts) + "\n"


def public_names(module: ModuleType) -> list[str]:
    """`__all__`, else what is defined in the module itself and has no underscore in front."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]


def class_text(module: str, name: str, kind: type) -> str:
    """A class with its public methods and properties, those that say something of themselves."""
    inner = []
    for attribute, value in vars(kind).items():
        plain = getattr(value, "__func__", value)
        if attribute.startswith("_") or not getattr(plain, "__doc__", None):
            continue
        if isinstance(value, property):
            inner.append(directive("property", module, f"{name}.{attribute}", text_of(value)))
        elif inspect.isfunction(plain):
            inner.append(directive("method", module, f"{name}.{attribute}{signature(plain)}", text_of(plain)))
    return directive("class", module, f"{name}{signature(kind)}", "\n\n".join([text_of(kind), *inner]), fence=":" * 5)


def directive(kind: str, module: str, head: str, body: str, fence: str = ":" * 4) -> str:
    """A block of Sphinx's domain for Python, which gives it an anchor and a place in the index."""
    return f"{fence}{{py:{kind}}} {head}\n:module: {module}\n\n{body}\n{fence}"


def signature(value: object) -> str:
    """In one line; empty where Python knows none."""
    try:
        text = " ".join(str(inspect.signature(value)).split())
        return re.sub(r"(: |-> )'([^']*)'", r"\1\2", SIGN_OF_AN_OBJECT.sub("...", text))
    except ValueError:
        return ""


def text_of(value: object) -> str:
    """The docstring with its examples fenced."""
    lines, fenced = [], False
    for line in (inspect.getdoc(value) or "").splitlines():
        if line.startswith(">>>") and not fenced:
            lines += ["", "```pycon"]
            fenced = True
        elif not line.strip() and fenced:
            lines.append("```")
            fenced = False
        lines.append(line)
    return "\n".join([*lines, "```"] if fenced else lines)


def _kind_of(value: object) -> str:
    if isinstance(value, dict | tuple | list) and all(isinstance(each, str) for each in value):
        return f"One of {', '.join(f'`{each}`' for each in value)}."
    return f"`{value!r}`" if len(repr(value)) < 80 and "<" not in repr(value) else f"A {type(value).__name__}."
