//! The files that scripts/install and scripts/package put on a machine and remove again.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use kiln_testkit::{scene, skip, temp_dir};

use crate::support::{Said, said};

/// The program of this build, without what debuggers need: half as much to copy.
pub fn program() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let kiln = Path::new(env!("CARGO_BIN_EXE_kiln"));
        let folder = kiln.parent().unwrap();
        let new =
            tempfile::Builder::new().prefix("kiln-stripped-").tempfile_in(folder).unwrap().into_temp_path();
        let strip = Command::new("strip").arg("--strip-all").arg("-o").arg(&new).arg(kiln).status();
        assert!(strip.is_ok_and(|status| status.success()), "strip cannot be run");
        let made = folder.join("kiln-stripped");
        new.persist(&made).unwrap();
        made
    })
}

/// The places below a prefix that people, shells and `man` look at.
const PLACES: [&str; 6] = [
    "bin/kiln",
    "share/bash-completion/completions/kiln",
    "share/zsh/site-functions/_kiln",
    "share/fish/vendor_completions.d/kiln.fish",
    "share/man/man1/kiln-jobs-fetch.1.gz",
    "share/doc/kiln/LICENSE",
];

fn script(name: &str) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts").join(name));
    command.env_remove("DESTDIR");
    command
}

/// scripts/install with the program of this build.
fn install(prefix: &Path, more: &[&str]) -> Said {
    let mut command = script("install");
    said(command.arg("--prefix").arg(prefix).arg("--program").arg(program()).args(more).output().unwrap())
}

fn uninstall(prefix: &Path, more: &[&str]) -> Said {
    said(script("install").arg("--uninstall").arg("--prefix").arg(prefix).args(more).output().unwrap())
}

#[track_caller]
fn done(said: Said) -> String {
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    said.out
}

/// All files and folders below a folder.
fn everything(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            found.insert(path.strip_prefix(folder).unwrap().to_owned());
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    found
}

#[test]
fn what_is_installed_goes_again_and_other_files_stay() {
    let home = temp_dir();
    let prefix = home.path().join("my tools");
    for file in ["bin/other", "share/man/man1/other.1"] {
        let path = prefix.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "another program's").unwrap();
    }
    let before = everything(&prefix);

    let told = done(install(&prefix, &[]));
    assert!(told.contains("is not on your PATH"), "{told}");
    for place in PLACES {
        assert!(prefix.join(place).metadata().is_ok_and(|meta| meta.len() > 0), "{place} is missing");
    }
    let version = said(Command::new(prefix.join("bin/kiln")).arg("--version").output().unwrap());
    assert!(version.out.starts_with("kiln "), "{}", version.err);

    // With its folder on the PATH no hint is shown, and the same again is no conflict.
    let mut again = script("install");
    let path = format!("{}:{}", prefix.join("bin").display(), std::env::var("PATH").unwrap());
    again.arg("--prefix").arg(&prefix).arg("--program").arg(program()).env("PATH", path);
    let told = done(said(again.output().unwrap()));
    assert!(!told.contains("PATH"), "{told}");

    // A file that was changed since stays: replaced and removed only by force.
    let changed = prefix.join(PLACES[3]);
    fs::write(&changed, "mine now").unwrap();
    let refused = install(&prefix, &[]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("kiln.fish") && refused.err.contains("--force"), "{}", refused.err);
    let told = done(uninstall(&prefix, &[]));
    assert!(told.contains("kiln.fish was changed"), "{told}");
    let left: Vec<_> =
        everything(&prefix).difference(&before).filter(|path| prefix.join(path).is_file()).cloned().collect();
    assert_eq!(left, [Path::new(PLACES[3]), Path::new("share/kiln/installed")]);
    assert_eq!(fs::read_to_string(&changed).unwrap(), "mine now");

    done(install(&prefix, &["--force"]));
    done(uninstall(&prefix, &[]));
    assert_eq!(everything(&prefix), before);
    let nothing = uninstall(&prefix, &[]);
    assert!(nothing.code == 1 && nothing.err.contains("nothing was installed"), "{}", nothing.err);
}

#[test]
fn a_prefix_that_install_made_goes_with_it() {
    let home = temp_dir();
    let prefix = home.path().join("new");
    done(install(&prefix, &[]));
    // A list that was tampered with deletes nothing outside.
    let list = prefix.join("share/kiln/installed");
    let told = fs::read_to_string(&list).unwrap();
    let outside = home.path().join("precious");
    fs::write(&outside, "").unwrap();
    fs::write(
        &list,
        format!("{told}e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  ../precious\n"),
    )
    .unwrap();
    let refused = uninstall(&prefix, &["--force"]);
    assert!(refused.code == 1 && refused.err.contains("damaged") && outside.exists(), "{}", refused.err);
    fs::write(&list, told).unwrap();
    done(uninstall(&prefix, &[]));
    assert_eq!(everything(home.path()), BTreeSet::from(["precious".into()]));
}

#[test]
fn packagers_get_the_files_and_no_list() {
    let root = temp_dir();
    let mut command = script("install");
    command.env("DESTDIR", root.path()).args(["--prefix", "/usr", "--program"]).arg(program());
    done(said(command.output().unwrap()));
    for place in PLACES {
        let mode = root.path().join("usr").join(place).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, if place == "bin/kiln" { 0o755 } else { 0o644 }, "{place}");
    }
    assert!(!everything(root.path()).iter().any(|path| path.starts_with("usr/share/kiln")));
}

