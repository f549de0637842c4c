//! Real Blenders, and scenes built by them.

use std::{
    env, fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

/// A Blender of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blender {
    /// The program.
    Executable(PathBuf),
    /// A Python with the `bpy` wheel.
    Module(PathBuf),
}

const SCENES: &str = include_str!("../scenes.py");
/// What `blender -b FILE -o OUT -f N` does, by a script.
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

/// `KILN_TEST_BPY`: a Python with the `bpy` wheel of 5.0. Tests of that flavour are left out without it.
pub fn bpy_python() -> Option<PathBuf> {
    env::var_os("KILN_TEST_BPY").map(PathBuf::from).filter(|path| path.is_file())
}

/// The wheels of Blender 4.2, 4.5 and 5.0, as far as they are here: `KILN_TEST_BPY_42`, `KILN_TEST_BPY_45`,
/// `KILN_TEST_BPY`.
pub fn wheels() -> Vec<Blender> {
    let named = ["KILN_TEST_BPY_42", "KILN_TEST_BPY_45", "KILN_TEST_BPY"].into_iter().filter_map(env::var_os);
    named.map(PathBuf::from).filter(|path| path.is_file()).map(Blender::Module).collect()
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

/// The oldest and the newest Blender: enough for most tests.
pub fn blenders() -> Vec<Blender> {
    let mut found = vec![Blender::Executable(blender())];
    found.extend(bpy_python().map(Blender::Module));
    found
}

impl Blender {
    pub fn program(&self) -> &Path {
        match self {
            Self::Executable(program) | Self::Module(program) => program,
        }
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
        run(command);
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
        run(command);
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

/// Where the scenes lie: built once by [`blender`] into the build folder, anew when the script or the Blender
/// changes.
///
/// # Panics
/// Where they cannot be built.
pub fn scenes_folder() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| built("kiln-scenes", SCENES))
}

/// The folder that a script for [`blender`] fills, which is its only argument. It is made once in the build folder, and
/// again when the script or the Blender changes.
///
/// # Panics
/// Where the script fails.
pub fn built(name: &str, script: &str) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    let program = blender();
    (script, &program, program.metadata().and_then(|meta| meta.modified()).ok()).hash(&mut hasher);
    let test = env::current_exe().expect("a test knows its own program");
    let build = test.parent().and_then(Path::parent).expect("tests lie in a build folder").to_path_buf();
    let folder = build.join(format!("{name}-{:016x}", hasher.finish()));
    if !folder.is_dir() {
        let making = tempfile::Builder::new().prefix(&format!("{name}-making-")).tempdir_in(&build).unwrap();
        let source = making.path().join("script.py");
        fs::write(&source, script).unwrap();
        let made = making.path().join("made");
        fs::create_dir(&made).unwrap();
        let mut command = Command::new(&program);
        command.args(["--background", "--factory-startup", "--python-exit-code", "1", "--python"]);
        command.arg(&source).arg("--").arg(&made);
        run(command);
        // Another test process may have been quicker: then its files are as good.
        if let Err(error) = fs::rename(&made, &folder) {
            assert!(folder.is_dir(), "what {name} made cannot be moved into place: {error}");
        }
    }
    folder
}

#[track_caller]
fn run(mut command: Command) {
    let output = command.stdin(Stdio::null()).output().expect("Blender can be started");
    assert!(
        output.status.success(),
        "{command:?} ended with {}:\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
