"""Scenes and objects."""

from kit import feature


@feature("Objects / Visibility: keyed for rendering")
def hide_render(s):
    s.key(s.subject, "hide_render", [True, False, True])


@feature("Objects / Parenting: object")
def parent(s):
    empty = s.empty()
    s.subject.parent = empty
    s.move(empty)
