"""Physics: rigid bodies, cloth, soft bodies, particles, fields, dynamic paint, oceans, fluids."""

import bpy
from kit import feature


def body(s, made, kind="ACTIVE"):
    if s.scene.rigidbody_world is None:
        bpy.ops.rigidbody.world_add()
    s.active(made)
    bpy.ops.rigidbody.object_add(type=kind)
    return made.rigid_body


@feature("Physics / Rigid body: falls", sim=True)
def rigid(s):
    s.subject.location.z = 2
    body(s, s.subject)


@feature("Physics / Rigid body: lands on a floor", sim=True)
def rigid_floor(s):
    s.subject.location.z = 1.3
    s.subject.rotation_euler = (0.3, 0.2, 0)
    body(s, s.subject)
    body(s, s.floor, "PASSIVE")
    s.scene.rigidbody_world.time_scale = 3


@feature("Physics / Rigid body: animated, then released (kinematic keyed)", sim=True)
def rigid_kinematic(s):
    s.subject.location.z = 2
    rigid_body = body(s, s.subject)
    s.key(s.subject, "location", [0.0, 0.6], index=0, frames=(1, 3))
    s.key(rigid_body, "kinematic", [True, False], frames=(1, 4))
    s.scene.rigidbody_world.time_scale = 2


@feature("Physics / Rigid body: dynamic keyed", sim=True)
def rigid_dynamic(s):
    s.subject.location.z = 2
    rigid_body = body(s, s.subject)
    s.key(rigid_body, "enabled", [False, True], frames=(1, 3))
    s.scene.rigidbody_world.time_scale = 2


@feature("Physics / Rigid body: pushed by one that is animated", sim=True)
def rigid_pushed(s):
    body(s, s.subject)
    body(s, s.floor, "PASSIVE")
    ram = s.box("Ram", 1, (-2, 0, 0.6))
    body(s, ram, "PASSIVE").kinematic = True
    s.key(ram, "location", [-2.5, 0.6], index=0, frames=(1, 9))


for kind in ("HINGE", "SPRING", "FIXED", "MOTOR"):

    @feature(f"Physics / Rigid body constraints: {kind.lower()}", kind, sim=True)
    def rigid_constraint(s, kind):
        anchor = s.box("Anchor", 0.4, (-0.8, 0, 2))
        s.subject.location, s.subject.scale = (0.4, 0, 2), (0.6, 0.6, 0.6)
        body(s, anchor, "PASSIVE" if kind != "FIXED" else "ACTIVE")
        body(s, s.subject)
        s.active(s.empty("Joint", (-0.6, 0, 2)))
        # A hinge turns around its Z axis.
        bpy.context.object.rotation_euler.x = 1.57
        bpy.ops.rigidbody.constraint_add(type="GENERIC_SPRING" if kind == "SPRING" else kind)
        joint = bpy.context.object.rigid_body_constraint
        joint.object1, joint.object2 = anchor, s.subject
        if kind == "MOTOR":
            joint.use_motor_ang, joint.motor_ang_target_velocity = True, 20
        if kind == "SPRING":
            joint.use_spring_z, joint.spring_stiffness_z = True, 40
        s.scene.rigidbody_world.time_scale = 2


def cloth(s, **settings):
    sheet = s.grid("Sheet", 8, 2.4, (0, 0, 1.9))
    modifier = sheet.modifiers.new("Cloth", "CLOTH")
    modifier.settings.quality = 4
    for name, value in settings.items():
        setattr(modifier.settings, name, value)
    modifier.point_cache.frame_end = 10
    modifier.settings.time_scale = 2
    return sheet, modifier


@feature("Physics / Cloth: falls on a cube", sim=True)
def cloth_falls(s):
    cloth(s)
    s.subject.modifiers.new("Collision", "COLLISION")


@feature("Physics / Cloth: pinned, the pin moves", sim=True)
def cloth_pinned(s):
    sheet, modifier = cloth(s)
    group = sheet.vertex_groups.new(name="Pin")
    group.add(list(range(9)), 1, "ADD")
    modifier.settings.vertex_group_mass = "Pin"
    s.key(sheet, "location", [0.0, 0.5, 1.0], index=0, frames=(1, 5, 9))


@feature("Physics / Cloth: pressure keyed", sim=True)
def cloth_pressure(s):
    _, modifier = cloth(s, use_pressure=True)
    s.key(modifier.settings, "uniform_pressure_force", [0.0, 10.0, 30.0])


@feature("Physics / Cloth: the object is shown by a key later", sim=True)
def cloth_hidden(s):
    sheet, _ = cloth(s)
    s.key(sheet, "hide_render", [True, False], frames=(1, 4))


@feature("Physics / Cloth: the modifier is shown by a key later", sim=True)
def cloth_modifier(s):
    _, modifier = cloth(s)
    s.key(modifier, "show_render", [False, True], frames=(1, 4))
    s.key(modifier, "show_viewport", [False, True], frames=(1, 4))


