//! Real pictures of a real Blender: each is what was asked for, and nothing less than the whole of it passes.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::Cursor,
    path::{Path, PathBuf},
    sync::LazyLock,
    time::{Duration, Instant},
};

use kiln_image::{
    Expectation, ImageFault, decode, is_cut_off, probe, same_pixels, seems_cut_off, verify, verify_path,
};
use kiln_testkit::{Blender, blenders};
use kiln_types::{Blank, ColorDepth, FileFormat};
use serde::Deserialize;

#[derive(Deserialize)]
struct Entry {
    file: String,
    format: String,
    /// Of the two JPEG 2000 formats the one without a container.
    bare: bool,
    depth: Option<u8>,
    width: u32,
    height: u32,
    blank: Option<Blank>,
    not_finite: bool,
}

/// The content of a picture's pixels: whether it is black, and whether some are no numbers.
type Pixels = (Option<Blank>, bool);

struct Shots {
    folder: PathBuf,
    entries: Vec<(PathBuf, Expectation, Pixels)>,
}

fn shots(blender: &Blender) -> Shots {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pictures.py");
    let folder = blender.build(&script, &[], "manifest.json");
    let manifest = fs::read(folder.join("manifest.json")).unwrap();
    let entries: Vec<Entry> = serde_json::from_slice(&manifest).unwrap();
    let entries = entries
        .into_iter()
        .map(|entry| {
            let format = FileFormat::from_blender_name(&entry.format).unwrap();
            let format = if entry.bare { FileFormat::J2c } else { format };
            let depth = entry.depth.map(|depth| depth.to_string().parse().unwrap());
            let expected = Expectation::new(format, entry.width, entry.height).depth(depth);
            (folder.join(entry.file), expected, (entry.blank, entry.not_finite))
        })
        .collect();
    Shots { folder, entries }
}

/// By the oldest Blender and the newest.
static SHOTS: LazyLock<Vec<Shots>> = LazyLock::new(|| blenders().iter().map(shots).collect());

fn all() -> impl Iterator<Item = &'static (PathBuf, Expectation, Pixels)> {
    SHOTS.iter().flat_map(|shots| &shots.entries)
}

/// Those that are not black: the others differ from them in nothing that a header or a cut shows.
fn lit() -> impl Iterator<Item = &'static (PathBuf, Expectation, Pixels)> {
    all().filter(|(_, _, (blank, _))| blank.is_none())
}

fn shot(name: &str) -> &'static (PathBuf, Expectation, Pixels) {
    SHOTS[0].entries.iter().find(|(path, ..)| path.ends_with(name)).unwrap_or_else(|| panic!("{name}"))
}

#[test]
fn every_format_passes() {
    let mut formats = Vec::new();
    for (path, expected, pixels) in all() {
        let checked =
            verify_path(path, expected).unwrap_or_else(|fault| panic!("{}: {fault}", path.display()));
        let found = (checked.pixels.blank, checked.pixels.not_finite > 0);
        assert_eq!(found, *pixels, "{}", path.display());
        let file = fs::File::open(path).unwrap();
        let (_, width, height) = probe(&file).unwrap();
        assert_eq!((width, height), (expected.width, expected.height));
        formats.push(expected.format);
    }
    for format in FileFormat::ALL {
        assert!(formats.contains(format), "no {format} was written");
    }
}

#[test]
fn a_pixel_that_is_no_number_is_counted_once_whatever_its_channels() {
    for name in ["nan.exr", "nan-half.exr", "infinite.exr", "nan-ml.exr"] {
        let (path, expected, _) = shot(name);
        let picture = decode(fs::File::open(path).unwrap()).unwrap();
        let pixels = 0..expected.width as usize * expected.height as usize;
        let wild = |at: &usize| picture.planes.iter().any(|plane| !plane.samples[*at].is_finite());
        let count = pixels.filter(wild).count() as u64;
        assert!(count > 10, "{name} has only {count}");
        assert_eq!(verify_path(path, expected).unwrap().pixels.not_finite, count, "{name}");
    }
}

