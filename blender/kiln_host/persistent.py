"""The data that Blender may keep between two frames of a scene, so that each frame is the one that a new process renders.

Persistent data makes Cycles update what the dependency graph names as changed. That is not all that changes: the rules
below name what goes wrong, each with what is exact instead, and docs/decisions/012 has the measurements."""

import bpy

from . import animated, simulations
from .handlers import is_ours

# From fast to slow. Each is exact where the one before it is not.
KEPT = "kept"  # persistent data
DROPPED = "dropped"  # one process, each frame with data of its own
REOPENED = "reopened"  # the file is opened again before each frame
ORDER = (KEPT, DROPPED, REOPENED)

FRAME_HANDLERS = (
    "frame_change_pre",
    "frame_change_post",
    "render_init",
    "render_pre",
    "render_post",
    "render_write",
    "render_complete",
    "depsgraph_update_pre",
    "depsgraph_update_post",
)
MOVING_IMAGES = {"SEQUENCE", "MOVIE"}
# Settings of a scene of whose change no relation tells its objects: Simplify, the shutter, what a view layer holds.
SCENE_INPUTS = ("render.", "view_layers[")
# Those of them that the picture is made with when its objects are done.
LATE_INPUTS = ("render.film_transparent", "render.dither_intensity")
VISIBILITY = ("hide_render", "visible_", "show_instancer_for_render")
# Nodes that give points; before 4.5 Cycles keeps those of the frame before.
POINT_NODES = {
    "GeometryNodePoints",
    "GeometryNodeMeshToPoints",
    "GeometryNodeCurveToPoints",
    "GeometryNodeInstancesToPoints",
    "GeometryNodeDistributePointsOnFaces",
    "GeometryNodeDistributePointsInVolume",
}


class Reuse:
    """The decision for one opened file."""

    def __init__(self, scene, allowed):
        self.how, self.reasons = (KEPT, []) if allowed else (DROPPED, [])
        for how, why, find in RULES:
            found = find(scene)
            if found:
                self.how = max(self.how, how, key=ORDER.index)
                self.reasons.append(f"{why}: {found}" if isinstance(found, str) else why)

    def apply(self, scene):
        """A scene that the compositor or a strip renders as well has a setting of its own."""
        for one in bpy.data.scenes:
            one.render.use_persistent_data = one == scene and self.how == KEPT

    def refresh(self):
        """Before each frame: an image that moves is loaded again only when its users are told.

        Nothing else does: without Auto Refresh no relation leads from the time to the image, and Blender's first
        picture stays. The tag changes no data that a driver or a script could read."""
        if self.how == KEPT:
            for image in bpy.data.images:
                if image.source in MOVING_IMAGES and image.users:
                    image.update_tag()


def _other_engine(scene):
    """Add-ons' engines do with the setting what they like; EEVEE and Workbench ignore it."""
    return scene.render.engine != "CYCLES" and scene.render.engine


def _frame_handler(scene):
    for kind in FRAME_HANDLERS:
        for handler in getattr(bpy.app.handlers, kind):
            if not is_ours(handler):
                return getattr(handler, "__name__", kind)
    return None


def _itasc(scene):
    for thing in bpy.data.objects:
        pose = thing.pose
        if pose and pose.ik_solver == "ITASC" and getattr(pose.ik_param, "mode", "") == "SIMULATION":
            return thing.name
    return None


def _emitters(baked):
    def find(scene):
        for thing in bpy.data.objects:
            for system in thing.particle_systems:
                if system.settings.type == "EMITTER" and system.point_cache.is_baked == baked:
                    return thing.name
        return None

    return find


def _unbaked(scene):
    """Only where a job renders them all the same: otherwise they are baked first, or refused."""
    return next((found[0] for found in simulations.find_unbaked(scene)), None)


def _moving_hair(scene):
    blurred = scene.render.use_motion_blur
    for thing in bpy.data.objects:
        for system in thing.particle_systems:
            if system.settings.type == "HAIR" and (blurred or _may_move(thing)):
                return thing.name
    return None


def _may_move(thing):
    return bool(thing.parent or len(thing.constraints) or animated.paths(thing))


def _points(scene):
    if bpy.app.version >= (4, 5, 0):
        return None
    for group in bpy.data.node_groups:
        if any(node.bl_idname in POINT_NODES for node in group.nodes):
            return group.name
    return None


def _scene_input(scene):
    return next((path for path in sorted(animated.paths(scene)) if path.startswith(SCENE_INPUTS) and path not in LATE_INPUTS), None)


def _rest(scene):
    """Objects that an armature bends do not hear that it goes from its pose to its rest position."""
    for armature in bpy.data.armatures:
        if "pose_position" in animated.paths(armature):
            return armature.name
    return None


def _visibility(scene):
    for thing in bpy.data.objects:
        if any(path.startswith(VISIBILITY) for path in animated.paths(thing)):
            return thing.name
    return None


RULES = (
    (DROPPED, "the engine is not Cycles", _other_engine),
    (REOPENED, "a handler of a script runs at each frame", _frame_handler),
    (REOPENED, "a simulation without a bake goes on from the frame that was rendered before", _unbaked),
    (REOPENED, "particles go on from the frame that was rendered before", _emitters(baked=False)),
    (DROPPED, "particles appear and disappear", _emitters(baked=True)),
    (DROPPED, "objects appear and disappear", _visibility),
    (DROPPED, "geometry nodes make points", _points),
    (DROPPED, "hair that may move, or is blurred", _moving_hair),
    (DROPPED, "an iTaSC simulation goes on from the frame that was rendered before", _itasc),
    (DROPPED, "an armature is animated between pose and rest position", _rest),
    (DROPPED, "an animated setting of the scene is an input of its objects", _scene_input),
)
