//! `kiln blender install 5.0`: an isolated environment with the `bpy` wheel.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use kiln_types::BlenderSeries;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::Command,
};

use crate::{BlenderInstall, inspect};

/// The reason why no Blender was installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error(
        "Blender {series} as a Python module needs Python {python}, which is not on this machine; install it, or \
         get Blender itself and name it with --blender"
    )]
    NoPython { series: BlenderSeries, python: &'static str },
    #[error("there is no Python module of Blender {0}; get Blender itself and name it with --blender")]
    NoWheel(BlenderSeries),
    #[error("{what} failed: {last}")]
    Step { what: &'static str, last: String },
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("the environment was made, but {0}")]
    Unusable(String),
}

/// The Python that the wheels of a series are built for; they exist from 3.6 on.
fn python_for(series: BlenderSeries) -> Option<&'static str> {
    match (series.major, series.minor) {
        (3, 6) | (4, 0) => Some("3.10"),
        (4, _) | (5, 0) => Some("3.11"),
        (5, _) => Some("3.13"),
        _ => None,
    }
}

/// Returns whether [`install_blender`] could get this series at all.
pub fn can_install(series: BlenderSeries) -> bool {
    python_for(series).is_some()
}

/// Makes `<data_dir>/blenders/<series>` with the newest patch release of the series; an environment that is there
/// and works is returned as it is. `progress` gets the lines that pip prints.
///
/// # Errors
/// The right Python is missing, or the package cannot be had; then nothing is left behind.
pub async fn install_blender(
    series: BlenderSeries,
    data_dir: &Path,
    mut progress: impl FnMut(&str),
) -> Result<BlenderInstall, InstallError> {
    let version = python_for(series).ok_or(InstallError::NoWheel(series))?;
    let folder = data_dir.join("blenders");
    let home = folder.join(series.to_string());
    if let Ok(install) = inspect(&home) {
        progress(&format!("Blender {} is already there: {}", install.version, home.display()));
        return Ok(install);
    }
    let python = find_python(version).await.ok_or(InstallError::NoPython { series, python: version })?;
    let io = |source| InstallError::Io { path: folder.clone(), source };
    std::fs::create_dir_all(&folder).map_err(io)?;
    if home.exists() {
        std::fs::remove_dir_all(&home).map_err(io)?;
    }
    let guard = Leftover(Some(home.clone()));
    let mut venv = Command::new(&python);
    venv.args(["-m", "venv"]).arg(&home);
    run("making the environment", venv, &mut progress).await?;
    let mut pip = Command::new(home.join("bin/python"));
    pip.args(["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"]);
    pip.arg(format!("bpy=={series}.*"));
    run("installing bpy", pip, &mut progress).await?;
    let install = inspect(&home).map_err(InstallError::Unusable)?;
    guard.keep();
    Ok(install)
}

/// Removes a half-made environment unless it is told to keep it; also where the future is dropped.
struct Leftover(Option<PathBuf>);

impl Leftover {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Leftover {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _absent = std::fs::remove_dir_all(path);
        }
    }
}

async fn find_python(version: &str) -> Option<PathBuf> {
    for name in [format!("python{version}"), "python3".to_owned(), "python".to_owned()] {
        let script = "import sys; print('%d.%d' % sys.version_info[:2]); import venv, ensurepip";
        let output = Command::new(&name).args(["-I", "-c", script]).stdin(Stdio::null()).output().await;
        if let Ok(output) = output
            && output.status.success()
            && String::from_utf8_lossy(&output.stdout).trim() == version
        {
            return Some(name.into());
        }
    }
    None
}

async fn run(
    what: &'static str,
    mut command: Command,
    progress: &mut impl FnMut(&str),
) -> Result<(), InstallError> {
    let failed = |last: String| InstallError::Step { what, last };
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    let (mut out, mut err) = (lines(child.stdout.take()), lines(child.stderr.take()));
    let mut last = String::new();
    loop {
        let line = tokio::select! {
            Some(line) = next(&mut out) => line,
            Some(line) = next(&mut err) => line,
            else => break,
        };
        progress(&line);
        if !line.trim().is_empty() {
            last = line;
        }
    }
    match child.wait().await {
        Ok(status) if status.success() => Ok(()),
        _ => Err(failed(last)),
    }
}

type Lines<R> = Option<tokio::io::Lines<BufReader<R>>>;

fn lines<R: AsyncRead + Unpin>(from: Option<R>) -> Lines<R> {
    from.map(|from| BufReader::new(from).lines())
}

async fn next<R: AsyncRead + Unpin>(lines: &mut Lines<R>) -> Option<String> {
    let line = lines.as_mut()?.next_line().await.ok().flatten();
    if line.is_none() {
        *lines = None;
    }
    line
}
