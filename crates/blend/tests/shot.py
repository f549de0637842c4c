"""A library, and what a shot changes in it after it has linked it. Parts of the scene that kinds.py makes."""

import bpy

RED, GREEN, BLUE, YELLOW = (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0)


def group_of(kind, name, first, second):
    """A node group with two inputs, and one output like the first."""
    tree = bpy.data.node_groups.new(name, kind)
    for socket, label in ((first, "First"), (second, "Second")):
        if hasattr(tree, "interface"):
            tree.interface.new_socket(label, in_out="INPUT", socket_type=socket)
        else:
            tree.inputs.new(socket, label)
    if hasattr(tree, "interface"):
        tree.interface.new_socket("Out", in_out="OUTPUT", socket_type=first)
    else:
        tree.outputs.new(first, "Out")
    return tree, tree.nodes.new("NodeGroupInput"), tree.nodes.new("NodeGroupOutput")


def shaped(thing):
    """Gives a plane shape keys and a group of some of its points."""
    thing.shape_key_add(name="Basis")
    wide = thing.shape_key_add(name="Wide")
    for point in wide.data:
        point.co[0] *= 1.4
    thing.vertex_groups.new(name="other")
    thing.vertex_groups.new(name="some").add([0, 1], 1, "REPLACE")
    return thing


def rig(plane, activate):
    """A library with all that a shot changes after it has linked it."""
    grey = bpy.data.materials.new("grey")
    bones = bpy.data.objects.new("Arm", bpy.data.armatures.new("Bones"))
    bpy.context.scene.collection.objects.link(bones)
    activate(bones)
    bpy.ops.object.mode_set(mode="EDIT")
    for name, at in (("a", 0), ("b", 1)):
        bone = bones.data.edit_bones.new(name)
        bone.head, bone.tail = (at, 0, 0), (at + 1, 0, 0)
    bpy.ops.object.mode_set(mode="OBJECT")
    kids = bpy.data.collections.new("Kids")
    for number, name in enumerate(("Shown", "Excluded", "Held", "Indirect", "Hidden")):
        kid = bpy.data.collections.new(name)
        thing = plane(name, -6 + 2.5 * number, 5, grey)
        bpy.context.scene.collection.objects.unlink(thing)
        kid.objects.link(thing)
        kids.children.link(kid)
    shaped(plane("Slots", 0, 0, grey))
    over = shaped(plane("Over", 8, -5, grey))
    over["strength"] = 0.5
    over.property_overridable_library_set('["strength"]', True)
    tree, first, last = group_of("ShaderNodeTree", "Tint", "NodeSocketColor", "NodeSocketFloat")
    tree.links.new(first.outputs[0], last.inputs[0])
    tree, first, last = group_of("GeometryNodeTree", "Push", "NodeSocketGeometry", "NodeSocketVector")
    push = tree.nodes.new("GeometryNodeSetPosition")
    tree.links.new(first.outputs[0], push.inputs["Geometry"])
    tree.links.new(first.outputs[1], push.inputs["Offset"])
    tree.links.new(push.outputs[0], last.inputs[0])
    over.location = (8, -5, 0)
    over.keyframe_insert("location", index=0, frame=1)
    over.location.x = 8.6
    over.keyframe_insert("location", index=0, frame=3)
    over.animation_data.action.name = "Slide"
    over.animation_data.action.use_fake_user = True
    for group in bpy.data.node_groups:
        group.use_fake_user = True
    over.animation_data_clear()
    bpy.context.scene.collection.children.link(kids)


def plain(name, colour):
    """A material that glows."""
    material = bpy.data.materials.new(name)
    material.use_nodes = True
    nodes, links = material.node_tree.nodes, material.node_tree.links
    glow = nodes.new("ShaderNodeEmission")
    glow.inputs["Color"].default_value = (*colour, 1)
    links.new(glow.outputs[0], nodes["Material Output"].inputs["Surface"])
    return material


