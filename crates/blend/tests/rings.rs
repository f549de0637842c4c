//! Files whose nodes, strips and view layers lead in circles, or to one place a hundred thousand times: which of their
//! files are used is told in time all the same.

#![allow(clippy::unwrap_used)]

mod made;

use std::{
    fs,
    io::Read,
    path::Path,
    time::{Duration, Instant},
};

use kiln_blend::{MissingReport, RenderScope, find_dependencies};
use made::{
    Maker, STRUCTS, Struct,
    Value::{Int, Text},
};

const MORE: &[Struct] = &[
    (
        "Scene",
        &[
            ("ID", "id"),
            ("Object", "*camera"),
            ("ListBase", "base"),
            ("RenderData", "r"),
            ("ListBase", "markers"),
            ("Collection", "*master_collection"),
            ("ListBase", "view_layers"),
            ("Editing", "*ed"),
            ("bNodeTree", "*nodetree"),
            ("char", "use_nodes"),
        ],
    ),
    (
        "ViewLayer",
        &[("ViewLayer", "*next"), ("char", "name[64]"), ("short", "flag"), ("ListBase", "layer_collections")],
    ),
    (
        "LayerCollection",
        &[
            ("LayerCollection", "*next"),
            ("Collection", "*collection"),
            ("short", "flag"),
            ("ListBase", "layer_collections"),
        ],
    ),
    ("Editing", &[("ListBase", "seqbase"), ("ListBase", "channels")]),
    ("SeqTimelineChannel", &[("SeqTimelineChannel", "*next"), ("int", "index"), ("int", "flag")]),
    (
        "Sequence",
        &[
            ("Sequence", "*next"),
            ("int", "type"),
            ("int", "flag"),
            ("int", "machine"),
            ("Sequence", "*seq1"),
            ("ListBase", "seqbase"),
            ("ListBase", "channels"),
        ],
    ),
    ("bNodeTree", &[("ID", "id"), ("ListBase", "nodes")]),
    (
        "bNode",
        &[
            ("bNode", "*next"),
            ("char", "idname[64]"),
            ("int", "flag"),
            ("ID", "*id"),
            ("ListBase", "inputs"),
            ("ListBase", "outputs"),
        ],
    ),
    ("bNodeSocket", &[("bNodeSocket", "*next"), ("void", "*default_value")]),
    ("bNodeLink", &[("bNodeLink", "*next"), ("bNode", "*fromnode"), ("bNode", "*tonode")]),
    ("Material", &[("ID", "id"), ("bNodeTree", "*nodetree"), ("char", "use_nodes")]),
];

const SCENE: i64 = 0x100;
const MATERIAL: i64 = 0x200;
const IMAGE: i64 = 0x300;
/// The address at which all else begins.
const REST: i64 = 0x1_0000;

type Fields<'a> = Vec<(&'a str, made::Value<'a>)>;

fn maker() -> Maker {
    let structs: Vec<Struct> =
        STRUCTS.iter().filter(|(name, _)| *name != "Scene").chain(MORE).copied().collect();
    Maker { header: "BLENDER-v300", structs: structs.leak() }
}

/// A scene with blocks of its own, a material with others, and an image of which the file is missing.
fn lacking(scene: Fields<'_>, of_scene: Vec<Vec<u8>>, of_material: Vec<Vec<u8>>) -> MissingReport {
    let maker = maker();
    let set_up: Fields<'_> = vec![
        ("id.name", Text("SCScene")),
        ("r.sfra", Int(1)),
        ("r.efra", Int(1)),
        ("r.xsch", Int(8)),
        ("r.ysch", Int(8)),
        ("r.size", Int(100)),
    ];
    let mut blocks = vec![maker.block(b"SC\0\0", "Scene", SCENE as u64, &[set_up, scene].concat())];
    blocks.extend(of_scene);
    let material = [("id.name", Text("MAGlow")), ("use_nodes", Int(1)), ("nodetree", Int(REST))];
    blocks.push(maker.block(b"MA\0\0", "Material", MATERIAL as u64, &material));
    blocks.extend(of_material);
    let image = [("id.name", Text("IMlost")), ("name", Text("//lost.png")), ("source", Int(1))];
    blocks.push(maker.block(b"IM\0\0", "Image", IMAGE as u64, &image));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rings.blend");
    fs::write(&path, maker.file(&blocks)).unwrap();
    look(&path)
}

fn look(path: &Path) -> MissingReport {
    let frames = "1".parse().unwrap();
    let began = Instant::now();
    let found = find_dependencies(path).unwrap().find_missing(Some(RenderScope::new("Scene", &frames)));
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    found
}

