//! The meaning of a name in a .blend, the same in whichever file it is written: the keys of a bundle's remap.
//!
//! `blender/kiln_host/remap.py` reads them: `/` between parts, no `.` and as few `..` as can be, relative names
//! (`//`) from the main .blend's folder in all libraries, and a byte that is no Unicode as NUL and
//! two hexadecimal digits (no name holds a NUL, so every name has a key of its own).

/// Blender, on systems where `/` divides, takes a backslash for one too: a file with a backslash in its own name it
/// cannot open at all.
pub(crate) fn slashed(raw: &[u8]) -> Vec<u8> {
    raw.iter().map(|byte| if *byte == b'\\' { b'/' } else { *byte }).collect()
}

/// Removes `.`, empty parts and, where something is before it, `..`.
fn tidied(path: &[u8], rooted: bool) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if parts.last().is_some_and(|last| *last != b"..") => {
                parts.pop();
            }
            b".." if rooted => {}
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}

/// The key for a name in a file at `holder`, which is the folder of that file as seen from the main
/// .blend's folder: nothing, `lib` or `../lib`.
pub(crate) fn key(raw: &[u8], holder: &str) -> String {
    let name = slashed(raw);
    let drive = name.first().is_some_and(u8::is_ascii_alphabetic) && name.get(1..3) == Some(b":/");
    let meant = if drive {
        tidied(&name, false)
    } else if name.starts_with(b"/") && !name.starts_with(b"//") {
        [b"/", &tidied(&name, true)[..]].concat()
    } else {
        let below = name.strip_prefix(b"//").unwrap_or(&name);
        [b"//", &tidied(&[holder.as_bytes(), b"/", below].concat(), false)[..]].concat()
    };
    kiln_types::paths::spelled(&meant)
}

/// The way from one folder of a bundle to another: `../lib`. Both are parts with `/` between them.
pub(crate) fn way(from: &str, to: &str) -> String {
    let parts = |folder: &str| -> Vec<String> {
        folder.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect()
    };
    let (from, to) = (parts(from), parts(to));
    let same = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let up = std::iter::repeat_n("..", from.len() - same);
    up.chain(to[same..].iter().map(String::as_str)).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(raw: &[u8], holder: &str, expected: &str) {
        assert_eq!(key(raw, holder), expected);
        assert_eq!(key(raw, holder), key(&slashed(raw), holder));
    }

    #[test]
    fn one_meaning_has_one_key() {
        check(b"//tex/wood.png", "", "//tex/wood.png");
        check(b"//.\\tex\\\\wood.png", "", "//tex/wood.png");
        check(b"//../tex/wood.png", "lib", "//tex/wood.png");
        check(b"//tex/wood.png", "../lib", "//../lib/tex/wood.png");
        check(b"//../../../x.png", "../lib", "//../../../x.png");
        check(b"/srv/../x.png", "lib", "/x.png");
        check(b"/../../x.png", "", "/x.png");
        check(b"C:\\tex\\.\\oak.png", "lib", "C:/tex/oak.png");
        check(b"\\\\server\\share\\oak.png", "", "//server/share/oak.png");
        check(b"bare.png", "lib", "//lib/bare.png");
        check(b"//caf\xe9.png", "", "//caf\0e9.png");
        check("//caf\u{e9}.png".as_bytes(), "", "//caf\u{e9}.png");
    }

    #[test]
    fn ways_between_folders() {
        for (from, to, expected) in
            [("", "", ""), ("shots", "shots", ""), ("shots", "lib/a", "../lib/a"), ("a/b", "", "../..")]
        {
            assert_eq!(way(from, to), expected);
        }
    }
}
