//! A scene does not notice that one frame of it is rendered: its frame range stays what it is.

use std::{
    fs,
    sync::{Arc, Mutex},
};

use kiln_host::{HostOptions, RenderRequest};
use kiln_testkit::{all_blenders, assert_same_picture, scene, temp_dir};

use crate::{Slot, install, trusted, trusting};

/// The lines that the handlers of “frame_range” print when `blender -b FILE -f N` renders it, as 3.4 and 4.3 do.
fn events(frame: i32) -> Vec<String> {
    let at = |kind: &str, frame: i32| format!("saw {kind} at {frame}: 1 to 120, 50");
    let mut events = vec![at("render_init", 1)];
    for kind in ["render_pre", "frame_change_pre", "frame_change_post", "render_post", "render_write"] {
        events.push(at(kind, frame));
    }
    // The frame that was current before is current again.
    events.push(if frame == 5 {
        "saw render_complete at 1: 2 to 300, 50".to_owned()
    } else {
        at("render_complete", 1)
    });
    events
}

/// Frame 5 ends with a script that changes the range: that must not reach the next frame. Negative frames take another
/// path before 5.0.
#[tokio::test]
async fn stamps_drivers_modifiers_and_handlers_see_the_scenes_own_range() {
    let log = Arc::new(Mutex::new(String::new()));
    let printed = log.clone();
    let options = HostOptions {
        log: Some(Arc::new(move |chunk| printed.lock().unwrap().push_str(&chunk))),
        ..trusting()
    };
    let cold = temp_dir();
    for blender in all_blenders() {
        println!("{blender:?}");
        let mut slot = Slot::start(install(&blender), options.clone()).await;
        slot.open_with("frame_range", trusted).await.unwrap();
        // A frame that fails leaves the range alone, too.
        let out = slot.root.fresh_out("taken").unwrap();
        fs::create_dir_all(out.join("main/shot_0004.png")).unwrap();
        slot.host.render(RenderRequest { frame: 4, out, time_limit: None }).await.unwrap_err();
        for frame in [5, 12, -3] {
            log.lock().unwrap().clear();
            let (out, rendered) = slot.render(frame).await.unwrap();
            let log = std::mem::take(&mut *log.lock().unwrap());
            let saw: Vec<_> = log.lines().filter(|line| line.starts_with("saw ")).collect();
            assert_eq!(saw, events(frame), "{blender:?}");
            if frame != 5 {
                blender.render_cold(&scene("frame_range"), frame, Some(&cold.path().join("c_####")), true);
                let cold = cold.path().join(if frame < 0 { "c_-0003.png" } else { "c_0012.png" });
                assert_same_picture(&out.join(rendered.planned[0].scratch.to_path()), &cold);
            }
        }
    }
}