@feature("Physics / Cloth: in wind, behind a subdivision", sim=True)
def cloth_wind(s):
    sheet, modifier = cloth(s)
    modifier.settings.effector_weights.gravity = 0
    sheet.modifiers.new("Subdivision", "SUBSURF")
    field(s, "WIND", 40, (0, 0, 0.2))


@feature("Physics / Soft body: falls", sim=True)
def soft(s):
    s.subject.location.z = 1.8
    modifier = s.subject.modifiers.new("Softbody", "SOFT_BODY")
    modifier.settings.use_goal = False
    modifier.point_cache.frame_end = 10


@feature("Physics / Soft body: goal, the object moves", sim=True)
def soft_goal(s):
    grid = s.grid("Jelly", 4, 2, (0, 0, 1.8))
    modifier = grid.modifiers.new("Softbody", "SOFT_BODY")
    modifier.settings.goal_default = 0.5
    modifier.point_cache.frame_end = 10
    s.key(grid, "location", [0.0, 1.0], index=0, frames=(1, 6))


def field(s, kind, strength=5, location=(0.5, 0, 0.5)):
    empty = s.empty("Field", location)
    s.active(empty)
    bpy.ops.object.forcefield_toggle()
    empty.field.type = kind
    empty.field.strength = strength
    return empty


def particles(s, **values):
    s.subject.modifiers.new("Emitter", "PARTICLE_SYSTEM")
    system = s.subject.particle_systems[0]
    settings = system.settings
    settings.count, settings.frame_start, settings.frame_end, settings.lifetime = 60, 1, 8, 20
    piece = s.box("Piece", 0.5, (0, 0, -6))
    settings.render_type, settings.instance_object, settings.particle_size = "OBJECT", piece, 0.4
    for name, value in values.items():
        setattr(settings, name, value)
    return system, settings


@feature("Physics / Particles: emitted objects", sim=True)
def emitted(s):
    particles(s)


@feature("Physics / Particles: size random, rotation and spin", sim=True)
def spinning(s):
    particles(s, size_random=0.8, use_rotations=True, angular_velocity_mode="RAND", angular_velocity_factor=4)


@feature("Physics / Particles: born and dead", sim=True)
def mortal(s):
    particles(s, lifetime=3, lifetime_random=0.5, show_unborn=False)


@feature("Physics / Particles: emissive ones that die")
def emissive(s):
    system, settings = particles(s, lifetime=3)
    tree, _ = s.material(settings.instance_object)
    s.emit(tree.nodes.new("ShaderNodeRGB").outputs[0], tree).inputs["Strength"].default_value = 20


@feature("Physics / Particles: from a collection, the count of each", sim=True)
def from_collection(s):
    made = bpy.data.collections.new("Pieces")
    for size in (0.3, 0.6):
        box = s.box("P", size, (0, 0, -6))
        made.objects.link(box)
    particles(s, render_type="COLLECTION", instance_collection=made, use_collection_pick_random=True)


for kind in ("WIND", "VORTEX", "TURBULENCE", "FORCE", "MAGNET", "HARMONIC", "DRAG"):

    @feature(f"Physics / Force fields: {kind.lower()}, strength keyed", kind, sim=True)
    def fields(s, kind):
        particles(s, normal_factor=2)
        made = field(s, kind)
        s.key(made.field, "strength", [5.0, 40.0, -30.0], frames=(1, 4, 8))


@feature("Physics / Particles: collide with a floor", sim=True)
def collide(s):
    particles(s, normal_factor=3)
    s.floor.modifiers.new("Collision", "COLLISION")


@feature("Physics / Particles: boids", sim=True)
def boids(s):
    particles(s, physics_type="BOIDS")


@feature("Physics / Particles: fluid (SPH)", sim=True)
def sph(s):
    particles(s, physics_type="FLUID")


@feature("Physics / Particles: emitter that moves, velocity of the object", sim=True)
def moving(s):
    particles(s, object_factor=1)
    s.key(s.subject, "location", [-1.0, 1.0], index=0, frames=(1, 9))


@feature("Physics / Particles: emitter guided by a constraint", sim=True)
def guided(s):
    particles(s)
    guide = s.empty("Guide", (0, 0, 1))
    s.key(guide, "location", [-1.0, 1.0], index=0, frames=(1, 9))
    s.subject.constraints.new("COPY_LOCATION").target = guide


@feature("Physics / Particles: emitter that changes its shape", sim=True)
def grows(s):
    particles(s)
    s.subject.shape_key_add(name="Basis")
    wide = s.subject.shape_key_add(name="Wide")
    for point in wide.data:
        point.co.x *= 3
    s.key(wide, "value", [0.0, 1.0], frames=(1, 9))


@feature("Physics / Particles: speed keyed", sim=True)
def thrown(s):
    system, settings = particles(s)
    s.key(settings, "normal_factor", [0.0, 6.0], frames=(1, 9))


@feature("Physics / Particles: gravity keyed", sim=True)
def floating(s):
    particles(s, normal_factor=2)
    s.key(s.scene, "gravity", [-9.8, 9.8], index=2, frames=(1, 9))


