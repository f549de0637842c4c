//! Finding Blenders.

use std::os::unix::fs::PermissionsExt;

use kiln_host::{InstallError, discover, inspect, install_blender};
use kiln_testkit::{blender, bpy_python, skip, temp_dir};
use kiln_types::BlenderFlavor;

#[test]
fn finds_and_remembers() {
    let (data, cache) = (temp_dir(), temp_dir());
    let extra: Vec<_> = bpy_python().into_iter().chain([blender()]).collect();
    let found = discover(&extra, data.path(), cache.path());
    let executable = found.iter().find(|install| install.program == blender()).unwrap();
    assert_eq!(executable.flavor, BlenderFlavor::Executable);
    if let Some(python) = bpy_python() {
        let module = found.iter().find(|install| install.program == python).unwrap();
        assert_eq!((module.flavor, module.version.major), (BlenderFlavor::Module, 5));
    }
    assert!(found.windows(2).all(|pair| pair[0].version >= pair[1].version));
    assert_eq!(discover(&extra, data.path(), cache.path()), found);
}

#[test]
fn a_program_is_asked_once_while_it_stays_the_same() {
    let (folder, cache) = (temp_dir(), temp_dir());
    let program = folder.path().join("blender");
    let asked = folder.path().join("asked");
    let write = |version: &str| {
        let text = format!("#!/bin/sh\necho x >> {}\necho Blender {version}\n", asked.display());
        std::fs::write(&program, text).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    let look = || {
        let found = discover(&[folder.path().to_path_buf()], folder.path(), cache.path());
        found.into_iter().find(|install| install.program == program).unwrap().version.to_string()
    };
    write("9.8.7");
    assert_eq!((look(), look()), ("9.8.7".to_owned(), "9.8.7".to_owned()));
    assert_eq!(std::fs::read_to_string(&asked).unwrap(), "x\n");
    write("9.8.10");
    assert_eq!(look(), "9.8.10");
}

#[test]
fn what_is_no_blender_is_said() {
    let folder = temp_dir();
    assert!(inspect(folder.path()).unwrap_err().contains("no Blender"));
    assert!(inspect(std::path::Path::new("/bin/true")).unwrap_err().contains("no Blender"));
}

#[tokio::test]
async fn a_series_without_a_wheel_installs_nothing() {
    let data = temp_dir();
    let failed = install_blender("2.93".parse().unwrap(), data.path(), |_| {}).await;
    assert!(matches!(failed, Err(InstallError::NoWheel(_))), "{failed:?}");
    assert_eq!(std::fs::read_dir(data.path()).unwrap().count(), 0);
}

/// Takes the network and some hundred megabytes: only where `KILN_TEST_INSTALL` names a series.
#[tokio::test]
async fn installs_the_wheel() {
    let Some(series) = std::env::var("KILN_TEST_INSTALL").ok() else {
        skip("KILN_TEST_INSTALL names no series");
        return;
    };
    let (data, cache) = (temp_dir(), temp_dir());
    let mut lines = 0;
    let install = install_blender(series.parse().unwrap(), data.path(), |_| lines += 1).await.unwrap();
    assert_eq!(install.version.series().to_string(), series);
    assert!(lines > 0);
    assert!(discover(&[], data.path(), cache.path()).contains(&install));
}
