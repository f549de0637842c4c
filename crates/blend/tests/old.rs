//! Files of Blender 2.5 to 2.79, which no Blender at hand writes: 4-byte pointers, both byte orders, gzip, render layers
//! instead of view layers, and lists of bases instead of collections; and lists that go round in circles.

#![allow(clippy::unwrap_used)]

mod made;

use std::io::{Cursor, Write};

use kiln_blend::{Compression, ExternalKind, Inspection, ReadLimits, SimulationKind, inspect_reader};
use made::{
    Maker, STRUCTS,
    Value::{Float, Int, Text},
};

const HEADERS: &[&str] = &["BLENDER_v250", "BLENDER_V263", "BLENDER-v279", "BLENDER-V279"];

/// The flags that Blender sets beside the layer's own switch: sky, halos and more.
const LAYER_FLAGS: i64 = 0x7fff;
const LAYER_OFF: i64 = 1 << 17;

fn inspect(bytes: &[u8]) -> Inspection {
    inspect_reader(Cursor::new(bytes), &ReadLimits::default()).unwrap()
}

fn scene(maker: &Maker, master_collection: i64) -> Vec<u8> {
    let values = [
        ("id.name", Text("SCScene")),
        ("camera", Int(0x30)),
        ("base.first", Int(0x41)),
        ("markers.first", Int(0x61)),
        ("master_collection", Int(master_collection)),
        ("r.im_format.imtype", Int(17)),
        ("r.im_format.depth", Int(16)),
        ("r.sfra", Int(-3)),
        ("r.efra", Int(250)),
        ("r.frame_step", Int(2)),
        ("r.size", Int(50)),
        ("r.xsch", Int(1920)),
        ("r.ysch", Int(1080)),
        ("r.layers.first", Int(0x51)),
        ("r.frs_sec", Int(30)),
        ("r.frs_sec_base", Float(1.001)),
        ("r.pic", Text("//render/####")),
        ("r.engine", Text("BLENDER_RENDER")),
    ];
    maker.block(b"SC\0\0", "Scene", 0x20, &values)
}

/// Two objects, two bases, two layers, two markers; what follows the second of each is told.
fn blocks(maker: &Maker, after: [i64; 4], flag: i64) -> Vec<Vec<u8>> {
    let [base, layer, marker, modifier] = after;
    let data = |strukt, old, values: &[_]| maker.block(b"DATA", strukt, old, values);
    vec![
        maker.block(b"GLOB", "FileGlobal", 0x10, &[("subversion", Int(3)), ("curscene", Int(0x20))]),
        scene(maker, 0),
        data("Base", 0x41, &[("next", Int(0x42)), ("object", Int(0x30))]),
        data("Base", 0x42, &[("next", Int(base)), ("prev", Int(0x41)), ("object", Int(0x31))]),
        data(
            "SceneRenderLayer",
            0x51,
            &[("next", Int(0x52)), ("name", Text("Front")), ("layflag", Int(LAYER_FLAGS))],
        ),
        data(
            "SceneRenderLayer",
            0x52,
            &[("next", Int(layer)), ("name", Text("Back")), ("layflag", Int(LAYER_FLAGS | LAYER_OFF))],
        ),
        data(
            "TimeMarker",
            0x61,
            &[("next", Int(0x62)), ("frame", Int(9)), ("name", Text("cut")), ("camera", Int(0x30))],
        ),
        data("TimeMarker", 0x62, &[("next", Int(marker)), ("frame", Int(5))]),
        maker.block(b"OB\0\0", "Object", 0x30, &[("id.name", Text("OBEye")), ("type", Int(11))]),
        maker.block(
            b"OB\0\0",
            "Object",
            0x31,
            &[("id.name", Text("OBFlag")), ("type", Int(1)), ("modifiers.first", Int(0x71))],
        ),
        data(
            "ClothModifierData",
            0x71,
            &[("modifier.next", Int(modifier)), ("modifier.mode", Int(3)), ("point_cache", Int(0x72))],
        ),
        data("PointCache", 0x72, &[("flag", Int(flag))]),
        maker.block(
            b"IM\0\0",
            "Image",
            0x80,
            &[("id.name", Text("IMwood")), ("name", Text("//wood.png")), ("source", Int(1))],
        ),
        maker.block(
            b"LI\0\0",
            "Library",
            0x90,
            &[("id.name", Text("LIprops")), ("name", Text("//lib/props.blend"))],
        ),
    ]
}