#[test]
fn the_scripts_explain_themselves() {
    for name in ["install", "package"] {
        let help = done(said(script(name).arg("--help").output().unwrap()));
        assert!(help.contains("Examples:") && help.contains("--program"), "{help}");
        for wrong in [&["--prfix", "x"][..], &["--program"]] {
            let refused = said(script(name).args(wrong).output().unwrap());
            assert!(refused.code == 1 && refused.err.starts_with("error: --pr"), "{}", refused.err);
        }
    }
    // How to have the command is said where it is none.
    let say = |path: &Path| {
        let text = ". scripts/setup.sh; PATH=$1:/usr/bin:/bin; say_how_to_install";
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        done(said(
            Command::new("bash").args(["-euc", text, "-"]).arg(path).current_dir(root).output().unwrap(),
        ))
    };
    let empty = temp_dir();
    if !["/usr/bin/kiln", "/bin/kiln"].iter().any(|path| Path::new(path).exists()) {
        assert!(say(empty.path()).contains("scripts/install"));
    }
    assert_eq!(say(Path::new(env!("CARGO_BIN_EXE_kiln")).parent().unwrap()), "");
}

/// A script for a clean trixie with the packages: `$1` is their folder, `$2` a .blend.
const CLEAN: &str = r#"
set -eu
# Files of the system that could be Kiln's; dpkg's own records are about packages of any name.
all() { find /usr /etc /var /opt -iname '*kiln*' 2>/dev/null | sort; }
try() {
    kiln --version
    kiln render "$2" --frames 1 --samples 1 --resolution 25% --out "$3" --quiet
    test -n "$(find "$3" -name '*0001.*' -size +0)"
}
before=$(all)
cd "$1"
sha256sum --check --quiet SHA256SUMS

dpkg --install *.deb >/dev/null
for file in bash-completion/completions/kiln zsh/vendor-completions/_kiln fish/vendor_completions.d/kiln.fish \
    man/man1/kiln.1.gz man/man1/kiln-jobs-fetch.1.gz doc/kiln/copyright; do
    test -s "/usr/share/$file" || { echo "the .deb has no $file"; exit 1; }
done
test "$(command -v kiln)" = /usr/bin/kiln
try deb "$2" "$1/from-deb"
dpkg --remove kiln >/dev/null
dpkg --purge kiln 2>/dev/null || true
test "$(all)" = "$before" || { echo "the .deb left something:"; all; exit 1; }

# The shell remembers where it was.
hash -r
tar --extract --file *.tar.gz
cd kiln-*-linux
test -s LICENSE
./install --prefix /usr/local
test "$(command -v kiln)" = /usr/local/bin/kiln
test -s /usr/local/share/man/man1/kiln.1.gz
kiln --version
./install --uninstall --prefix /usr/local
test "$(all)" = "$before" || { echo "the archive left something:"; all; exit 1; }
"#;

#[test]
fn packages_install_and_run_in_a_clean_system() {
    let trixie = std::env::var_os("KILN_TEST_TRIXIE").filter(|root| Path::new(root).is_dir());
    let (Some(_), Some(cargo_deb)) = (trixie, std::env::var_os("KILN_TEST_CARGO_DEB")) else {
        return skip("KILN_TEST_TRIXIE names no Debian trixie root, or KILN_TEST_CARGO_DEB no cargo-deb");
    };
    if !rustix::process::geteuid().is_root() {
        return skip("only root can run in another root folder");
    }
    let home = temp_dir();
    let packages = home.path().join("packages");
    let package = |umask: &str| {
        let command = format!("umask {umask}; exec \"$0\" \"$@\"");
        let mut shell = Command::new("bash");
        shell.args(["-c", &command]).arg(script("package").get_program());
        shell.args(["--fast", "--program"]).arg(program()).arg("--out").arg(&packages);
        shell.env("KILN_CARGO_DEB", &cargo_deb);
        done(said(shell.output().unwrap()));
        fs::read_to_string(packages.join("SHA256SUMS")).unwrap()
    };
    let sums = package("022");
    let machine = std::env::consts::ARCH;
    assert!(sums.contains(&format!("kiln-{}-{machine}-linux.tar.gz", env!("CARGO_PKG_VERSION"))), "{sums}");
    let deb = sums.split_whitespace().find(|word| word.ends_with(".deb")).unwrap();
    let field = |name: &str| {
        let output =
            Command::new("dpkg-deb").arg("--field").arg(packages.join(deb)).arg(name).output().unwrap();
        done(said(output)).trim().to_owned()
    };
    assert_eq!(
        (field("Package"), field("Recommends"), field("Suggests")),
        ("kiln".into(), "blender".into(), "ffmpeg".into())
    );
    assert!(field("Depends").contains("libc6 (>= "), "{}", field("Depends"));

    let shot = home.path().join("shot.blend");
    fs::copy(scene("basic"), &shot).unwrap();
    let output = script("in-trixie")
        .args(["sh", "-c", CLEAN, "-"])
        .args([&packages, &shot])
        .env("KILN_TRIXIE_FRESH", "1")
        .env("HOME", home.path())
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("KILN_BLENDER_NEWER", "true")
        .env_remove("XDG_CACHE_HOME")
        .output();
    done(said(output.unwrap()));

    assert_eq!(package("077"), sums, "the same program gives the same bytes");
}
