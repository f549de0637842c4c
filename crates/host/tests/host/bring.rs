//! The parts of a job that change Blender itself: colours, and add-ons.

use std::path::PathBuf;

use kiln_host::{BlenderInstall, Host, HostOptions, OpenRequest, OpenedFile, SlotRoot};
use kiln_testkit::{Picture, all_blenders, blenders, brought, picture, scene, temp_dir};
use kiln_types::{Failure, FailureCause};

use crate::{Slot, install, session, trusted, trusting};

async fn open(slot: &mut Slot, trust: bool, addons: Vec<PathBuf>) -> Result<OpenedFile, Failure> {
    let blend = scene("basic");
    let mut session = session(&slot.install, &blend);
    if trust {
        trusted(&mut session);
    }
    slot.host.open(&OpenRequest { addons, ..OpenRequest::new(blend, session) }).await
}

async fn frame(install: &BlenderInstall, options: HostOptions, addons: Vec<PathBuf>) -> Picture {
    let trust = options.trust;
    let mut slot = Slot::start(install.clone(), options).await;
    open(&mut slot, trust, addons).await.unwrap();
    let (out, rendered) = slot.render(1).await.unwrap();
    picture(&out.join(rendered.planned[0].scratch.to_path()))
}

fn colored(config: PathBuf) -> HostOptions {
    HostOptions { ocio: Some(config), ..HostOptions::default() }
}

#[tokio::test]
async fn the_artists_colours_are_those_of_the_picture() {
    for blender in all_blenders() {
        let install = install(&blender);
        let plain = frame(&install, HostOptions::default(), Vec::new()).await;
        let dark = frame(&install, colored(brought("dark.ocio")), Vec::new()).await;
        let sum = |picture: &Picture| picture.values.iter().map(|value| u64::from(*value)).sum::<u64>();
        assert!(sum(&dark) < sum(&plain) * 3 / 4, "{blender:?}: {} and {}", sum(&dark), sum(&plain));
    }
}

#[tokio::test]
async fn colours_that_blender_cannot_read_are_named_and_not_replaced_by_its_own() {
    for blender in blenders() {
        let folder = temp_dir();
        let config = folder.path().join("studio.ocio");
        std::fs::write(&config, "ocio_profile_version: [2\n").unwrap();
        let root = SlotRoot::create(folder.path().join("slot")).unwrap();
        let failure: Failure = match Host::start(&install(&blender), &root, colored(config)).await {
            // Before 4.0 Blender does not come up at all.
            Err(error) => error.into(),
            Ok(host) => {
                let mut slot = Slot { host, root, install: install(&blender), _folder: temp_dir() };
                open(&mut slot, false, Vec::new()).await.unwrap_err()
            }
        };
        assert_eq!(failure.cause, FailureCause::BadSetting, "{blender:?}: {failure}");
        assert!(failure.message.contains("studio.ocio"), "{failure}");
    }
}

#[tokio::test]
async fn an_add_on_is_at_work_before_the_file_is_opened() {
    for blender in all_blenders() {
        let install = install(&blender);
        let plain = frame(&install, trusting(), Vec::new()).await;
        let painted = frame(&install, trusting(), vec![brought("crimson.py")]).await;
        assert!(plain != painted, "{blender:?}");
        if install.version.series() >= "4.2".parse().unwrap() {
            let extended = frame(&install, trusting(), vec![brought("crimson_extension")]).await;
            assert!(extended == painted, "{blender:?}");
        } else {
            let mut slot = Slot::start(install, trusting()).await;
            let failure = open(&mut slot, true, vec![brought("crimson_extension")]).await.unwrap_err();
            assert_eq!(failure.cause, FailureCause::BadSetting, "{failure}");
            assert!(failure.message.contains("4.2"), "{failure}");
        }
    }
}

#[tokio::test]
async fn an_add_on_that_fails_says_where_and_none_runs_without_trust() {
    for blender in blenders() {
        let folder = temp_dir();
        let broken = folder.path().join("broken.py");
        std::fs::write(
            &broken,
            "bl_info = {'name': 'Broken', 'blender': (2, 80, 0)}\n\
             def register():\n    raise ValueError('no licence')\ndef unregister(): pass\n",
        )
        .unwrap();
        let text = folder.path().join("readme.txt");
        std::fs::write(&text, "hello").unwrap();
        let mut slot = Slot::start(install(&blender), trusting()).await;
        let failure = open(&mut slot, true, vec![broken]).await.unwrap_err();
        assert_eq!(failure.cause, FailureCause::PythonError, "{failure}");
        for word in ["broken.py", "no licence", "line 3"] {
            assert!(failure.message.contains(word), "“{word}” is not in: {failure}");
        }
        let failure = open(&mut slot, true, vec![text]).await.unwrap_err();
        assert_eq!(failure.cause, FailureCause::BadSetting, "{failure}");
        let mut careful = Slot::start(install(&blender), HostOptions::default()).await;
        let failure = open(&mut careful, false, vec![brought("crimson.py")]).await.unwrap_err();
        assert_eq!(failure.cause, FailureCause::BadSetting, "{failure}");
        assert!(failure.message.contains("--trust"), "{failure}");
    }
}
