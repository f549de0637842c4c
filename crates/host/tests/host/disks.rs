//! The worker's disk is full.

use kiln_host::{Host, HostOptions, SlotRoot};
use kiln_testkit::{SmallDisk, blenders, temp_dir};
use kiln_types::{ColorDepth, FailureCause, FileFormat, Resolution, SessionSpec};

use crate::{Slot, install};

#[tokio::test]
async fn a_frame_for_which_the_disk_has_no_room() {
    for blender in blenders() {
        let folder = temp_dir();
        let at = folder.path().join("slot");
        std::fs::create_dir(&at).unwrap();
        let Some(disk) = SmallDisk::mount(&at, 8) else { return };
        let root = SlotRoot::create(&at).unwrap();
        let install = install(&blender);
        let host = Host::start(&install, &root, HostOptions::default()).await.unwrap();
        let mut slot = Slot { host, root, install, _folder: folder };
        for (format, depth) in [
            (FileFormat::Png, ColorDepth::Sixteen),
            (FileFormat::OpenExr, ColorDepth::ThirtyTwo),
            (FileFormat::Jpeg, ColorDepth::Eight),
            (FileFormat::Tiff, ColorDepth::Sixteen),
        ] {
            let change = |spec: &mut SessionSpec| {
                spec.settings.resolution = Some(Resolution::Pixels { width: 400, height: 300 });
                spec.settings.samples = Some(1);
                spec.settings.format = Some(format);
                spec.settings.depth = Some(depth);
            };
            slot.open_with("basic", change).await.unwrap();
            // Not even its folder; its folder and the head of the file; all of it.
            for free in [0, 8 << 10] {
                slot.root.fresh_out("frame1").unwrap();
                disk.fill_but(free);
                let failed = slot.render(1).await.map(drop);
                let why = failed.map_err(|failure| (failure.cause, failure.message));
                assert!(
                    matches!(&why, Err((FailureCause::DiskFull, message)) if message.contains("disk")),
                    "{format} with {free} bytes left: {why:?}"
                );
                disk.make_room();
            }
            slot.render(1).await.unwrap();
        }
        slot.host.kill().await;
    }
}
