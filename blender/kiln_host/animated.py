"""The properties that animation may change. A value that a saved file shows is only that of one frame."""


def paths(block):
    """Data paths of a datablock that an action, a strip of the nonlinear animation editor or a driver may change.

    Slots of an action are not told apart, and what is switched off counts: a path too many costs a bake that nobody
    needed, one too few a wrong picture."""
    data = getattr(block, "animation_data", None)
    if not data:
        return set()
    found = {curve.data_path for curve in data.drivers}
    for action in _actions(data):
        found.update(curve.data_path for curve in _curves(action))
    return found


def is_animated(block, *paths_of_it):
    return not paths(block).isdisjoint(paths_of_it)


def ends(block, begin, end):
    """Returns whether a path of this kind is animated, whatever the name between: `modifiers[`, `].show_render`."""
    return any(path.startswith(begin) and path.endswith(end) for path in paths(block))


def _actions(data):
    yield from filter(None, (data.action, getattr(data, "action_tweak_storage", None)))
    todo = [track.strips for track in data.nla_tracks]
    while todo:
        for strip in todo.pop():
            if strip.action:
                yield strip.action
            # A meta strip holds others.
            todo.append(strip.strips) if len(strip.strips) else None


def _curves(action):
    layers = getattr(action, "layers", ())
    for layer in layers:
        for strip in layer.strips:
            for bag in strip.channelbags:
                yield from bag.fcurves
    if not len(layers) and hasattr(action, "fcurves"):
        # Before 4.4 an action has neither layers nor slots.
        yield from action.fcurves
