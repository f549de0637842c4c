//! The identity of frames changes with what they show, and with nothing else.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use kiln_client::{Prepared, Request, Transfer};
use kiln_testkit::{copy_folder, scene, temp_dir};
use kiln_types::{BlobHash, ScriptPolicy};

/// A copy of a scene of the tests, with the files it refers to, in a folder of this name.
fn copy(name: &str, to: PathBuf) -> PathBuf {
    let blend = scene(name);
    copy_folder(blend.parent().unwrap(), &to);
    to.join(blend.file_name().unwrap())
}

fn content(blend: &Path) -> BlobHash {
    asked(blend, &Request::default())
}

fn asked(blend: &Path, request: &Request) -> BlobHash {
    Prepared::new(blend, request).unwrap().save.content
}

#[test]
fn where_a_project_lies_and_what_it_is_called_counts_only_where_pixels_show_it() {
    let temp = temp_dir();
    let [here, there] =
        ["here", "deep/down/there"].map(|folder| copy("image_sequence", temp.path().join(folder)));
    let first = content(&here);
    assert_eq!(content(&there), first);
    let renamed = there.with_file_name("renamed.blend");
    std::fs::rename(&there, &renamed).unwrap();
    assert_eq!(content(&renamed), first);
    let whole = Request { transfer: Transfer::Whole, ..Request::default() };
    assert_eq!(asked(&here, &whole), first, "however it travels");
    let frames = Request { frames: Some("3-4".parse().unwrap()), ..Request::default() };
    assert_eq!(asked(&here, &frames), first);
    let mut trusted = Request::default();
    trusted.policy.scripts = ScriptPolicy::Trust;
    assert_ne!(asked(&here, &trusted), asked(&renamed, &trusted), "a script may draw its own path");

    let [here, there] = ["stamp", "moved stamp"].map(|folder| copy("stamped", temp.path().join(folder)));
    assert_ne!(content(&here), content(&there), "the path is burnt into the picture");
}

#[test]
fn any_byte_that_a_frame_may_show_counts() {
    let temp = temp_dir();
    let blend = copy("image_sequence", temp.path().join("project"));
    let tile = blend.with_file_name("seq").join("tile_002.png");
    let bytes = std::fs::read(&tile).unwrap();
    let mut seen = vec![content(&blend)];
    let mut is_new = |what: &str| {
        let now = content(&blend);
        assert!(!seen.contains(&now), "{what}");
        seen.push(now);
    };
    std::fs::write(&tile, [&bytes[..], b"more"].concat()).unwrap();
    is_new("a texture is another");
    // What two pictures hold is exchanged: the bytes are the same, the frames are not.
    let other = tile.with_file_name("tile_003.png");
    std::fs::copy(&other, &tile).unwrap();
    std::fs::write(&other, &bytes).unwrap();
    is_new("the second picture is the third, and the other way round");
    std::fs::remove_file(tile.with_file_name("tile_008.png")).unwrap();
    let mut request = Request { frames: Some("1-2".parse().unwrap()), ..Request::default() };
    let without = asked(&blend, &request);
    assert!(!seen.contains(&without));
    request.policy.external_files = kiln_types::ExternalFiles::MayBeMissing;
    assert_eq!(asked(&blend, &request), without, "that is a choice, which is kept apart");
    let saved = [&std::fs::read(&blend).unwrap()[..], b"saved"].concat();
    std::fs::write(&blend, saved).unwrap();
    assert_ne!(asked(&blend, &request), without);
}