fn is_as_made(found: &Inspection, header: &str) {
    let scene = found.active().unwrap();
    assert_eq!(scene.name, "Scene");
    assert_eq!((scene.frame_start, scene.frame_end, scene.frame_step), (-3, 250, 2), "{header}");
    assert_eq!((scene.width, scene.height, scene.percent), (1920, 1080, 50), "{header}");
    assert!((scene.fps - 30.0 / 1.001).abs() < 1e-4, "{header}: {}", scene.fps);
    assert_eq!((scene.engine.as_str(), scene.samples), ("BLENDER_RENDER", None));
    assert_eq!((scene.format_name.as_str(), scene.output_path.as_str()), ("PNG", "//render/####"));
    let layers: Vec<_> = scene.view_layers.iter().map(|layer| (layer.name.as_str(), layer.renders)).collect();
    assert_eq!(layers, [("Front", true), ("Back", false)], "{header}");
    assert_eq!(scene.camera.as_deref(), Some("Eye"));
    let markers: Vec<_> = scene.camera_markers.iter().map(|marker| (marker.frame, &*marker.name)).collect();
    assert_eq!(markers, [(9, "cut")], "{header}");
    let files: Vec<_> = found.external.iter().map(|file| (file.kind, file.path.as_str())).collect();
    assert_eq!(files, [(ExternalKind::Image, "//wood.png"), (ExternalKind::Library, "//lib/props.blend")]);
    let [cloth] = &found.simulations[..] else { panic!("{header}: {:?}", found.simulations) };
    assert_eq!((cloth.kind, cloth.owner.as_str()), (SimulationKind::Cloth, "Flag"));
    assert_eq!(cloth.scenes, ["Scene"], "{header}: it is in the list of bases");
}

#[test]
fn files_from_before_collections_and_view_layers_are_read_whole() {
    for header in HEADERS {
        let maker = Maker { header, structs: STRUCTS };
        for (flag, baked) in [(0, false), (1, true)] {
            let file = maker.file(&blocks(&maker, [0; 4], flag));
            let found = inspect(&file);
            is_as_made(&found, header);
            assert_eq!((found.simulations[0].baked, found.simulations[0].needs_bake), (baked, !baked));
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(&file).unwrap();
            let packed = inspect(&gzip.finish().unwrap());
            assert_eq!(packed.compression, Compression::Gzip);
            assert_eq!(Inspection { compression: Compression::None, ..packed }, found);
        }
    }
}

#[test]
fn lists_in_circles_end_where_they_close() {
    for header in HEADERS {
        let maker = Maker { header, structs: STRUCTS };
        // To the first, and to themselves.
        for after in [[0x41, 0x51, 0x61, 0x71], [0x42, 0x52, 0x62, 0x71], [0x61, 0x41, 0x51, 0x72]] {
            let found = inspect(&maker.file(&blocks(&maker, after, 0)));
            if after[0] != 0x61 {
                is_as_made(&found, header);
            }
        }
    }
}

#[test]
fn collections_within_each_other_are_walked_once() {
    for header in ["BLENDER-v280", "BLENDER17-01v0500"] {
        let maker = Maker { header, structs: STRUCTS };
        let mut all = blocks(&maker, [0; 4], 0);
        all[1] = scene(&maker, 0xa0);
        let collection = |code, old, name, object, child| {
            let values =
                [("id.name", Text(name)), ("gobject.first", Int(object)), ("children.first", Int(child))];
            maker.block(code, "Collection", old, &values)
        };
        let child = |old, to, next| {
            maker.block(b"DATA", "CollectionChild", old, &[("next", Int(next)), ("collection", Int(to))])
        };
        // The scene's own holds one, which holds another, which holds the first and itself.
        let of_scene = [collection(b"DATA", 0xa0, "GRMaster", 0, 0xa1), child(0xa1, 0xb0, 0xa1)];
        all.splice(2..2, of_scene);
        all.extend([collection(b"GR\0\0", 0xb0, "GROne", 0, 0xb1), child(0xb1, 0xc0, 0)]);
        all.extend([collection(b"GR\0\0", 0xc0, "GRTwo", 0xc3, 0xc1), child(0xc1, 0xb0, 0xc2)]);
        all.extend([
            child(0xc2, 0xc0, 0xc1),
            maker.block(b"DATA", "CollectionObject", 0xc3, &[("next", Int(0xc3)), ("ob", Int(0x31))]),
        ]);
        is_as_made(&inspect(&maker.file(&all)), header);
    }
}
