"""Linked data: libraries near and far, overrides, instances, chains."""

import bpy
from kit import VERSION, feature


def far(s, *parts, relative=False):
    return s.file(*parts) if relative else s.outside(*parts)


def linked_collection(s, relative=False, name="Asset"):
    """A collection of a library with a box in it, not yet in the scene."""
    box = s.box("Asset box", 1.2, (0.6, 0, 1.2))
    made = bpy.data.collections.new(name)
    made.objects.link(box)
    path = s.library(far(s, "lib", "asset.blend", relative=relative), {made})
    bpy.data.collections.remove(made)
    bpy.data.objects.remove(box)
    return s.link(path, "collections", [name], relative)[0]


def instance(s, collection):
    empty = s.empty("Instance")
    empty.instance_type, empty.instance_collection = "COLLECTION", collection
    return empty


for relative in (True, False):
    where = "relative path" if relative else "absolute path outside of the project"

    @feature(f"Linking / Objects: animated in the library, {where}", relative)
    def linked_object(s, relative):
        made = s.box("Linked")
        s.move(made)
        path = s.library(far(s, "lib", "a.blend", relative=relative), {made})
        bpy.data.objects.remove(made)
        for made in s.link(path, "objects", ["Linked"], relative):
            s.scene.collection.objects.link(made)

    @feature(f"Linking / Collections: an instance that moves, {where}", relative)
    def linked_instance(s, relative):
        s.move(instance(s, linked_collection(s, relative)))

    @feature(f"Linking / Collections: in the scene, {where}", relative)
    def linked_child(s, relative):
        s.scene.collection.children.link(linked_collection(s, relative))
        s.move(s.camera)

    for flag in ("exclude", "holdout", "indirect_only", "hide_viewport"):

        @feature(f"Linking / View layer: linked collection with {flag.replace('_', ' ')}, {where}", relative, flag)
        def linked_flag(s, relative, flag):
            made = linked_collection(s, relative)
            s.scene.collection.children.link(made)
            setattr(bpy.context.view_layer.layer_collection.children[made.name], flag, True)
            s.move(s.camera)

    @feature(f"Linking / View layer: nested linked collection excluded, {where}", relative)
    def linked_nested_flag(s, relative):
        inner, outer = bpy.data.collections.new("Inner"), bpy.data.collections.new("Outer")
        for made, place in ((inner, (1.2, 0, 1)), (outer, (-1.2, 0, 1))):
            box = s.box("Box of " + made.name, 1, place)
            s.scene.collection.objects.unlink(box)
            made.objects.link(box)
        outer.children.link(inner)
        path = s.library(far(s, "lib", "nest.blend", relative=relative), {outer})
        for made in (inner, outer):
            bpy.data.collections.remove(made)
        for box in [made for made in bpy.data.objects if made.name.startswith("Box of")]:
            bpy.data.objects.remove(box)
        made = s.link(path, "collections", ["Outer"], relative)[0]
        s.scene.collection.children.link(made)
        bpy.context.view_layer.layer_collection.children["Outer"].children["Inner"].exclude = True
        s.move(s.camera)

    @feature(f"Linking / Materials: linked, its image beside it, {where}", relative)
    def linked_material(s, relative):
        node = s.texture(s.picture(far(s, "lib", "tex", "skin.png", relative=relative)))
        node.image.filepath = far(s, "lib", "tex", "skin.png", relative=relative)
        material = s.subject.data.materials[0]
        material.name = "Skin"
        path = far(s, "lib", "mat.blend", relative=relative)
        bpy.data.libraries.write(path, {material}, path_remap="RELATIVE_ALL", fake_user=True)
        s.subject.data.materials.clear()
        bpy.data.materials.remove(material)
        s.subject.data.materials.append(s.link(path, "materials", ["Skin"], relative)[0])
        s.move(s.subject)

    @feature(f"Linking / Node groups: linked, value keyed here, {where}", relative)
    def linked_group(s, relative):
        group, first, last = s.group(
            "ShaderNodeTree", "Tint", [("Fac", "NodeSocketFloat")], [("Color", "NodeSocketColor")]
        )
        ramp = group.nodes.new("ShaderNodeValToRGB")
        group.links.new(first.outputs[0], ramp.inputs[0])
        group.links.new(ramp.outputs[0], last.inputs[0])
        path = s.library(far(s, "lib", "nodes.blend", relative=relative), {group})
        bpy.data.node_groups.remove(group)
        node = s.tree.nodes.new("ShaderNodeGroup")
        node.node_tree = s.link(path, "node_groups", ["Tint"], relative)[0]
        s.emit(node.outputs[0])
        s.key(node.inputs[0], "default_value", [0.1, 0.5, 1.0])

    @feature(f"Linking / Actions: linked action on an object of this file, {where}", relative)
    def linked_action(s, relative):
        s.move(s.subject)
        action = s.subject.animation_data.action
        action.name = "Walk"
        path = s.library(far(s, "lib", "actions.blend", relative=relative), {action})
        s.subject.animation_data.action = None
        bpy.data.actions.remove(action)
        action = s.link(path, "actions", ["Walk"], relative)[0]
        s.subject.animation_data.action = action
        if VERSION >= (4, 4, 0):
            s.subject.animation_data.action_slot = action.slots[0]

    @feature(f"Linking / Worlds: linked world with keys, {where}", relative)
    def linked_world(s, relative):
        s.key(s.world.node_tree.nodes["Background"].inputs[1], "default_value", [0.2, 1.0, 2.5])
        s.world.name = "Sky"
        path = s.library(far(s, "lib", "world.blend", relative=relative), {s.world})
        s.scene.world = None
        bpy.data.worlds.remove(s.world)
        s.scene.world = s.link(path, "worlds", ["Sky"], relative)[0]

    @feature(f"Linking / Meshes: linked mesh, shape key driven there, {where}", relative)
    def linked_mesh(s, relative):
        s.subject.shape_key_add(name="Basis")
        tall = s.subject.shape_key_add(name="Tall")
        for point in tall.data:
            point.co.z *= 1.6
        s.drive(tall, "value", "frame / 10")
        mesh = s.subject.data
        mesh.name = "Body"
        path = s.library(far(s, "lib", "mesh.blend", relative=relative), {mesh})
        bpy.data.objects.remove(s.subject)
        bpy.data.meshes.remove(mesh)
        s.object("Subject", s.link(path, "meshes", ["Body"], relative)[0], (0, 0, 1))

    def overridden(s, relative):
        made = linked_collection(s, relative)
        empty = instance(s, made)
        override = made.override_hierarchy_create(
            s.scene, bpy.context.view_layer, reference=empty, do_fully_editable=True
        )
        if override is None:
            s.absent("no override can be made without a window")
        if empty.name in bpy.data.objects:
            bpy.data.objects.remove(empty)
        return override, next(thing for thing in override.all_objects if thing.type == "MESH")

    @feature(f"Linking / Overrides: keyed in the shot, {where}", relative)
    def override(s, relative):
        s.move(overridden(s, relative)[1])

    @feature(f"Linking / Overrides: driven and constrained in the shot, {where}", relative)
    def override_driver(s, relative):
        _, box = overridden(s, relative)
        s.drive(box, "location", "frame / 10", index=0)
        empty = s.empty("Target")
        s.key(empty, "rotation_euler", [0.0, 0.5, 1.0], index=2)
        box.constraints.new("COPY_ROTATION").target = empty

    @feature(f"Linking / Overrides: hidden in renders by the shot, {where}", relative)
    def override_hidden(s, relative):
        _, box = overridden(s, relative)
        s.key(box, "hide_render", [True, False, True])

    def rigged(s, relative):
        """An override of a linked rig with a mesh."""
        from features.armatures import armature

        rig, skin, _ = armature(s)
        made = bpy.data.collections.new("Character")
        for thing in (rig, skin):
            made.objects.link(thing)
            s.scene.collection.objects.unlink(thing)
        path = s.library(far(s, "lib", "rig.blend", relative=relative), {made})
        bpy.data.collections.remove(made)
        for thing in (rig, skin):
            bpy.data.objects.remove(thing)
        made = s.link(path, "collections", ["Character"], relative)[0]
        empty = instance(s, made)
        override = made.override_hierarchy_create(
            s.scene, bpy.context.view_layer, reference=empty, do_fully_editable=True
        )
        if override is None:
            s.absent("no override can be made without a window")
        if empty.name in bpy.data.objects:
            bpy.data.objects.remove(empty)
        return next(thing for thing in override.all_objects if thing.type == "ARMATURE")

    @feature(f"Linking / Overrides: a pose with keys, {where}", relative)
    def override_pose(s, relative):
        bone = rigged(s, relative).pose.bones["Bone1"]
        bone.rotation_mode = "XYZ"
        s.key(bone, "rotation_euler", [0.0, 0.6, 1.2], index=0)

    @feature(f"Linking / Overrides: a pose without keys, {where}", relative)
    def override_still_pose(s, relative):
        rig = rigged(s, relative)
        for bone in rig.pose.bones:
            bone.rotation_mode = "XYZ"
            bone.rotation_euler = (0.4, 0.2, 0)
        s.move(s.camera)

    @feature(f"Linking / Overrides: a bone constraint of the shot, {where}", relative)
    def override_constraint(s, relative):
        rig = rigged(s, relative)
        empty = s.empty("Target", (1, 0.3, 1))
        s.move(empty)
        rig.pose.bones["Bone2"].constraints.new("IK").target = empty

    @feature(f"Linking / Drivers: here, reading a linked object, {where}", relative)
    def driver_of_linked(s, relative):
        made = s.empty("Control")
        s.move(made)
        path = s.library(far(s, "lib", "control.blend", relative=relative), {made})
        bpy.data.objects.remove(made)
        control = s.link(path, "objects", ["Control"], relative)[0]
        s.scene.collection.objects.link(control)
        s.variable(s.drive(s.subject, "location", "x * 1.5", index=0), control, "location[0]")

    @feature(f"Linking / Scenes: linked scene as the background set, {where}", relative)
    def linked_set(s, relative):
        other = bpy.data.scenes.new("Set")
        box = s.box("Backdrop", 1.2, (1.4, 1, 1))
        s.scene.collection.objects.unlink(box)
        other.collection.objects.link(box)
        s.move(box)
        path = s.library(far(s, "lib", "set.blend", relative=relative), {other})
        bpy.data.scenes.remove(other)
        bpy.data.objects.remove(box)
        s.scene.background_set = s.link(path, "scenes", ["Set"], relative)[0]


@feature("Linking / Libraries: missing", refuses="missing")
def missing(s):
    import os

    s.move(instance(s, linked_collection(s)))
    os.remove(s.outside("lib", "asset.blend"))
