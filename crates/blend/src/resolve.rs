//! Finds the file on disk that a path in a .blend means.

use std::{
    ffi::OsString,
    path::{Component, Path, PathBuf},
};

use crate::meaning::slashed;

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

/// The name is relative to the .blend that holds it. On systems where `/` divides, Blender also reads `\\server` so.
pub(crate) fn is_relative(raw: &[u8]) -> bool {
    raw.starts_with(b"//") || (raw.starts_with(b"\\\\") && cfg!(not(windows)))
}

/// `C:\` or `C:/`, or `\\server`.
pub(crate) fn is_windows(raw: &[u8]) -> bool {
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

/// Resolves the name for a .blend in `folder`, as Blender on this system does.
pub(crate) fn resolve(raw: &[u8], folder: &Path) -> PathBuf {
    let name = slashed(raw);
    if is_windows(raw) && cfg!(windows) {
        return tidy(Path::new(&os_name(raw)));
    }
    if let [letter, b':', b'/', rest @ ..] = &name[..]
        && letter.is_ascii_alphabetic()
    {
        // Blender looks for drive C below /c.
        let letter = char::from(letter.to_ascii_lowercase());
        return tidy(&Path::new(&format!("/{letter}")).join(os_name(rest)));
    }
    // After the two slashes of a relative name more may follow.
    let slashes = if is_relative(raw) { name.iter().take_while(|byte| **byte == b'/').count() } else { 0 };
    tidy(&folder.join(os_name(&name[slashes..])))
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
        check("///wood.png", "/shots/one/wood.png");
        check("//../tex/./wood.png", "/shots/tex/wood.png");
        check("//..\\tex\\wood.png", "/shots/tex/wood.png");
        check("/abs/wood.png", "/abs/wood.png");
        check("/abs/../up.png", "/up.png");
        check("/abs\\wood.png", "/abs/wood.png");
        check("//../../../../../up.png", "/up.png");
        check("bare.png", "/shots/one/bare.png");
    }

    #[cfg(not(windows))]
    #[test]
    fn names_of_windows_as_blender_reads_them_elsewhere() {
        check("C:\\tex\\wood.png", "/c/tex/wood.png");
        check("d:/tex/../wood.png", "/d/wood.png");
        check("\\\\server\\share\\wood.png", "/shots/one/server/share/wood.png");
    }
}
