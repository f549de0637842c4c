//! A new machine: `scripts/setup.sh` installs Rust, and `scripts/demo` runs in a system that has only Blender.
//!
//! Here `rustup`, `apt-get` and `curl` are scripts that behave like the real ones. Only a machine with access to the
//! internet can show that rustup's servers answer.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use kiln_testkit::{blender_4_3, skip, temp_dir};

use crate::support::{Said, said};

/// The programs of the system that `setup.sh` uses.
const TOOLS: [&str; 14] = [
    "bash", "cat", "chmod", "cut", "env", "grep", "head", "id", "mkdir", "mktemp", "rm", "sed", "sort",
    "tail",
];
/// A rustup with its cargo and rustc. Files beside it hold its state.
const RUSTUP: &str = r#"#!/bin/bash
here=$(cd "${0%/*}" && pwd)
echo "${0##*/} $*" >>"$here/calls"
none() { printf 'error: rustup could not choose a version of %s to run, because no default is configured.\nnote: run with a backtrace\n' "$1" >&2; exit 1; }
case "${0##*/} $*" in
    "rustup toolchain install stable"*)
        if [ -e "$here/offline" ]; then
            echo "info: syncing channel updates" >&2
            echo "error: could not download file from 'https://static.rust-lang.org/dist/channel-rust-stable.toml.sha256'" >&2
            exit 1
        fi
        echo >"$here/stable" ;;
    "rustup default") [ -e "$here/default" ] || { echo "error: no default toolchain is configured" >&2; exit 1; }; cat "$here/default" ;;
    "rustup default stable") echo "stable (default)" >"$here/default" ;;
    "rustup component add "*) echo >"$here/component-$3" ;;
    rustup*) exit 1 ;;
    "cargo clippy --version" | "cargo fmt --version")
        component=$1; [ "$component" = fmt ] && component=rustfmt
        [ -e "$here/component-$component" ] || none "$1" ;;
    *)
        if [ "${RUSTUP_TOOLCHAIN:-}" = stable ] || { [ -e "$here/default" ] && ! grep -q old "$here/default"; }; then
            [ -e "$here/stable" ] || none "${0##*/}"
            exec "$TOOLCHAIN/${0##*/}" "$@"
        fi
        [ -e "$here/default" ] || none "${0##*/}"
        echo "${0##*/} 1.63.0 (4b91a6ea7 2022-08-08)" ;;
esac
"#;

/// The real toolchain's programs.
fn toolchain() -> PathBuf {
    let said = said(Command::new("rustc").args(["--print", "sysroot"]).output().unwrap());
    Path::new(said.out.trim()).join("bin")
}

/// Hides the programs of CARGO_HOME, whose crates are needed at their own path, and keeps what is built in memory: a program
/// that is linked here would not run outside.
const PREPARE: &str = r#"
set -e
programs=$1 target=$2 changes=$3/changes
shift 3
[ ! -d "$programs" ] || mount -t tmpfs none "$programs"
mkdir "$changes"
mount -t tmpfs none "$changes"
mkdir "$changes/upper" "$changes/work"
mount -t overlay none "$target" -o "lowerdir=$target,upperdir=$changes/upper,workdir=$changes/work"
exec "$@"
"#;

