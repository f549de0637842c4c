//! Shared helpers of the tests: free ports, waiting with a limit, real Blenders, scenes, pictures.
//!
//! Everything here panics with a sentence where it fails: it is for tests only.

#![allow(clippy::unwrap_used)]

mod blender;
mod build;
mod disk;
mod killed;
mod layers;
mod picture;
mod words;

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

pub use blender::{
    Blender, all_blenders, blender, blender_4_3, blender_series, blenders, bpy_python, fluid_blenders,
    is_blender_3_4, scene, scenes_folder, wheel, wheels,
};
pub use build::{build_once, built};
pub use disk::SmallDisk;
pub use killed::kill_midway;
pub use layers::upward_imports;
pub use picture::{Picture, assert_same_picture, picture};
pub use words::{Violation, word_violations};

/// Reports that the test cannot run on this machine. `scripts/test` counts it as skipped, not as passed.
pub fn skip(reason: &str) {
    println!("skipped: {reason}");
}

/// Reports that a part of the test cannot run on this machine. `scripts/test` lists it.
pub fn skip_in_part(reason: &str) {
    println!("skipped in part: {reason}");
}

/// A folder that is removed with the value.
///
/// # Panics
/// Where the disk refuses.
pub fn temp_dir() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("kiln-test-").tempdir().expect("a temporary folder can be made")
}

/// Copies a folder with everything in it, over what is there.
///
/// # Panics
/// Where the disk refuses.
pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// The artist's own files: `dark.ocio`, a colour configuration that shows; `crimson.py` and `crimson_extension`, add-ons
/// that paint every lamp red.
pub fn brought(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("brought").join(name)
}

/// A port of the loopback that nobody listens on just now. Where a server can take port 0 and tell, use that.
///
/// # Panics
/// Where no port is free.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port of the loopback is free");
    listener.local_addr().expect("a bound socket has an address").port()
}

/// Looks until `condition` holds.
///
/// # Panics
/// Where it does not within `limit`.
#[track_caller]
pub fn wait_until(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < limit, "{what}: not within {limit:?}");
        sleep(Duration::from_millis(5));
    }
}
