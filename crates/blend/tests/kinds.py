"""Makes a scene that names a file of every kind this Blender can make, relatively, absolutely and through libraries.

Run inside Blender, or by a Python with the bpy wheel: ... kinds.py -- FOLDER [FLUID]
FLUID is a baked fluid to use: the wheels abort when they are to bake one.
The home of all is FOLDER/home: the project in `project`, and what is not part of it in `far`.
"""

import ctypes
import math
import os
import shutil
import struct
import sys
import wave

import bpy

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import shot  # noqa: E402

given = sys.argv[sys.argv.index("--") + 1 :]
out = os.path.realpath(given[0])
home = os.path.join(out, "home")
project, far = os.path.join(home, "project"), os.path.join(home, "far")
options = bpy.app.build_options


# Blender may write the bake of an ocean into a folder of a garbled name; not where the tests were started.
os.chdir(out)


def place(*parts):
    path = os.path.join(*parts)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return path


def picture(path, colour, fmt="PNG"):
    image = bpy.data.images.new("made", 8, 8, float_buffer=fmt == "OPEN_EXR")
    image.generated_color = (*colour, 1)
    image.filepath_raw, image.file_format = path, fmt
    image.save()
    bpy.data.images.remove(image)
    return path


def write(path, data):
    with open(path, "wb") as file:
        file.write(data)
    return path