fn data(strukt: &str, old: i64, fields: &[(&str, made::Value<'_>)]) -> Vec<u8> {
    maker().block(b"DATA", strukt, old as u64, fields)
}

#[test]
fn rings_of_nodes_end() {
    let mut blocks = vec![data("bNodeTree", REST, &[])];
    let (first, socket) = (REST + 1, REST + 1000);
    for (at, node) in (first..first + 100).enumerate() {
        let name = if at == 0 { "ShaderNodeOutputMaterial" } else { "ShaderNodeTexImage" };
        let outputs = if at == 0 { 0 } else { socket };
        let fields = [
            ("idname", Text(name)),
            ("id", Int(IMAGE)),
            ("inputs.first", Int(socket)),
            ("outputs.first", Int(outputs)),
        ];
        blocks.push(data("bNode", node, &fields));
        let link = [("fromnode", Int(node)), ("tonode", Int(first + (at as i64 + 1) % 100))];
        blocks.push(data("bNodeLink", REST + 2000 + at as i64, &link));
    }
    // Each leads to the other, and all nodes have them.
    for (at, next) in [(socket, socket + 1), (socket + 1, socket)] {
        blocks.push(data("bNodeSocket", at, &[("next", Int(next)), ("default_value", Int(at))]));
    }
    // Nothing shows the material.
    assert_eq!(lacking(vec![], vec![], blocks).unused.len(), 1);
}

#[test]
fn rings_of_view_layers_end() {
    let (layer, place, collection, child) = (REST, REST + 1, REST + 0x1000, REST + 0x2000);
    let scene = vec![("view_layers.first", Int(layer)), ("master_collection", Int(collection))];
    let mut blocks = vec![
        data(
            "ViewLayer",
            layer,
            &[("next", Int(layer)), ("flag", Int(1)), ("layer_collections.first", Int(place))],
        ),
        data("Collection", collection, &[("children.first", Int(child))]),
    ];
    for at in 0..1000 {
        // Below itself, and beside itself.
        let fields = [
            ("next", Int(place + (at + 1) % 1000)),
            ("collection", Int(collection)),
            ("layer_collections.first", Int(place + at)),
        ];
        blocks.push(data("LayerCollection", place + at, &fields));
        let fields = [("next", Int(child + (at + 1) % 1000)), ("collection", Int(collection))];
        blocks.push(data("CollectionChild", child + at, &fields));
    }
    assert_eq!(lacking(scene, blocks, vec![]).unused.len(), 1);
}

#[test]
fn rings_of_strips_end() {
    let (editing, first, channel) = (REST, REST + 1, REST + 0x10_0000);
    let scene = vec![("ed", Int(editing))];
    let mut blocks =
        vec![data("Editing", editing, &[("seqbase.first", Int(first)), ("channels.first", Int(channel))])];
    const COUNT: i64 = 30_000;
    for at in 0..COUNT {
        // All are muted and hold each other, all of one list, and one effect is made of the first.
        let fields = [
            ("next", Int(first + (at + 1) % COUNT)),
            ("type", Int(1)),
            ("flag", Int(if at == 7 { 0 } else { 1 << 5 })),
            ("machine", Int(at)),
            ("seq1", Int(first + (at * 7) % COUNT)),
            ("seqbase.first", Int(first + (at * 3) % COUNT)),
            ("channels.first", Int(channel)),
        ];
        blocks.push(data("Sequence", first + at, &fields));
    }
    for at in 0..1000 {
        let fields = [("next", Int(channel + (at + 1) % 1000)), ("index", Int(at)), ("flag", Int(2))];
        blocks.push(data("SeqTimelineChannel", channel + at, &fields));
    }
    assert_eq!(lacking(scene, blocks, vec![]).unused.len(), 1);
}

/// Real files in which a byte is another.
#[test]
fn damaged_files_are_followed_to_an_end() {
    for name in ["v34.blend", "v50.blend"] {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name);
        let mut whole = Vec::new();
        flate2::read::GzDecoder::new(fs::File::open(seeds).unwrap()).read_to_end(&mut whole).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, &whole).unwrap();
        let sound = look(&path);
        assert!(sound.missing.len() + sound.unused.len() > 0, "{name} names files, and none is there");
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut read = 0;
        for _ in 0..120 {
            let mut bytes = whole.clone();
            for _ in 0..40 {
                random =
                    random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let at = (random >> 20) as usize % bytes.len();
                bytes[at] = (random >> 56) as u8;
            }
            fs::write(&path, &bytes).unwrap();
            if find_dependencies(&path).is_ok() {
                look(&path);
                read += 1;
            }
        }
        println!("{name}: {read} of 120 could be read");
    }
}