def change(scene, library, plane):
    """What a shot says of linked data, each with its mark in the picture. The library is named absolutely."""
    with bpy.data.libraries.load(library, link=True, relative=False) as (_, to):
        to.collections, to.objects, to.armatures, to.meshes = ["Kids"], ["Over", "Arm"], ["Bones"], ["Slots"]
        to.node_groups, to.actions = ["Tint", "Push"], ["Slide"]
    scene.collection.children.link(to.collections[0])
    kids = bpy.context.view_layer.layer_collection.children["Kids"].children
    kids["Excluded"].exclude = True
    kids["Held"].holdout = True
    kids["Indirect"].indirect_only = True
    kids["Hidden"].hide_viewport = True
    armature = bpy.data.objects.new("Posed", to.armatures[0])
    armature.location = (-7, -5, 0)
    scene.collection.objects.link(armature)
    bpy.context.view_layer.update()
    one, two = armature.pose.bones["a"], armature.pose.bones["b"]
    one.rotation_mode, one.rotation_euler = "XYZ", (0, 0, 0.4)
    one["mood"] = 2.0
    one.custom_shape = scene.objects["Wood"]
    two.scale = (1, 1.5, 1)
    limit = two.constraints.new("LIMIT_ROTATION")
    limit.use_limit_y, limit.min_y, limit.max_y = True, 0.3, 0.5
    for number, (bone, colour) in enumerate((("a", RED), ("b", GREEN))):
        held = plane("Held by " + bone, 0, 0, plain("held" + bone, colour))
        held.scale = (0.4, 0.4, 0.4)
        held.parent, held.parent_type, held.parent_bone = armature, "BONE", bone
    slotted = bpy.data.objects.new("Slotted", to.meshes[0])
    slotted.location = (-3, -5, 0)
    scene.collection.objects.link(slotted)
    slotted.material_slots[0].link = "OBJECT"
    slotted.material_slots[0].material = plain("slot", BLUE)
    slotted.active_shape_key_index = 1
    slotted.show_only_shape_key = True
    hair = slotted.modifiers.new("hair", "PARTICLE_SYSTEM").particle_system
    hair.settings.type, hair.settings.count = "HAIR", 10
    hair.vertex_group_density = "some"
    tint = plain("tint", RED)
    group = tint.node_tree.nodes.new("ShaderNodeGroup")
    group.node_tree = to.node_groups[0]
    group.inputs[1].default_value = 0.25
    colour = tint.node_tree.nodes.new("ShaderNodeRGB")
    colour.outputs[0].default_value = (1, 0.4, 0.7, 1)
    tint.node_tree.links.new(colour.outputs[0], group.inputs[0])
    tint.node_tree.links.new(group.outputs[0], tint.node_tree.nodes["Emission"].inputs["Color"])
    tinted = plane("Tinted", 0, -5, tint)
    push = tinted.modifiers.new("push", "NODES")
    push.node_group = to.node_groups[1]
    sockets = push.node_group.interface.items_tree if hasattr(push.node_group, "interface") else push.node_group.inputs
    push[next(socket.identifier for socket in sockets if socket.name == "Second")][0] = 0.4
    slid = plane("Slid", 3, -5, plain("slid", YELLOW))
    slid.animation_data_create().action = to.actions[0]
    if hasattr(to.actions[0], "slots"):
        slid.animation_data.action_slot = to.actions[0].slots[0]
    slid.location.y = -5
    strip = plane("Stripped", 0, 4, plain("stripped", YELLOW))
    strip.animation_data_create().nla_tracks.new().strips.new("s", 1, to.actions[0]).blend_type = "ADD"
    over, bones = (thing.override_create(remap_local_usages=True) for thing in to.objects)
    scene.collection.objects.link(over)
    scene.collection.objects.link(bones)
    over.location = (5.5, -5, 0)
    over["strength"] = 0.75
    over.modifiers.new("wave", "SIMPLE_DEFORM").angle = 0.5
    over.constraints.new("LIMIT_SCALE").use_max_x = True
    over.material_slots[0].link = "OBJECT"
    over.material_slots[0].material = plain("over", GREEN)
    bones.location = (9, 5, 0)
    bpy.context.view_layer.update()
    bones.pose.bones["a"].rotation_mode = "XYZ"
    bones.pose.bones["a"].rotation_euler = (0, 0, 0.7)
    bones.pose.bones["b"].constraints.new("COPY_LOCATION").target = scene.objects["Wood"]
    driven = plane("Driven", 9, 3.5, plain("driven", RED))
    for field, path in (("x", '["strength"]'), ("y", 'pose.bones["a"].rotation_euler[2]')):
        driver = driven.driver_add("scale", "xy".index(field)).driver
        driver.type, driver.expression = "SCRIPTED", "v"
        variable = driver.variables.new()
        variable.name = "v"
        variable.targets[0].id = over if field == "x" else bones
        variable.targets[0].data_path = path
    # And of what is linked and not overridden.
    driver = driven.driver_add("scale", 2).driver
    driver.type, driver.expression = "SCRIPTED", "v"
    variable = driver.variables.new()
    variable.name, variable.type = "v", "SINGLE_PROP"
    variable.targets[0].id_type, variable.targets[0].id = "MESH", to.meshes[0]
    variable.targets[0].data_path = "vertices[1].co[0]"