def sound(path):
    with wave.open(path, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(b"".join(struct.pack("<h", int(9000 * math.sin(n / 9))) for n in range(4000)))
    return path


def mdd(path, points):
    times = (0.0, 1.0)
    data = struct.pack(">2i", len(times), len(points)) + struct.pack(f">{len(times)}f", *times)
    for shift in times:
        data += b"".join(struct.pack(">3f", x, y, z + shift) for x, y, z in points)
    return write(path, data)


def fresh():
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.samples, scene.cycles.use_denoising = 2, False
    scene.render.resolution_x, scene.render.resolution_y = 96, 64
    scene.frame_start, scene.frame_end = 1, 3
    scene.view_settings.view_transform = "Standard"
    return scene


def save(path, compress=False):
    bpy.ops.wm.save_as_mainfile(filepath=place(path), relative_remap=False, compress=compress)


def image_of(path, name, source="FILE"):
    image = bpy.data.images.new(name, 1, 1)
    image.source = source
    image.filepath = path
    return image


def painted(name, image, frames=0):
    """A material that glows in the colours of an image."""
    material = bpy.data.materials.new(name)
    material.use_nodes = True
    nodes, links = material.node_tree.nodes, material.node_tree.links
    texture, glow = nodes.new("ShaderNodeTexImage"), nodes.new("ShaderNodeEmission")
    texture.image = image
    if frames:
        user = texture.image_user
        user.frame_duration, user.frame_start, user.use_auto_refresh = frames, 1, True
    links.new(texture.outputs["Color"], glow.inputs["Color"])
    links.new(glow.outputs[0], nodes["Material Output"].inputs["Surface"])
    return material


def plane(name, x, y, material=None):
    mesh = bpy.data.meshes.new(name)
    mesh.from_pydata([(-1, -1, 0), (1, -1, 0), (1, 1, 0), (-1, 1, 0)], [], [(0, 1, 2, 3)])
    mesh.uv_layers.new()
    thing = bpy.data.objects.new(name, mesh)
    thing.location = (x, y, 0)
    bpy.context.scene.collection.objects.link(thing)
    if material:
        mesh.materials.append(material)
    return thing


def link(path, name, relative):
    with bpy.data.libraries.load(path, link=True, relative=relative) as (_, to):
        to.objects = [name]
    bpy.context.scene.collection.objects.link(to.objects[0])
    return to.objects[0]


def activate(thing):
    bpy.context.view_layer.objects.active = thing
    thing.select_set(True)


RED, GREEN, BLUE, YELLOW = (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0)


def libraries():
    """far/lib/hero.blend, with files of its own, names far/props/prop.blend absolutely; project/lib/set.blend names
    project/lib/sub/tree.blend relatively."""
    fresh()
    picture(place(far, "props", "tex", "prop.png"), YELLOW)
    plane("Prop", 0, 2.5, painted("prop", image_of("//tex/prop.png", "prop")))
    save(os.path.join(far, "props", "prop.blend"))
    fresh()
    picture(place(far, "lib", "tex", "skin.png"), GREEN)
    picture(place(far, "skins", "abs.png"), (0, 1, 1))
    plane("Hero", 2.5, 2.5, painted("skin", image_of("//tex/skin.png", "skin")))
    hat = plane("Hat", 2.5, 0, painted("hat", image_of(os.path.join(far, "skins", "abs.png"), "hat")))
    hat.parent = bpy.data.objects["Hero"]
    save(os.path.join(far, "lib", "hero.blend"))
    link(os.path.join(far, "props", "prop.blend"), "Prop", False).parent = hat
    group = bpy.data.collections.new("All")
    for thing in ("Hero", "Hat", "Prop"):
        group.objects.link(bpy.data.objects[thing])
    bpy.context.scene.collection.children.link(group)
    save(os.path.join(far, "lib", "hero.blend"), compress=True)
    fresh()
    # As a person on a system that does not tell cases apart would have it.
    picture(place(project, "lib", "Tex", "Leaf.PNG"), BLUE)
    plane("Tree", -2.5, 2.5, painted("leaf", image_of("//../tex/leaf.png", "leaf")))
    save(os.path.join(project, "lib", "sub", "tree.blend"))
    fresh()
    save(os.path.join(project, "lib", "set.blend"))
    link(os.path.join(project, "lib", "sub", "tree.blend"), "Tree", True).parent = plane("Ground", 0, -2.5)
    save(os.path.join(project, "lib", "set.blend"))


def movie(path):
    scene = fresh()
    strips = scene.sequence_editor_create()
    strips = strips.strips if hasattr(strips, "strips") else strips.sequences
    kind = {"frame_end": 4} if bpy.app.version < (5, 0) else {"length": 3}
    strip = strips.new_effect("c", "COLOR", 1, frame_start=1, **kind)
    strip.color = (1, 0.5, 0)
    settings = scene.render.image_settings
    if hasattr(settings, "media_type"):
        settings.media_type = "VIDEO"
    settings.file_format = "FFMPEG"
    scene.render.ffmpeg.format, scene.render.ffmpeg.codec = "MPEG4", "MPEG4"
    scene.render.resolution_x = scene.render.resolution_y = 64
    scene.render.resolution_percentage = 100
    scene.render.filepath = path
    scene.render.use_file_extension = False
    bpy.ops.render.render(animation=True)


def caches():
    """Files that only Blender itself can make."""
    scene = fresh()
    cube = plane("Wave", 0, 0)
    scene.frame_set(1)
    if options.alembic:
        bpy.ops.wm.alembic_export(filepath=place(far, "caches", "wave.abc"), start=1, end=2)
    if options.usd:
        # A text in the binary form, which could be the name of a layer as well as that of a mesh.
        cube.data.name = "other.usd"
        bpy.ops.wm.usd_export(filepath=place(far, "caches", "layers", "shape.usdc"))
        write(place(far, "caches", "layers", "other.usd"), b"#usda 1.0\n")
        layer = b'#usda 1.0\n( defaultPrim = "root" subLayers = [ @./layers/shape.usdc@ ] )\n'
        write(place(far, "caches", "wave.usda"), layer)
    cube.name = "Done"


def fluid(thing, folder):
    modifier = thing.modifiers.new("fluid", "FLUID")
    modifier.fluid_type = "DOMAIN"
    domain = modifier.domain_settings
    domain.domain_type, domain.resolution_max, domain.cache_type = "GAS", 8, "ALL"
    domain.cache_frame_start, domain.cache_frame_end = 1, 2
    domain.cache_directory = folder
    if len(given) > 1:
        shutil.copytree(given[1], folder)
        modifier.show_viewport = modifier.show_render = False
        return
    activate(thing)
    bpy.context.view_layer.update()
    bpy.ops.fluid.bake_all()


def box(name, x, y):
    bpy.ops.mesh.primitive_cube_add(location=(x, y, 0))
    bpy.context.object.name = name
    return bpy.context.object


def images():
    picture(place(project, "tex", "wood.png"), (0.5, 0.2, 0))
    picture(place(far, "tex", "far.png"), (1, 0, 1))
    picture(place(far, "tex", "CON.png"), (0.3, 0.3, 1))
    picture(os.fsdecode(place(far, "tex", "x").encode()[:-1] + b"caf\xe9.png"), (0.2, 0.9, 0.4))
    for number, colour in ((1, RED), (2, GREEN), (3, BLUE)):
        picture(place(far, "seq", f"s_{number:04}.png"), colour)
        picture(place(project, "strips", f"p_{number:02}.png"), colour)
        picture(place(far, "strips", f"q_{number:02}.png"), colour)
    for number in (1001, 1002):
        picture(place(far, "tiles", f"t.{number}.png"), RED)
    for view, colour in (("L", RED), ("R", GREEN)):
        picture(place(far, "stereo", f"e_{view}.png"), colour)
    plane("Wood", -5, 0, painted("wood", image_of("//../tex/wood.png", "wood")))
    plane("Far", -2.5, 0, painted("far", image_of(os.path.join(far, "tex", "far.png"), "far")))
    plane("Con", -2.5, -2.5, painted("con", image_of(os.path.join(far, "tex", "CON.png"), "con")))
    latin = os.path.join(far, "tex") + "/" + os.fsdecode(b"caf\xe9.png")
    plane("Latin", -5, -2.5, painted("latin", image_of(latin, "latin")))
    plane("Seq", 2.5, -2.5, painted("seq", image_of(os.path.join(far, "seq", "s_0001.png"), "seq", "SEQUENCE"), 3))
    tiled = image_of(os.path.join(far, "tiles", "t.<UDIM>.png"), "tiles", "TILED")
    tiled.tiles.new(tile_number=1002)
    plane("Tiles", 5, -2.5, painted("tiles", tiled))
    stereo = image_of(os.path.join(far, "stereo", "e_L.png"), "stereo")
    stereo.use_multiview, stereo.views_format = True, "INDIVIDUAL"
    stereo.use_fake_user = True


def others(scene):
    light = bpy.data.objects.new("Lamp", bpy.data.lights.new("Lamp", "POINT"))
    light.location, light.data.energy = (0, 0, 4), 3000
    scene.collection.objects.link(light)
    light.data.use_nodes = True
    nodes, links = light.data.node_tree.nodes, light.data.node_tree.links
    profile = "IESNA:LM-63-1995\nTILT=NONE\n1 1000 1 3 1 1 2 0 0 0\n1 1 50\n0 45 90\n0\n1000 500 10\n"
    write(place(far, "light", "spot.ies"), profile.encode())
    node = nodes.new("ShaderNodeTexIES")
    node.mode, node.filepath = "EXTERNAL", os.path.join(far, "light", "spot.ies")
    links.new(node.outputs[0], nodes["Emission"].inputs["Strength"])
    write(place(far, "osl", "flat.osl"), b"shader flat(output color Out = color(0.2, 0.8, 0.2)) {}\n")
    material = bpy.data.materials.new("osl")
    material.use_nodes, material.use_fake_user = True, True
    node = material.node_tree.nodes.new("ShaderNodeScript")
    node.mode, node.filepath = "EXTERNAL", os.path.join(far, "osl", "flat.osl")

    fonts = os.path.join(bpy.utils.system_resource("DATAFILES"), "fonts")
    name = next(name for name in sorted(os.listdir(fonts)) if name.startswith("DejaVuSansMono"))
    shutil.copy(os.path.join(fonts, name), place(far, "fonts", name))
    words = bpy.data.curves.new("Words", "FONT")
    words.body, words.font = "Kiln", bpy.data.fonts.load(os.path.join(far, "fonts", name))
    words = bpy.data.objects.new("Words", words)
    words.location = (-5, 2, 0.2)
    scene.collection.objects.link(words)

    bpy.data.sounds.load(sound(place(far, "sound", "a.wav"))).use_fake_user = True
    write(place(far, "notes", "n.txt"), b"words")
    bpy.data.texts.load(os.path.join(far, "notes", "n.txt"))

    shape = plane("Shape", 5, 0, painted("shape", image_of("//../tex/wood.png", "again")))
    points = [(v.co.x * 0.5, v.co.y, v.co.z) for v in shape.data.vertices]
    cache = shape.modifiers.new("cache", "MESH_CACHE")
    cache.cache_format, cache.filepath = "MDD", mdd(place(far, "caches", "shape.mdd"), points)


def mark_baked(ocean):
    """Without a window nobody waits for the end of the bake: its files are there, and Blender's mark is not."""
    # In Blender's memory the mark follows the folder and the names of two layers.
    for name in (64, 68):
        if not ocean.is_cached:
            start = ocean.as_pointer()
            folder = os.fsencode(ocean.filepath) + b"\0"
            offset = ctypes.string_at(start, 1024).index(folder) + 1024 + 2 * name
            ctypes.c_char.from_address(start + offset).value = 1
    assert ocean.is_cached


def simulations(scene):
    ocean = plane("Ocean", 5, 2.5)
    modifier = ocean.modifiers.new("ocean", "OCEAN")
    modifier.resolution, modifier.frame_start, modifier.frame_end = 4, 1, 2
    modifier.spatial_size, modifier.size = 20, 0.1
    modifier.filepath = os.path.join(far, "ocean")
    activate(ocean)
    bpy.ops.object.ocean_bake(modifier="ocean")
    mark_baked(modifier)
    fluid(box("Smoke", 8, 0), os.path.join(far, "fluid"))
    vdb = shutil.copy(
        os.path.join(far, "fluid", "data", "fluid_data_0001.vdb"), place(far, "volumes", "v_0001.vdb")
    )
    shutil.copy(vdb, os.path.join(far, "volumes", "v_0002.vdb"))
    volume = bpy.data.volumes.new("Cloud")
    volume.filepath, volume.is_sequence, volume.frame_duration, volume.frame_start = vdb, True, 2, 1
    scene.collection.objects.link(bpy.data.objects.new("Cloud", volume))

    cloth = plane("Cloth", 8, 2.5)
    modifier = cloth.modifiers.new("cloth", "CLOTH")
    modifier.point_cache.use_disk_cache = True
    modifier.point_cache.frame_end = 3
    with_disk = cloth.modifiers["cloth"].point_cache
    activate(cloth)
    bpy.ops.ptcache.bake_all(bake=True)
    made = os.path.join(project, "shots", "blendcache_main")
    assert with_disk.is_baked and os.listdir(made), "cloth was baked to disk"
    played = plane("Played", 8, -2.5)
    modifier = played.modifiers.new("cloth", "CLOTH")
    for name in os.listdir(made):
        shutil.copy(os.path.join(made, name), place(far, "points", "played_" + name.split("_", 1)[1]))
    modifier.point_cache.use_external = True
    modifier.point_cache.name = "played"
    modifier.point_cache.filepath = os.path.join(far, "points")

    detail = box("Detail", 10, 0)
    detail.modifiers.new("multires", "MULTIRES")
    activate(detail)
    bpy.ops.object.multires_subdivide(modifier="multires")
    bpy.ops.object.multires_external_save(filepath=place(far, "multires", "detail.btx"), modifier="multires")


def nodes(scene):
    if not hasattr(bpy.types, "GeometryNodeSimulationOutput"):
        return
    tree = bpy.data.node_groups.new("Sim", "GeometryNodeTree")
    tree.interface.new_socket("Geometry", in_out="INPUT", socket_type="NodeSocketGeometry")
    tree.interface.new_socket("Geometry", in_out="OUTPUT", socket_type="NodeSocketGeometry")
    first, last = tree.nodes.new("NodeGroupInput"), tree.nodes.new("NodeGroupOutput")
    begin, end = tree.nodes.new("GeometryNodeSimulationInput"), tree.nodes.new("GeometryNodeSimulationOutput")
    begin.pair_with_output(end)
    move = tree.nodes.new("GeometryNodeSetPosition")
    move.inputs["Offset"].default_value = (0, 0, 0.2)
    tree.links.new(first.outputs[0], begin.inputs["Geometry"])
    tree.links.new(begin.outputs["Geometry"], move.inputs["Geometry"])
    tree.links.new(move.outputs[0], end.inputs["Geometry"])
    tree.links.new(end.outputs["Geometry"], last.inputs[0])
    for name, folder in (("SimNear", ""), ("SimFar", os.path.join(far, "simulated"))):
        thing = plane(name, 10, 2.5)
        modifier = thing.modifiers.new("sim", "NODES")
        modifier.node_group = tree
        if hasattr(modifier, "bake_target"):
            modifier.bake_target = "DISK"
        modifier.bake_directory = folder
    for frame in range(scene.frame_start, scene.frame_end + 1):
        scene.frame_set(frame)
    for thing in scene.objects:
        for modifier in thing.modifiers:
            for bake in modifier.bakes if modifier.type == "NODES" else ():
                # Each by itself: to bake all at once bakes nothing in 4.2.
                bpy.ops.object.geometry_node_bake_single(
                    session_uid=thing.session_uid, modifier_name=modifier.name, bake_id=bake.bake_id
                )
    if not hasattr(bpy.types, "GeometryNodeImportSTL"):
        return
    stl = b"solid s\nfacet normal 0 0 1\nouter loop\nvertex 0 0 0\nvertex 1 0 0\nvertex 0 1 0\nendloop\nendfacet\nendsolid s\n"
    write(place(far, "meshes", "a.stl"), stl)
    write(place(far, "meshes", "b.stl"), stl)
    tree = bpy.data.node_groups.new("Import", "GeometryNodeTree")
    path = tree.interface.new_socket("Path", in_out="INPUT", socket_type="NodeSocketString")
    path.subtype = "FILE_PATH"
    tree.interface.new_socket("Geometry", in_out="OUTPUT", socket_type="NodeSocketGeometry")
    first, last = tree.nodes.new("NodeGroupInput"), tree.nodes.new("NodeGroupOutput")
    join = tree.nodes.new("GeometryNodeJoinGeometry")
    fixed, given = tree.nodes.new("GeometryNodeImportSTL"), tree.nodes.new("GeometryNodeImportSTL")
    fixed.inputs["Path"].default_value = os.path.join(far, "meshes", "a.stl")
    tree.links.new(first.outputs["Path"], given.inputs["Path"])
    for node in (fixed, given):
        tree.links.new(node.outputs[0], join.inputs[0])
    tree.links.new(join.outputs[0], last.inputs[0])
    modifier = plane("Imported", -8, 2.5).modifiers.new("import", "NODES")
    modifier.node_group = tree
    modifier[path.identifier] = os.path.join(far, "meshes", "b.stl")


def cache_files(scene):
    for flag, name, opened in ((options.alembic, "wave.abc", "abc"), (options.usd, "wave.usda", "usd")):
        if not flag:
            continue
        bpy.ops.cachefile.open(filepath=os.path.join(far, "caches", name))
        cache = bpy.data.cache_files[-1] if bpy.data.cache_files[-1].filepath.endswith(name) else bpy.data.cache_files[name]
        thing = plane("Cached " + opened, -8, 0 if opened == "abc" else -2.5)
        modifier = thing.modifiers.new("cache", "MESH_SEQUENCE_CACHE")
        modifier.cache_file = cache
        modifier.object_path = "/Wave/Wave" if opened == "abc" else "/root/Wave/other_usd"


def clips(scene):
    bpy.data.movieclips.load(os.path.join(far, "videos", "clip.mp4")).use_fake_user = True
    clip = bpy.data.movieclips.load(os.path.join(far, "seq", "s_0001.png"))
    clip.use_fake_user = True
    image_of(os.path.join(far, "videos", "clip.mp4"), "movie", "MOVIE").use_fake_user = True


def strips(scene):
    editor = scene.sequence_editor_create()
    strips = editor.strips if hasattr(editor, "strips") else editor.sequences
    near = strips.new_image("near", os.path.join(project, "strips", "p_01.png"), 1, 1)
    near.directory = "//../strips/"
    remote = strips.new_image("remote", os.path.join(far, "strips", "q_01.png"), 2, 1)
    for strip, letter in ((near, "p"), (remote, "q")):
        for number in (2, 3):
            strip.elements.append(f"{letter}_{number:02}.png")
    strips.new_movie("movie", os.path.join(far, "videos", "clip.mp4"), 3, 1)
    if options.audaspace:
        strips.new_sound("sound", os.path.join(far, "sound", "a.wav"), 4, 1)
    # The picture is the scene's own.
    scene.render.use_sequencer = False


libraries()
fresh()
shot.rig(plane, activate)
save(os.path.join(far, "rig", "rig.blend"))
movie(place(far, "videos", "clip.mp4"))
caches()
scene = fresh()
main = place(project, "shots", "main.blend")
save(main)
camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
camera.location = (1, 0, 26)
scene.collection.objects.link(camera)
scene.camera = camera
images()
others(scene)
simulations(scene)
nodes(scene)
cache_files(scene)
clips(scene)
strips(scene)
link(os.path.join(project, "lib", "set.blend"), "Ground", True)
with bpy.data.libraries.load(os.path.join(far, "lib", "hero.blend"), link=True, relative=False) as (_, to):
    to.collections = ["All"]
instance = bpy.data.objects.new("Instance", None)
instance.instance_type, instance.instance_collection = "COLLECTION", to.collections[0]
instance.location = (-8, 2, 0)
scene.collection.objects.link(instance)
with bpy.data.libraries.load(os.path.join(project, "lib", "sub", "tree.blend"), link=True, relative=True) as (_, to):
    to.objects = ["Tree"]
scene.collection.objects.link(to.objects[0])
shot.change(scene, os.path.join(far, "rig", "rig.blend"), plane)
scene.render.use_multiview = False
scene.frame_set(2)
save(main)
print("made", main)
sys.stdout.flush()
os._exit(0)