#[test]
fn layers_and_views_are_seen() {
    let names = |file: &str| {
        let (path, expected, _) = shot(file);
        let checked = verify_path(path, expected).unwrap();
        checked.layers.into_iter().map(|layer| layer.name).collect::<Vec<_>>()
    };
    let two = names("ml-two.exr");
    for layer in ["ViewLayer.Combined", "ViewLayer.CryptoObject00", "ViewLayer.Normal", "Second.Combined"] {
        assert!(two.iter().any(|name| name == layer), "{layer} is not in {two:?}");
    }
    let stereo = names("ml-stereo.exr");
    for view in ["ViewLayer.Combined.left", "ViewLayer.Combined.right"] {
        assert!(stereo.iter().any(|name| name == view), "{view} is not in {stereo:?}");
    }
    assert_eq!(names("exr-stereo.exr"), ["", "right"]);
}

#[test]
fn pixels_are_those_that_blender_reads() {
    let mut compared = 0;
    for (path, expected, _) in all() {
        let mut raw = path.clone().into_os_string();
        raw.push(".f32");
        let Ok(raw) = fs::read(raw) else { continue };
        let theirs: Vec<f32> =
            raw.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        let picture = decode(fs::File::open(path).unwrap()).unwrap();
        let scale = match (picture.depth, picture.format) {
            (_, FileFormat::OpenExr | FileFormat::Hdr) => 1.0,
            (ColorDepth::Eight, _) => 255.0,
            (ColorDepth::Ten, _) => 1023.0,
            (ColorDepth::Twelve, _) => 4095.0,
            _ => 65535.0,
        };
        let name = path.file_stem().unwrap().to_str().unwrap();
        // From 4.2 Blender leaves DPX to a library, which writes the other byte order, and plain numbers always.
        let has_densities =
            picture.format == FileFormat::Cineon || fs::read(path).unwrap().starts_with(b"SDPX");
        let is_log = picture.format == FileFormat::Cineon || name.ends_with("-log");
        let tolerance = match picture.format {
            FileFormat::Jpeg => 4.0 / 255.0,
            FileFormat::Hdr => 0.01,
            // Rounded from another order of additions.
            FileFormat::Jp2 if name.starts_with("cinema") => 1.01 / 4095.0,
            _ => 1e-4,
        };
        let (width, height) = (expected.width as usize, expected.height as usize);
        for plane in &picture.planes {
            let channel = "RGBA".find(&plane.channel).unwrap_or(0);
            if name.starts_with("one-dpx-RGBA-10") && channel == 3 && !has_densities {
                // That library reads nothing here; older Blenders and ImageMagick read what we do.
                assert!(plane.samples == [1023.0], "{name}");
                continue;
            }
            for (i, sample) in plane.samples.iter().enumerate() {
                let (x, y) = (i % width, height - 1 - i / width);
                let (ours, theirs) = (sample / scale, theirs[(y * width + x) * 4 + channel]);
                // Blender reads the colours of these as light, and looks each sample up in tables.
                let ours =
                    if has_densities && channel < 3 { light(ours, scale, is_log, theirs) } else { ours };
                assert!(
                    (ours - theirs).abs() <= tolerance * theirs.abs().max(1.0),
                    "{} {} at {x},{y}: {ours} is not {theirs}",
                    path.display(),
                    plane.channel
                );
            }
        }
        compared += 1;
    }
    assert!(compared >= 80, "only {compared} were compared");
}

/// The light that Blender reads of a sample of DPX or Cineon, 0 to 1: of a density, where it is one, and then of sRGB, whose table
/// has as many entries as there are codes. Of two entries that are as near as rounding can tell it is the one that Blender
/// took.
fn light(code: f32, codes: f32, is_log: bool, theirs: f32) -> f32 {
    let (black, white, slope) = (95.0 / 1023.0, 685.0 / 1023.0, 2.048 / 0.6);
    let gain = 1.0 / (1.0 - 10_f32.powf((black - white) * slope));
    let value = match code {
        _ if !is_log => code,
        code if code < black => 0.0,
        code if code > white => 1.0,
        code => 10_f32.powf((code - white) * slope) * gain - (gain - 1.0),
    };
    let linear = |entry: f32| {
        let srgb = entry.clamp(0.0, codes) / codes;
        if srgb < 0.04045 { srgb / 12.92 } else { ((srgb + 0.055) / 1.055).powf(2.4) }
    };
    let entry = (value * codes).round();
    let nearer = [(value * codes - 0.02).round(), (value * codes + 0.02).round()];
    let same = |entry: &f32| (linear(*entry) - theirs).abs() <= 1e-4;
    linear(nearer.into_iter().find(same).unwrap_or(entry))
}

