//! The GPUs that a process uses.

use std::process::{Command, Stdio};

use kiln_testkit::{blender, bpy_python};

#[test]
fn a_slot_enables_the_gpus_that_are_its_own_and_no_others() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/host/devices.py");
    let package = concat!(env!("CARGO_MANIFEST_DIR"), "/../../blender");
    let mut commands = vec![(blender(), vec!["--background", "--factory-startup", "--python", script])];
    commands.extend(bpy_python().map(|python| (python, vec!["-I", script])));
    for (program, args) in commands {
        let mut command = Command::new(program);
        command.args(args).args(["--", package]);
        check(command);
    }
}

fn check(mut command: Command) {
    // The package is read where it lies; nothing is left there.
    let output = command.env("PYTHONDONTWRITEBYTECODE", "1").stdin(Stdio::null()).output().unwrap();
    let said =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success() && said.contains("as it should be"), "{said}");
}
