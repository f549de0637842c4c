//! Real Blenders, and scenes built by them.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use crate::{
    build::{built, run},
    skip, skip_in_part,
};

/// A Blender of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blender {
    /// The program.
    Executable(PathBuf),
    /// A Python with the `bpy` wheel.
    Module(PathBuf),
}

const SCENES: [(&str, &str); 2] =
    [("scenes.py", include_str!("../scenes.py")), ("scene_kit.py", include_str!("../scene_kit.py"))];
/// The script that does the same as `blender -b FILE -o OUT -f N`.
const COLD: &str = include_str!("../cold.py");

/// `KILN_TEST_BLENDER`, else `blender` on PATH.
///
/// # Panics
/// Where there is none: the tests of this project need a real Blender.
pub fn blender() -> PathBuf {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND
        .get_or_init(|| {
            let named = env::var_os("KILN_TEST_BLENDER").map(PathBuf::from);
            let path = env::var_os("PATH").unwrap_or_default();
            let on_path = || env::split_paths(&path).map(|folder| folder.join("blender")).find(|p| p.is_file());
            named.or_else(on_path).expect(
                "these tests need a Blender: install one (apt install blender), or name it in KILN_TEST_BLENDER",
            )
        })
        .clone()
}

/// The series of [`blender`], such as `3.4`.
///
/// # Panics
/// If it does not say its version.
pub fn blender_series() -> &'static str {
    static FOUND: OnceLock<String> = OnceLock::new();
    FOUND.get_or_init(|| {
        let output = Command::new(blender()).arg("--version").output().expect("Blender can be started");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = said.lines().find_map(|line| line.trim().strip_prefix("Blender "));
        let mut numbers = version.unwrap_or_else(|| panic!("no version: {said}")).split('.');
        let (major, minor) = (numbers.next(), numbers.next());
        [major, minor].map(|part| part.expect("a version has two numbers").trim()).join(".")
    })
}

/// [`blender`] is of the series 3.4, which the test needs. Reports the test as skipped if not.
pub fn is_blender_3_4() -> bool {
    let is_it = blender_series() == "3.4";
    if !is_it {
        skip(&format!("it needs Blender 3.4, and this machine has {}", blender_series()));
    }
    is_it
}

/// `KILN_TEST_BPY`: a Python with the `bpy` wheel of 5.0.
pub fn bpy_python() -> Option<PathBuf> {
    wheel("KILN_TEST_BPY")
}

/// The wheels of Blender 4.2, 4.5 and 5.0, as far as they are here: `KILN_TEST_BPY_42`, `KILN_TEST_BPY_45`,
/// `KILN_TEST_BPY`. Reports the test as skipped in part for each that is missing.
pub fn wheels() -> Vec<Blender> {
    let names = ["KILN_TEST_BPY_42", "KILN_TEST_BPY_45", "KILN_TEST_BPY"];
    names.into_iter().filter_map(wheel_or_say).map(Blender::Module).collect()
}

/// The Python that a variable names, of a `bpy` wheel.
pub fn wheel(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).map(PathBuf::from).filter(|path| path.is_file())
}

fn wheel_or_say(variable: &str) -> Option<PathBuf> {
    let found = wheel(variable);
    if found.is_none() {
        skip_in_part(&format!("{variable} names no Python with a bpy wheel"));
    }
    found
}

/// `KILN_TEST_TRIXIE`: Blender 4.3 of a Debian trixie root, as a program. Tests of it are left out without it.
pub fn blender_4_3() -> Option<Blender> {
    env::var_os("KILN_TEST_TRIXIE").filter(|root| Path::new(root).is_dir())?;
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/blender-4.3");
    Some(Blender::Executable(program))
}

/// Debian's Blender and every wheel: for what each version does in its own way.
pub fn all_blenders() -> Vec<Blender> {
    [Blender::Executable(blender())].into_iter().chain(wheels()).collect()
}