#[test]
fn the_same_picture_compares_equal_whatever_its_compression() {
    let same = |a: &str, b: &str| same_pixels(&shot(a).0, &shot(b).0).unwrap();
    let equal = same("ml-ZIP-32.exr", "ml-PIZ-32.exr");
    assert!(equal.is_none() && equal.total > 20 * 67 * 41, "{equal:?}");
    assert!(same("tiff-codec-LZW.tif", "tiff-codec-NONE.tif").is_none());
    // Blender itself reads no bare JPEG 2000.
    for name in ["RGB-8-100", "RGBA-16-100", "RGB-8-50"] {
        assert!(same(&format!("JP2-{name}.jp2"), &format!("J2K-{name}.j2c")).is_none(), "{name}");
    }
    let lossy = same("exr-ZIP-16.exr", "exr-DWAA-16.exr");
    assert!(lossy.differing > 0 && lossy.max_abs < 0.2, "{lossy:?}");
    let eyes = same("png-indiv_L.png", "png-indiv_R.png");
    assert!(eyes.differing > 0);
    let fault = same_pixels(&shot("png-RGB-8.png").0, &shot("png-s3d.png").0).unwrap_err();
    assert_eq!(fault.to_string(), "the two pictures cannot be compared: they differ in size");
}

#[test]
fn another_size_format_or_depth_is_refused() {
    for (path, expected, _) in lit() {
        let wrong = Expectation { width: expected.width + 1, ..*expected };
        assert!(matches!(verify_path(path, &wrong), Err(ImageFault::WrongSize { .. })), "{}", path.display());
        let family = |f| match f {
            FileFormat::TargaRaw => FileFormat::Targa,
            other => other,
        };
        for format in FileFormat::ALL.iter().filter(|f| family(**f) != family(expected.format)) {
            let wrong = Expectation { format: *format, ..*expected };
            let fault = verify_path(path, &wrong).unwrap_err();
            assert!(matches!(fault, ImageFault::WrongFormat { .. }), "{} {fault}", path.display());
        }
        for depth in ColorDepth::ALL.iter().filter(|d| expected.depth.is_some_and(|e| e != **d)) {
            let wrong = Expectation { depth: Some(*depth), ..*expected };
            let fault = verify_path(path, &wrong).unwrap_err();
            assert!(matches!(fault, ImageFault::WrongDepth { .. }), "{} {fault}", path.display());
        }
    }
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    for (path, expected, _) in lit() {
        let bytes = fs::read(path).unwrap();
        // Of those that Blender writes in many ways, each is cut at fewer places.
        use FileFormat::{Cineon, Dpx, Iris, J2c, Jp2};
        let (cuts, last) =
            if matches!(expected.format, Cineon | Dpx | Iris | J2c | Jp2) { (17, 5) } else { (60, 40) };
        let step = (bytes.len() / cuts).max(1);
        let near_end = bytes.len() - last..bytes.len();
        for (at, cut) in (0..bytes.len()).step_by(step).chain(near_end).enumerate() {
            let result = verify(Cursor::new(&bytes[..cut]), expected);
            assert!(result.is_err(), "{} passes when cut at {cut} of {}", path.display(), bytes.len());
            // Which costs as much again: at some places.
            if at % 12 > 0 && cut != bytes.len() - 1 {
                continue;
            }
            let told = (is_cut_off(Cursor::new(&bytes[..cut])), seems_cut_off(Cursor::new(&bytes[..cut])));
            // A Targa has no beginning that tells it from other files.
            let is_targa = matches!(expected.format, FileFormat::Targa | FileFormat::TargaRaw);
            assert!(told.0.unwrap() || is_targa && cut < 18, "{} is cut at {cut}", path.display());
            if cut > 32 && matches!(expected.format, FileFormat::Png | FileFormat::OpenExr | FileFormat::Jpeg)
            {
                assert!(told.1.unwrap(), "{} is cut at {cut}", path.display());
            }
        }
        let told = (is_cut_off(Cursor::new(&bytes)).unwrap(), seems_cut_off(Cursor::new(&bytes)).unwrap());
        assert_eq!(told, (false, false), "{}", path.display());
    }
    for other in [&b"to be painted again"[..], &[0; 100], b"%PDF-1.7", b"8BPS"] {
        assert!(!is_cut_off(Cursor::new(other)).unwrap() && !seems_cut_off(Cursor::new(other)).unwrap());
    }
}

