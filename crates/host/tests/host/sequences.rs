//! A gap in a sequence of any kind, told before the frame that shows it.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use kiln_host::{HostOptions, OpenRequest, OpenedFile};
use kiln_testkit::{Blender, all_blenders, temp_dir};
use kiln_types::{ExternalFiles, Failure, FailureCause};

use crate::{Slot, install, session};

fn build(blender: &Blender, folder: &Path) {
    let mut command = Command::new(blender.program());
    if matches!(blender, Blender::Executable(_)) {
        command.args(["--background", "--factory-startup", "--python"]);
    }
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/host/sequences.py")).arg("--").arg(folder);
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{command:?}: {}", said.concat());
}

async fn open(slot: &mut Slot, blend: &Path, files: ExternalFiles) -> Result<OpenedFile, Failure> {
    let mut session = session(&slot.install, blend);
    session.policy.external_files = files;
    let blend = blend.to_owned();
    let request = OpenRequest::new(blend, session);
    slot.host.open(&request).await
}

#[tokio::test]
async fn a_gap_in_a_sequence_of_any_kind_is_named_before_its_frame() {
    for blender in all_blenders() {
        let folder = temp_dir();
        build(&blender, folder.path());
        let mut slot = Slot::start(install(&blender), HostOptions::default()).await;
        let mut kinds = BTreeSet::new();
        for entry in fs::read_dir(folder.path()).unwrap() {
            let blend = entry.unwrap().path();
            let kind = blend.file_stem().unwrap().to_str().unwrap().to_owned();
            if blend.extension().is_some_and(|extension| extension == "blend") {
                check(&mut slot, &blend, &kind, &format!("{kind} of {blender:?}")).await;
                kinds.insert(kind);
            }
        }
        let least = if matches!(blender, Blender::Executable(_)) { 13 } else { 14 };
        assert_eq!(kinds.len(), least, "{blender:?}: {kinds:?}");
    }
}

async fn check(slot: &mut Slot, blend: &Path, kind: &str, name: &str) {
    let opened = open(slot, blend, ExternalFiles::Required)
        .await
        .unwrap_or_else(|failure| panic!("{name}: {failure}"));
    let is_misread = opened.notices.iter().any(|notice| notice.contains("stored as a movie"));
    assert_eq!(is_misread, kind == "stored", "{name}: {:?}", opened.notices);
    if kind == "stored" {
        return;
    }
    let lacks = match kind {
        "material" => "in_0003_side.png",
        "volume" => "s_0003.vdb",
        "cache" => "s_0003.abc",
        _ => "s_0003.png",
    };
    let (good, bad) = match kind {
        // Their settings move to picture 3 on frame 2.
        "keyed" | "driven" => (4, 2),
        _ => (2, 3),
    };
    match kind {
        "unknown" | "outside" => {
            let (_, rendered) = slot.render(1).await.unwrap_or_else(|failure| panic!("{name}: {failure}"));
            let lacks = if kind == "unknown" { lacks } else { "o_0000.png" };
            assert!(
                rendered.notices.iter().any(|notice| notice.contains(lacks)),
                "{name}: {:?}",
                rendered.notices
            );
            return;
        }
        _ => {}
    }
    let (_, rendered) = slot.render(good).await.unwrap_or_else(|failure| panic!("{name}: {failure}"));
    assert!(rendered.notices.is_empty(), "{name}: {:?}", rendered.notices);
    let failure = slot.render(bad).await.expect_err(name);
    assert_eq!(failure.cause, FailureCause::MissingFiles, "{name}: {failure}");
    assert!(failure.message.contains(lacks), "{name}: {failure}");
    if kind == "strip" && slot.install.version.series().to_string() == "4.5" {
        // It asks for terabytes of memory, and fails.
        return;
    }
    open(slot, blend, ExternalFiles::MayBeMissing).await.unwrap();
    let (_, rendered) = slot.render(bad).await.unwrap_or_else(|failure| panic!("{name}: {failure}"));
    assert!(rendered.notices.iter().any(|notice| notice.contains(lacks)), "{name}: {:?}", rendered.notices);
}
