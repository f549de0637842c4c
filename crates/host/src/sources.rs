//! The Python that runs inside Blender, carried in this program.

use std::{
    io,
    path::{Path, PathBuf},
};

macro_rules! sources {
    ($($name:literal),+ $(,)?) => {
        &[$(($name, include_str!(concat!("../../../blender/kiln_host/", $name)))),+]
    };
}

const SOURCES: &[(&str, &str)] = sources![
    "__init__.py",
    "addons.py",
    "animated.py",
    "artist.py",
    "bake.py",
    "boot.py",
    "bytecode.py",
    "caches.py",
    "channel.py",
    "checks.py",
    "colors.py",
    "devices.py",
    "errors.py",
    "frame.py",
    "handlers.py",
    "main.py",
    "one_frame.py",
    "outputs.py",
    "particles.py",
    "persistent.py",
    "places.py",
    "probe.py",
    "properties.py",
    "remap.py",
    "sequences.py",
    "session.py",
    "settings.py",
    "simulations.py",
    "sockets.py",
    "templates.py",
];

/// Writes the sources into a private folder below `folder`; returns the script to start.
pub(crate) fn write(folder: &Path) -> io::Result<(tempfile::TempDir, PathBuf)> {
    let home = tempfile::Builder::new().prefix("kiln-host-").tempdir_in(folder)?;
    let package = home.path().join("kiln_host");
    std::fs::create_dir(&package)?;
    for (name, text) in SOURCES {
        std::fs::write(package.join(name), text)?;
    }
    let boot = package.join("boot.py");
    Ok((home, boot))
}