#[test]
fn flipped_bytes_never_panic_and_checksums_tell() {
    std::panic::set_hook(Box::new(|info| {
        // A decoder's own panic is caught and counts as damage; one of these tests must be seen.
        if !info.location().is_some_and(|place| place.file().contains("registry")) {
            eprintln!("{info}");
        }
    }));
    for (path, expected, _) in lit() {
        let bytes = fs::read(path).unwrap();
        let mut state = 0x9e37_79b9_u64;
        for _ in 0..60 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let mut broken = bytes.clone();
            let place = (state >> 33) as usize % bytes.len();
            broken[place] ^= 1 << (state >> 20 & 7);
            let result = verify(Cursor::new(&broken), expected);
            if expected.format == FileFormat::Png {
                assert!(result.is_err(), "{} passes with byte {place} flipped", path.display());
            }
        }
    }
}

#[test]
fn what_is_no_picture_is_refused() {
    let expected = Expectation::new(FileFormat::Png, 4, 4);
    assert!(matches!(verify(Cursor::new(b""), &expected), Err(ImageFault::Empty)));
    for junk in [
        &b"x"[..],
        b"hello, this is no picture at all",
        &[0; 4096],
        b"\x89PNG\r\n\x1a\n",
        b"BM",
        b"\xff\xd8\xff",
    ] {
        assert!(verify(Cursor::new(junk), &expected).is_err());
    }
    let folder = &SHOTS[0].folder;
    assert!(matches!(verify_path(folder, &expected), Err(ImageFault::Unreadable(_))));
    assert!(matches!(verify_path(&folder.join("no-such"), &expected), Err(ImageFault::Unreadable(_))));
}

#[test]
fn bombs_are_refused_before_memory_is_taken() {
    let started = Instant::now();
    let huge = Expectation::new(FileFormat::Png, 65_535, 65_535);
    let patch = |name: &str, at: usize, with: &[u8]| {
        let mut bytes = fs::read(&shot(name).0).unwrap();
        bytes[at..at + with.len()].copy_from_slice(with);
        bytes
    };
    // Each claims far more pixels than were asked for.
    let small = Expectation::new(FileFormat::Bmp, 67, 41);
    let bomb = patch("bmp-RGB.bmp", 18, &[0xff, 0xff, 0xff, 0x7f]);
    assert!(matches!(verify(Cursor::new(&bomb), &small), Err(ImageFault::WrongSize { .. })));
    let small = Expectation::new(FileFormat::Targa, 67, 41);
    let bomb = patch("tga-RGB.tga", 12, &[0xff; 4]);
    assert!(matches!(verify(Cursor::new(&bomb), &small), Err(ImageFault::WrongSize { .. })));
    // Even where that many were asked for, the file is too short for them, or the memory too small.
    for (name, at, with) in [
        ("bmp-RGB.bmp", 18, &[0xff, 0xff, 0, 0, 0xff, 0xff, 0, 0][..]),
        ("tga-RGB.tga", 12, &[0xff; 4]),
        ("tgaraw-RGB.tga", 12, &[0xff; 4]),
    ] {
        let expected = Expectation { format: shot(name).1.format, ..huge };
        let fault = verify(Cursor::new(&patch(name, at, with)), &expected).unwrap_err();
        assert!(matches!(fault, ImageFault::Truncated(_) | ImageFault::TooLarge(_)), "{name}: {fault}");
    }
    for name in ["exr-ZIP-32.exr", "exr-PIZ-16.exr", "exr-DWAB-32.exr", "ml-DWAB-32.exr"] {
        let mut bytes = fs::read(&shot(name).0).unwrap();
        for window in [&b"dataWindow\0box2i\0"[..], b"displayWindow\0box2i\0"] {
            let at = bytes.windows(window.len()).position(|w| w == window).unwrap() + window.len() + 4;
            bytes[at + 8..at + 16].copy_from_slice(&[0xfe, 0xff, 0, 0, 0xfe, 0xff, 0, 0]);
        }
        let expected = Expectation { format: shot(name).1.format, ..huge };
        let fault = verify(Cursor::new(&bytes), &expected).unwrap_err();
        assert!(matches!(fault, ImageFault::Truncated(_) | ImageFault::TooLarge(_)), "{name}: {fault}");
        assert!(decode(Cursor::new(&bytes)).is_err());
    }
    let (path, expected, _) = shot("ml-DWAB-32.exr");
    let mut tight = *expected;
    tight.limits.memory = 1 << 10;
    assert!(matches!(verify_path(path, &tight), Err(ImageFault::TooLarge(_))));
    assert!(started.elapsed() < Duration::from_secs(20), "took {:?}", started.elapsed());
}