/// As [`all_blenders`], without one that cannot simulate a fluid: Debian's 4.3 ends at the first one, because its Mantaflow
/// registers a module when Python runs already ("PyImport_AppendInittab() may not be called after Py_Initialize()").
pub fn fluid_blenders() -> Vec<Blender> {
    let mut found = all_blenders();
    if blender_series() == "4.3" {
        skip_in_part("Debian's Blender 4.3 cannot simulate fluids");
        found.remove(0);
    }
    found
}

/// The oldest and the newest Blender: enough for most tests.
pub fn blenders() -> Vec<Blender> {
    let mut found = vec![Blender::Executable(blender())];
    found.extend(wheel_or_say("KILN_TEST_BPY").map(Blender::Module));
    found
}

impl Blender {
    pub fn program(&self) -> &Path {
        match self {
            Self::Executable(program) | Self::Module(program) => program,
        }
    }

    /// A new process that runs a script with factory settings. The script's own arguments follow.
    pub fn script(&self, script: &Path) -> Command {
        let mut command = Command::new(self.program());
        if let Self::Executable(_) = self {
            command.args([
                "--background",
                "--factory-startup",
                "-noaudio",
                "--python-exit-code",
                "1",
                "--python",
            ]);
        }
        command.arg(script).arg("--");
        command
    }

    /// Renders one frame in a process of its own, as a person would on the command line: the reference that Kiln's
    /// frames are compared with. `out` is a prefix of the names, as Blender's `-o`; `None` leaves the file's own.
    ///
    /// The scene keeps its frame range. `-f -5` means “five before the end”, so a negative frame takes the path
    /// of [`Self::render_still`] in every version. `crates/testkit/tests/cold.rs` shows that both paths are equal.
    ///
    /// # Panics
    /// Where Blender fails.
    #[track_caller]
    pub fn render_cold(&self, blend: &Path, frame: i32, out: Option<&Path>, trust: bool) {
        if frame < 0 || matches!(self, Self::Module(_)) {
            return self.render_still(blend, frame, out, trust);
        }
        let mut command = self.command(trust);
        command.arg(blend);
        if let Some(out) = out {
            command.arg("-o").arg(out);
        }
        command.args(["-f", &frame.to_string()]);
        run(&mut command);
    }

    /// Renders one frame in a process of its own by a script: `frame_set`, then a still. From 5.0 on, an animation of
    /// the one frame.
    ///
    /// # Panics
    /// Where Blender fails.
    #[track_caller]
    pub fn render_still(&self, blend: &Path, frame: i32, out: Option<&Path>, trust: bool) {
        let mut command = self.command(trust);
        match self {
            Self::Module(_) => command.args(["-I", "-c", COLD]),
            Self::Executable(_) => command.args(["--python-exit-code", "1", "--python-expr", COLD, "--"]),
        };
        command.arg(blend).arg(out.unwrap_or(Path::new(""))).arg(frame.to_string());
        command.args(trust.then_some("trust"));
        run(&mut command);
    }

    /// A new process, before its file is named.
    fn command(&self, trust: bool) -> Command {
        let mut command = match self {
            Self::Module(python) => return Command::new(python),
            Self::Executable(program) => Command::new(program),
        };
        command.args(["--background", "--factory-startup"]);
        command.arg(if trust { "--enable-autoexec" } else { "--disable-autoexec" });
        command
    }
}

/// The .blend of a scene of `scenes.py`, in a folder of its own with the files it refers to. Do not write there.
///
/// # Panics
/// Where there is no such scene.
#[track_caller]
pub fn scene(name: &str) -> PathBuf {
    let path = scenes_folder().join(name).join(format!("{name}.blend"));
    assert!(path.is_file(), "scenes.py builds no scene “{name}”");
    path
}

/// The folder of the scenes: built once by [`blender`] into the build folder, and again when the script or the Blender
/// changes.
///
/// # Panics
/// Where they cannot be built.
pub fn scenes_folder() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| built("kiln-scenes", &SCENES))
}