@feature("Physics / Particles: born before the first frame", sim=True)
def early(s):
    particles(s, frame_start=-8, frame_end=6)


@feature("Physics / Particles: time tweak", sim=True)
def tweak(s):
    system, settings = particles(s, time_tweak=2)


@feature("Physics / Hair particles: on an emitter that moves")
def hair(s):
    s.subject.modifiers.new("Hair", "PARTICLE_SYSTEM")
    settings = s.subject.particle_systems[0].settings
    settings.type, settings.count, settings.hair_length = "HAIR", 80, 0.8
    settings.root_radius = 8
    s.move(s.subject)


@feature("Physics / Hair particles: children and kink keyed")
def children(s):
    s.subject.modifiers.new("Hair", "PARTICLE_SYSTEM")
    settings = s.subject.particle_systems[0].settings
    settings.type, settings.count, settings.hair_length = "HAIR", 30, 1
    settings.child_type, settings.root_radius = "INTERPOLATED", 6
    settings.kink = "CURL"
    s.key(settings, "kink_amplitude", [0.0, 0.2, 0.5])


@feature("Physics / Hair particles: dynamics", sim=True)
def hair_dynamics(s):
    s.subject.modifiers.new("Hair", "PARTICLE_SYSTEM")
    system = s.subject.particle_systems[0]
    system.settings.type, system.settings.count, system.settings.hair_length = "HAIR", 20, 1.2
    system.settings.root_radius = 8
    system.use_hair_dynamics = True
    system.point_cache.frame_end = 10
    s.key(s.subject, "location", [0.0, 0.8], index=0, frames=(1, 6))


def canvas(s, kind):
    grid = s.grid("Canvas", 20, 3, (0, 0, 1))
    s.subject.scale = (0.5, 0.5, 0.5)
    modifier = grid.modifiers.new("Canvas", "DYNAMIC_PAINT")
    s.active(grid)
    bpy.ops.dpaint.type_toggle(type="CANVAS")
    surface = modifier.canvas_settings.canvas_surfaces[0]
    surface.surface_type, surface.frame_end, surface.point_cache.frame_end = kind, 10, 10
    s.subject.modifiers.new("Brush", "DYNAMIC_PAINT")
    s.active(s.subject)
    bpy.ops.dpaint.type_toggle(type="BRUSH")
    s.key(s.subject, "location", [-1.2, 1.2], index=0, frames=(1, 9))
    return grid, surface


for kind in ("WAVE", "DISPLACE", "WEIGHT"):

    @feature(f"Physics / Dynamic paint: {kind.lower()}", kind, sim=True)
    def paint(s, kind):
        grid, surface = canvas(s, kind)
        if kind == "WEIGHT":
            grid.vertex_groups.new(name="Wet")
            surface.output_name_a = "Wet"
            mask = grid.modifiers.new("Mask", "MASK")
            mask.vertex_group, mask.invert_vertex_group = "Wet", True


@feature("Physics / Ocean: time keyed")
def ocean(s):
    grid = s.grid("Sea", 2, 1)
    s.without_subject()
    modifier = grid.modifiers.new("Ocean", "OCEAN")
    modifier.resolution, modifier.spatial_size, modifier.size = 4, 4, 1
    modifier.wave_scale = 1
    s.key(modifier, "time", [1.0, 2.0, 4.0])


@feature("Physics / Ocean: spectrum, choppiness driven")
def ocean_choppy(s):
    grid = s.grid("Sea", 2, 1)
    s.without_subject()
    modifier = grid.modifiers.new("Ocean", "OCEAN")
    modifier.resolution, modifier.spatial_size, modifier.size, modifier.time = 4, 4, 1, 2
    s.drive(modifier, "choppiness", "frame / 4")


@feature("Physics / Explode and build: a simulation of the past, frame by frame")
def build_explode(s):
    s.subject.modifiers.new("Triangulate", "TRIANGULATE")
    build = s.subject.modifiers.new("Build", "BUILD")
    build.frame_start, build.frame_duration = 1, 12


@feature("Physics / Simulation nodes: points that pile up", since=(3, 6), sim=True)
def simulation(s):
    tree, coming, going, modifier = s.geometry()
    first, last = tree.nodes.new("GeometryNodeSimulationInput"), tree.nodes.new("GeometryNodeSimulationOutput")
    first.pair_with_output(last)
    move = tree.nodes.new("GeometryNodeSetPosition")
    move.inputs["Offset"].default_value = (0.08, 0, 0.06)
    tree.links.new(coming, first.inputs[0])
    tree.links.new(first.outputs["Geometry"], move.inputs[0])
    tree.links.new(move.outputs[0], last.inputs["Geometry"])
    tree.links.new(last.outputs["Geometry"], going)


@feature("Physics / Simulation: in the background set", sim=True)
def in_set(s):
    other = bpy.data.scenes.new("Set")
    sheet, _ = cloth(s)
    s.scene.collection.objects.unlink(sheet)
    other.collection.objects.link(sheet)
    s.scene.background_set = other
