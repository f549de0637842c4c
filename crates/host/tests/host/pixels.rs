//! Warm pixels are cold pixels, in an order that jumps.

use kiln_host::HostOptions;
use kiln_testkit::{assert_same_picture, blenders, scene, temp_dir};

use crate::{Slot, install, trusted, trusting};

const ORDER: [i32; 5] = [3, 8, 5, 6, 2];

async fn warm_is_cold(names: &[&str], trust: bool) {
    for blender in blenders() {
        let options = if trust { trusting() } else { HostOptions::default() };
        let mut slot = Slot::start(install(&blender), options).await;
        for name in names {
            let change = |spec: &mut _| {
                if trust {
                    trusted(spec);
                }
            };
            slot.open_with(name, change).await.unwrap();
            let mut warm = Vec::new();
            for frame in ORDER {
                warm.push((frame, slot.render(frame).await.unwrap()));
            }
            // Two cold frames tell whether the order mattered: the one after the long jump back, and the last.
            for (frame, (out, rendered)) in warm.iter().filter(|(frame, _)| [5, 2].contains(frame)) {
                let cold = temp_dir();
                let prefix = cold.path().join("c_####");
                blender.render_cold(&scene(name), *frame, Some(&prefix), trust);
                for file in &rendered.planned {
                    let warm = out.join(file.scratch.to_path());
                    let suffix = file.scratch.as_str().rsplit_once(&format!("{frame:04}")).unwrap().1;
                    assert_same_picture(&warm, &cold.path().join(format!("c_{frame:04}{suffix}")));
                }
            }
        }
    }
}

#[tokio::test]
async fn particles_sequences_drivers() {
    warm_is_cold(&["particles", "image_sequence", "drivers"], false).await;
}

#[tokio::test]
async fn motion_blur_and_stereo() {
    warm_is_cold(&["motion_blur", "stereo"], false).await;
}

#[tokio::test]
async fn trusted_scripts() {
    warm_is_cold(&["script", "python_driver"], true).await;
}

#[tokio::test]
async fn a_second_file_is_clean_of_the_first() {
    for blender in blenders() {
        let mut slot = Slot::start(install(&blender), trusting()).await;
        slot.open_with("script", trusted).await.unwrap();
        slot.render(7).await.unwrap();
        slot.open_with("basic", trusted).await.unwrap();
        let (out, rendered) = slot.render(4).await.unwrap();
        let cold = temp_dir();
        blender.render_cold(&scene("basic"), 4, Some(&cold.path().join("c_####")), true);
        assert_same_picture(
            &out.join(rendered.planned[0].scratch.to_path()),
            &cold.path().join("c_0004.png"),
        );
    }
}