/// A system with few programs.
struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    fn bare() -> Self {
        let machine = Self { folder: temp_dir() };
        fs::create_dir(machine.at("bin")).unwrap();
        fs::create_dir(machine.at("home")).unwrap();
        let path = std::env::var_os("PATH").unwrap();
        for tool in TOOLS {
            let real =
                std::env::split_paths(&path).map(|folder| folder.join(tool)).find(|path| path.is_file());
            symlink(real.unwrap_or_else(|| panic!("{tool}")), machine.at("bin").join(tool)).unwrap();
        }
        // A person may run commands as root.
        machine.program("sudo", "#!/bin/bash\nexec \"$@\"\n");
        machine
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn program(&self, name: &str, text: &str) {
        let path = self.at("bin").join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn with_rustup() -> Self {
        let machine = Self::bare();
        for name in ["rustup", "cargo", "rustc"] {
            machine.program(name, RUSTUP);
        }
        machine
    }

    /// Runs `need_rust clippy rustfmt` and `cargo --version`.
    fn need_rust(&self) -> Said {
        let script = ". scripts/setup.sh; need_rust clippy rustfmt; cargo --version";
        let mut command = Command::new(self.at("bin/bash"));
        command.args(["-euo", "pipefail", "-c", script]).current_dir(root());
        command
            .env_clear()
            .env("PATH", self.at("bin"))
            .env("HOME", self.at("home"))
            .env("TOOLCHAIN", toolchain());
        said(command.output().unwrap())
    }

    fn calls(&self) -> String {
        fs::read_to_string(self.at("bin/calls")).unwrap_or_default()
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

#[test]
fn a_rustup_without_a_toolchain_gets_one() {
    let machine = Machine::with_rustup();
    let first = machine.need_rust();
    assert_eq!((first.code, first.err.as_str()), (0, ""), "{}", first.out);
    assert!(
        first.out.contains("getting the stable Rust (rustup)") && first.out.contains("\ncargo 1."),
        "{}",
        first.out
    );
    for component in ["clippy", "rustfmt"] {
        assert!(first.out.contains(&format!("adding {component} to Rust")), "{}", first.out);
    }
    // The second time there is nothing to do, and nothing to say.
    let again = machine.need_rust();
    assert!(
        again.code == 0 && again.out.starts_with("cargo 1.") && again.out.lines().count() == 1,
        "{}",
        again.out
    );
}

#[test]
fn a_rustup_that_reaches_nothing_is_one_clear_line() {
    let machine = Machine::with_rustup();
    fs::write(machine.at("bin/offline"), "").unwrap();
    let tried = machine.need_rust();
    let line = "error: rustup could not install Rust: error: could not download file from \
                'https://static.rust-lang.org/dist/channel-rust-stable.toml.sha256'\n";
    assert_eq!((tried.code, tried.err.as_str()), (1, line), "{}", tried.out);
}

#[test]
fn an_old_default_stays_and_a_new_one_is_used() {
    let machine = Machine::with_rustup();
    fs::write(machine.at("bin/default"), "old (default)\n").unwrap();
    let found = machine.need_rust();
    assert!(found.code == 0 && found.out.contains("\ncargo 1."), "{}{}", found.out, found.err);
    assert_eq!(fs::read_to_string(machine.at("bin/default")).unwrap(), "old (default)\n");
    assert!(!machine.calls().contains("rustup default stable"), "{}", machine.calls());
}

#[test]
fn the_distributions_rustup_is_taken_where_there_is_one() {
    let machine = Machine::bare();
    fs::write(machine.at("rustup"), RUSTUP).unwrap();
    machine.program("apt-cache", "#!/bin/bash\n[ \"$*\" = 'show rustup' ] && echo 'Package: rustup'\n");
    machine.program("dpkg", "#!/bin/bash\nexit 1\n");
    let bin = machine.at("bin");
    let copy = ["rustup", "cargo", "rustc"].map(|name| {
        let place = bin.join(name).display().to_string();
        format!("cat '{}' >'{place}'; chmod +x '{place}'", machine.at("rustup").display())
    });
    let install = format!("#!/bin/bash\ncase \"$*\" in *install*rustup) {};; esac\n", copy.join("; "));
    machine.program("apt-get", &install);
    let found = machine.need_rust();
    assert!(found.code == 0, "{}{}", found.out, found.err);
    assert!(
        found.out.contains("installing rustup (apt-get)") && found.out.contains("\ncargo 1."),
        "{}",
        found.out
    );
}

#[test]
fn elsewhere_it_is_rustups_installer_and_that_is_told_first() {
    let machine = Machine::bare();
    let cargo = machine.at("home/.cargo/bin").display().to_string();
    let copy = ["rustup", "cargo", "rustc"].map(|name| {
        format!("cat '{}' >{cargo}/{name}; chmod +x {cargo}/{name}", machine.at("rustup").display())
    });
    fs::write(machine.at("rustup"), RUSTUP).unwrap();
    fs::write(machine.at("installer"), format!("mkdir -p {cargo}\n{}\n", copy.join("\n"))).unwrap();
    // `curl ... -o FILE URL`, `sh FILE ...`.
    let curl = format!(
        "#!/bin/bash\n[ \"${{@: -1}}\" = https://sh.rustup.rs ] && cat '{}' >\"${{@: -2:1}}\"\n",
        machine.at("installer").display()
    );
    machine.program("curl", &curl);
    // Debian 12's apt knows the name rustup from other packages, and nothing more.
    machine.program("apt-cache", "#!/bin/bash\nexit 0\n");
    machine.program("apt-get", "#!/bin/bash\n[ \"$1\" = update ]\n");
    machine.program("dpkg", "#!/bin/bash\nexit 1\n");
    machine.program("sh", "#!/bin/bash\nexec bash \"$@\"\n");
    machine.program("update-ca-certificates", "#!/bin/bash\n");
    let found = machine.need_rust();
    assert!(found.code == 0 && found.out.contains("\ncargo 1."), "{}{}", found.out, found.err);
    let told = found.out.find("rustup's installer, https://sh.rustup.rs").unwrap();
    assert!(told < found.out.find("getting the stable Rust").unwrap(), "{}", found.out);
}

#[test]
fn the_demonstration_runs_in_a_root_that_has_nothing_but_blender() {
    if blender_4_3().is_none() {
        return skip("KILN_TEST_TRIXIE names no root with Blender 4.3");
    }
    let home = temp_dir();
    let bin = home.path().join("bin");
    fs::create_dir(&bin).unwrap();
    for name in ["rustup", "cargo", "rustc"] {
        fs::write(bin.join(name), RUSTUP).unwrap();
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let program = Path::new(env!("CARGO_BIN_EXE_kiln"));
    let target = program.ancestors().nth(2).unwrap();
    let out = home.path().join("demo");
    let mut command = Command::new(root().join("scripts/in-trixie"));
    command.args(["sh", "-c", PREPARE, "prepare"]).arg(cargo_home().join("bin")).arg(target).arg(home.path());
    command.arg("env").arg("-i").arg(format!("CARGO_HOME={}", cargo_home().display()));
    command.arg(format!("PATH={}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display()));
    command.arg(format!("HOME={}", home.path().display()));
    command.arg(format!("TOOLCHAIN={}", toolchain().display()));
    // The build of the tests, with the same settings, so that nothing is built again.
    command.arg(format!("CARGO_TARGET_DIR={}", target.display())).arg("KILN_PROFILE=dev");
    command.arg("CARGO_NET_OFFLINE=true");
    for name in ["CARGO_INCREMENTAL", "CARGO_PROFILE_DEV_DEBUG", "RUSTFLAGS"] {
        command.args(std::env::var(name).map(|value| format!("{name}={value}")));
    }
    command.arg(root().join("scripts/demo")).args(["--frames", "1-2", "--out"]).arg(&out);
    command.env("KILN_TRIXIE_FRESH", "1").current_dir(root());
    let shown = said(command.output().unwrap());
    assert_eq!(shown.code, 0, "{}{}", shown.out, shown.err);
    for words in ["installing build-essential (apt-get)", "getting the stable Rust (rustup)", "2 frames in"] {
        assert!(
            shown.out.contains(words) || shown.err.contains(words),
            "{words}: {}{}",
            shown.out,
            shown.err
        );
    }
    assert!(out.join("frames").read_dir().unwrap().count() >= 2, "{}", shown.out);
}

fn cargo_home() -> PathBuf {
    let named = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    named.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cargo"))
}
