"""Just enough HTML: everything is escaped unless it was made here."""

from __future__ import annotations

from html import escape

MAX_TEXT = 4000


class Markup(str):
    """HTML that is already safe."""

    __slots__ = ()


def text(value: object) -> Markup:
    """``value`` as text, escaped; what does not print is shown as its code.

    Escaping alone is not enough for hostile ids: a right-to-left override turns a row of the table
    around, and a null or a lone surrogate is no valid HTML.
    """
    if isinstance(value, Markup):
        return value
    plain = str(value)[:MAX_TEXT]
    if not plain.isprintable():
        plain = "".join(
            each if each.isprintable() or each == "\n" else f"\\u{ord(each):04x}" for each in plain
        )
    return Markup(escape(plain, quote=True))


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """An element. ``class_`` is class, ``data_x`` is data-x; attributes that are None are left out.

    Names of elements and attributes come from the source, never from data.
    """
    rendered = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{rendered}>{''.join(text(child) for child in children)}</{name}>")


def join(*children: object) -> Markup:
    """Children side by side."""
    return Markup("".join(text(child) for child in children))
