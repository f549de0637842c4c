//! The data folder of an earlier Kiln opens in this one: `tests/fixtures/make` made it, with that version's binary.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use kiln_testkit::{is_blender_3_4, wait_until};
use serde_json::Value;

use crate::support::{Home, Running, Said, said};

/// The folder in which the fixture was made: some of its paths are absolute.
const BASE: &str = "/tmp/kiln-fixture";
/// The address of its server.
const LISTEN: &str = "127.77.1.1:47615";
const QUICK: &[&str] = &["--samples", "1", "--resolution", "25%"];
const LIMIT: Duration = Duration::from_secs(120);

/// The fixture at its place, until the test ends.
struct Fixture {
    /// Lends the program and an environment without the settings of the person who runs the tests.
    home: Home,
    /// Held by one test at a time, also of another checkout.
    _lock: File,
}

impl Fixture {
    fn lay_out(name: &str) -> Self {
        let lock = File::create(format!("{BASE}.lock")).unwrap();
        lock.lock().unwrap();
        let _ = std::fs::remove_dir_all(BASE);
        let zip = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name);
        let mut archive = zip::ZipArchive::new(File::open(zip).unwrap()).unwrap();
        for at in 0..archive.len() {
            let mut file = archive.by_index(at).unwrap();
            let path = Path::new(BASE).join(file.enclosed_name().unwrap());
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::io::copy(&mut file, &mut File::create(path).unwrap()).unwrap();
        }
        Self { home: Home::new(), _lock: lock }
    }

    fn project(&self) -> PathBuf {
        Path::new(BASE).join("project")
    }

    fn kiln(&self, args: &[&str]) -> std::process::Command {
        let mut command = self.home.kiln(args);
        command.current_dir(self.project()).env("HOME", format!("{BASE}/home")).env_remove("KILN_YIELD");
        for name in ["XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"] {
            command.env_remove(name);
        }
        command
    }

    fn run(&self, args: &[&str]) -> Said {
        said(self.kiln(&[args, &["--json"]].concat()).output().unwrap())
    }

    #[track_caller]
    fn json(&self, args: &[&str]) -> Value {
        let said = self.run(args);
        assert_eq!(said.code, 0, "{args:?}: {}", said.err);
        said.json()
    }

    fn start(&self, args: &[&str]) -> Running {
        let child = self.kiln(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Running { child, url: String::new() }
    }

    fn state(&self, job: &str) -> String {
        self.json(&["jobs", "show", job])["job"]["state"].as_str().unwrap().to_owned()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(BASE);
    }
}

#[test]
fn what_the_first_version_left_goes_on() {
    // Its frames are of 3.4.
    if !is_blender_3_4() {
        return;
    }
    let fixture = Fixture::lay_out("first-version.zip");
    let settings = fixture.json(&["config"]);
    assert!(settings.to_string().contains("/tmp/kiln-fixture/assets"), "{settings}");

    // Frames that the first version made are not rendered again, here or on the farm.
    let render = |more: &[&'static str]| [&["render", "shot.blend"], more, QUICK].concat();
    let kept = fixture.json(&render(&["--local", "--frames", "1-2"]));
    assert_eq!((&kept["landed"], &kept["kept"]), (&0.into(), &2.into()), "{kept}");
    let every_setting = ["--samples", "1", "--depth", "16", "--resolution", "48x27", "--camera", "Camera"];
    let every_policy = ["--no-bake", "--allow-missing", "--trust"];
    let test = ["render", "shot.blend", "--local", "--frames", "1", "--out", "tests"];
    let kept = fixture.json(&[&test[..], &every_setting, &every_policy].concat());
    assert_eq!(kept["kept"], 1, "{kept}");

    let server = fixture.start(&["server", "--listen", LISTEN]);
    wait_until(LIMIT, "the server has opened its data", || fixture.run(&["jobs"]).code == 0);
    let states: Vec<(u64, String)> = fixture.json(&["jobs", "--all"])["jobs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|job| (job["id"].as_u64().unwrap(), job["state"].as_str().unwrap().to_owned()))
        .collect();
    let ids: Value = serde_json::from_slice(&std::fs::read(format!("{BASE}/jobs.json")).unwrap()).unwrap();
    for (name, wanted) in [
        ("fetched", "completed"),
        ("held", "completed"),
        ("archived", "completed"),
        ("failed", "failed"),
        ("waiting", "queued"),
        ("paused", "paused"),
        ("cancelled", "cancelled"),
        ("running", "running"),
    ] {
        let wanted = (ids[name].as_u64().unwrap(), wanted.to_owned());
        assert!(states.contains(&wanted), "{name}: {states:?}");
    }
    let id = |name: &str| ids[name].to_string();

    // Frames that were not fetched go to the folder that the first version saved, beside those that are there.
    let held = fixture.json(&["jobs", "fetch", &id("held")]);
    assert_eq!((&held["fetched"], &held["there"]), (&2.into(), &0.into()), "{held}");
    let farm = [&["--no-local", "--out", "farm", "--frames", "3-5"], QUICK].concat();
    let kept = fixture.json(&[&["render", "shot.blend"][..], &farm].concat());
    assert_eq!((&kept["landed"], &kept["kept"]), (&0.into(), &3.into()), "{kept}");

    // What was at work goes on, and so does what waited for a person.
    let _worker = fixture.start(&["worker", "--name", "one"]);
    wait_until(LIMIT, "what was at work is done", || fixture.state(&id("running")) == "completed");
    fixture.json(&["jobs", "resume", &id("paused")]);
    wait_until(LIMIT, "what was held is done", || fixture.state(&id("paused")) == "completed");
    for (name, landed) in [("running", 2), ("paused", 1)] {
        assert_eq!(fixture.json(&["jobs", "fetch", &id(name)])["fetched"], landed, "{name}");
    }
    for frame in 3..=8 {
        assert!(fixture.project().join(format!("farm/frames/shot_{frame:04}.png")).is_file(), "{frame}");
    }

    // From here on they are known as this version knows its own: an edit replaces them.
    let shot = fixture.project().join("shot.blend");
    let mut bytes = std::fs::read(&shot).unwrap();
    bytes.extend(b"saved again");
    std::fs::write(&shot, bytes).unwrap();
    let replaced = fixture.json(&render(&["--local", "--frames", "1-2"]));
    assert_eq!((&replaced["landed"], &replaced["replaced"]), (&2.into(), &2.into()), "{replaced}");
    drop(server);
}
