//! From the name in a .blend to a place on disk.

use std::{
    ffi::OsString,
    path::{Component, Path, PathBuf},
};

/// A name as its file spells it, byte for byte where the system's names are bytes.
pub(crate) fn os_name(raw: &[u8]) -> OsString {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStringExt;
        OsString::from_vec(raw.to_vec())
    }
    #[cfg(not(unix))]
    {
        OsString::from(String::from_utf8_lossy(raw).into_owned())
    }
}

/// Whether the name is relative to the .blend that holds it.
pub(crate) fn is_relative(raw: &[u8]) -> bool {
    raw.starts_with(b"//")
}

/// `C:\` or `C:/`, or `\\server`.
fn is_windows(raw: &[u8]) -> bool {
    let drive = matches!(raw, [letter, b':', b'\\' | b'/', ..] if letter.is_ascii_alphabetic());
    drive || raw.starts_with(b"\\\\")
}

/// Removes `.` and `..` without looking at the disk, as Blender does.
pub(crate) fn tidy(path: &Path) -> PathBuf {
    let mut tidied = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                // Above the root is the root.
                tidied.pop();
            }
            part => tidied.push(part),
        }
    }
    tidied
}

/// Where the name points, for a .blend in `folder`. Backslashes divide where the name could be from Windows and
/// nothing lies at it as it stands.
pub(crate) fn resolve(raw: &[u8], folder: &Path) -> PathBuf {
    let place = |raw: &[u8]| {
        let (raw, base) = if is_relative(raw) { (&raw[2..], folder) } else { (raw, Path::new("")) };
        let path = base.join(os_name(raw));
        if path.is_absolute() || is_windows(raw) { tidy(&path) } else { tidy(&folder.join(path)) }
    };
    let literal = place(raw);
    if !raw.contains(&b'\\') || literal.exists() || (is_windows(raw) && cfg!(not(windows))) {
        return literal;
    }
    let slashes: Vec<u8> = raw.iter().map(|byte| if *byte == b'\\' { b'/' } else { *byte }).collect();
    place(&slashes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(raw: &str, expected: &str) {
        assert_eq!(resolve(raw.as_bytes(), Path::new("/shots/one")), Path::new(expected));
    }

    #[test]
    fn names_as_blender_writes_them() {
        check("//wood.png", "/shots/one/wood.png");
        check("//../tex/./wood.png", "/shots/tex/wood.png");
        check("//..\\tex\\wood.png", "/shots/tex/wood.png");
        check("/abs/wood.png", "/abs/wood.png");
        check("/abs/../up.png", "/up.png");
        check("//../../../../../up.png", "/up.png");
        check("bare.png", "/shots/one/bare.png");
    }

    #[cfg(not(windows))]
    #[test]
    fn windows_drives_stay_what_they_are() {
        check("C:\\tex\\wood.png", "C:\\tex\\wood.png");
        check("\\\\server\\share\\wood.png", "\\\\server\\share\\wood.png");
    }
}
