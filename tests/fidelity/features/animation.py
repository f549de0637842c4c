"""Animation & Rigging."""

from kit import feature


@feature("Animation / Keyframes: location of an object")
def location(s):
    s.move(s.subject)


@feature("Animation / Drivers: simple expression")
def simple(s):
    s.drive(s.subject, "location", "frame / 8", index=2)


@feature("Animation / Drivers: Python expression", trust=True)
def python(s):
    s.drive(s.subject, "location", "max([frame / 8 for _ in range(3)])", index=2)


@feature("Animation / Drivers: Python expression without trust", refuses="--trust")
def python_untrusted(s):
    s.drive(s.subject, "location", "max([frame / 8 for _ in range(3)])", index=2)
