//! The command line of a service: the arguments after `--`, and the variables of the shell that installs it.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

use clap::Parser as _;

use super::role::ServiceRole;
use crate::{
    args::{Cli, KilnCommand},
    exit::{CommandError, Outcome},
    settings::{self, Form},
};

/// Arguments of `kiln server` or `kiln worker` that were understood, with absolute paths.
#[derive(Debug, PartialEq, Eq)]
pub struct ServiceArguments {
    pub words: Vec<String>,
    /// The service starts Blenders.
    pub renders: bool,
    /// The data folder, if they name it.
    pub data: Option<PathBuf>,
}

/// Reads the arguments after `--`. Refuses those that the command would refuse, and a key, which would become public.
pub fn read(role: ServiceRole, arguments: &[OsString]) -> Outcome<ServiceArguments> {
    let mut words = Vec::new();
    for argument in arguments {
        let word = argument.to_str().ok_or_else(|| {
            CommandError::bad_input(format!("{} is not Unicode, which systemd requires", argument.display()))
        })?;
        words.push(word.to_owned());
    }
    let line = ["kiln".to_owned(), role.to_string()].into_iter().chain(words.iter().cloned());
    let cli = Cli::try_parse_from(line).map_err(|error| {
        CommandError::bad_input(format!(
            "a service cannot run `kiln {role}` like this: {}",
            crate::mistake(&error.to_string())
        ))
    })?;
    let (renders, has_key) = match cli.command {
        Some(KilnCommand::Server(args)) => {
            if args.command.is_some() {
                return Err(CommandError::bad_input(
                    "a service runs the server itself, not one of its subcommands",
                ));
            }
            (args.worker, false)
        }
        Some(KilnCommand::Worker(args)) => (true, args.farm.text("key").is_some()),
        _ => return Err(CommandError::bad_input(format!("a service runs `kiln {role}`"))),
    };
    if has_key {
        return Err(CommandError::bad_input(
            "everybody can read the unit of a service: write the key to a file, and name it with --key-file",
        ));
    }
    let data = cli.global.data.text("data").map(|data| absolute(data.into()));
    Ok(ServiceArguments { words: absolute_paths(words), renders, data })
}

/// Removes an argument with its values from words, and returns the last value.
pub fn take(words: &mut Vec<String>, name: &str) -> Option<String> {
    let mut taken = None;
    let mut kept = Vec::new();
    let mut all = std::mem::take(words).into_iter();
    while let Some(word) = all.next() {
        if word == name {
            taken = all.next();
        } else if let Some(value) = word.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')) {
            taken = Some(value.to_owned());
        } else {
            kept.push(word);
        }
    }
    *words = kept;
    taken
}

/// Makes paths absolute, because a service starts in another folder.
fn absolute_paths(words: Vec<String>) -> Vec<String> {
    let form = |flag: &str| {
        let setting = settings::table().iter().find(|setting| setting.flag == flag);
        setting.map_or(Form::Word, |setting| setting.spec.form)
    };
    let takes_path = |flag: &str| matches!(form(flag), Form::Path | Form::Paths | Form::Folders);
    let fix = |flag: &str, value: &str| match form(flag) {
        Form::Folders => shared(value),
        _ if takes_path(flag) => absolute_text(value),
        _ => value.to_owned(),
    };
    let mut fixed = Vec::new();
    let mut all = words.into_iter();
    while let Some(word) = all.next() {
        match word.strip_prefix("--").map(|flag| flag.split_once('=').unwrap_or((flag, ""))) {
            Some((flag, value)) if word.contains('=') => fixed.push(format!("--{flag}={}", fix(flag, value))),
            Some((flag, _)) if takes_path(flag) => {
                let flag = flag.to_owned();
                fixed.push(word);
                fixed.extend(all.next().map(|value| fix(&flag, &value)));
            }
            _ => fixed.push(word),
        }
    }
    fixed
}

fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

fn absolute_text(path: &str) -> String {
    absolute(path.into()).display().to_string()
}

/// The variables that name the folders of settings, data and Blenders. The service manager of a person often has others.
const PLACES: [&str; 4] = ["PATH", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"];

/// Returns the variables that the service gets as this command has them: those of Kiln and, for a service of a person, those
/// that name folders.
pub fn variables(
    all: impl IntoIterator<Item = (OsString, OsString)>,
    with_places: bool,
) -> Outcome<Vec<(String, String)>> {
    let mut kept = Vec::new();
    for (name, value) in all {
        let Some(name) = name.to_str().map(str::to_owned) else { continue };
        let wanted = name.starts_with("KILN_") || with_places && PLACES.contains(&&*name);
        if !wanted || value.is_empty() {
            continue;
        }
        if name == "KILN_KEY" {
            return Err(CommandError::bad_input(
                "everybody can read the unit of a service: write the key to a file, name it with KILN_KEY_FILE, and unset KILN_KEY",
            ));
        }
        let value = value.into_string().map_err(|_| {
            CommandError::bad_input(format!(
                "the variable {name} is not Unicode, which systemd requires; unset it"
            ))
        })?;
        let setting = settings::table().iter().find(|setting| setting.variable == name);
        let value = match (setting.map(|setting| setting.spec.form), &*name) {
            (Some(Form::Paths), _) => list(&value, absolute),
            (Some(Form::Folders), _) => value.split(';').map(shared).collect::<Vec<_>>().join(";"),
            (Some(Form::Path), _) | (None, "KILN_CONFIG") => absolute_text(&value),
            // Relative folders on PATH mean nothing to a service.
            (None, "PATH") => list(&value, |path| path),
            _ => value,
        };
        kept.push((name, value));
    }
    kept.sort();
    Ok(kept)
}

fn list(value: &str, change: impl Fn(PathBuf) -> PathBuf) -> String {
    let absolute = env::split_paths(value).map(change).filter(|path| path.is_absolute());
    // A path of a list cannot contain the separator.
    env::join_paths(absolute).map(|list| list.to_string_lossy().into_owned()).unwrap_or_default()
}

fn shared(one: &str) -> String {
    match one.split_once('=') {
        Some((name, root)) if !Path::new(root).is_absolute() => format!("{name}={}", absolute_text(root)),
        _ => one.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(words: &[&str]) -> Outcome<ServiceArguments> {
        read(ServiceRole::Worker, &words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    fn server(words: &[&str]) -> Outcome<ServiceArguments> {
        read(ServiceRole::Server, &words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    fn here(path: &str) -> String {
        env::current_dir().unwrap().join(path).display().to_string()
    }

    #[test]
    fn paths_become_absolute_and_all_else_stays() {
        let given = [
            "--key-file",
            "farm.key",
            "--name",
            "a/b",
            "--blender=b/blender",
            "--data",
            "/d",
            "--shared",
            "s=mnt",
        ];
        let read =
            worker(&[&given[..], &["--shared=t=/x=y", "--nice", "10", "--yield", "-v"]].concat()).unwrap();
        let (key, blender, shared) =
            (here("farm.key"), format!("--blender={}", here("b/blender")), here("mnt"));
        let shared = format!("s={shared}");
        assert_eq!(
            read.words,
            [
                "--key-file",
                &key,
                "--name",
                "a/b",
                &blender,
                "--data",
                "/d",
                "--shared",
                &shared,
                "--shared=t=/x=y",
                "--nice",
                "10",
                "--yield",
                "-v"
            ]
        );
        assert_eq!(read.data, Some("/d".into()));
        assert!(read.renders);
    }

    #[test]
    fn a_server_renders_where_it_is_told_to() {
        assert!(!server(&["--listen", "127.0.0.1:0"]).unwrap().renders);
        assert!(server(&["--worker", "--slots", "2"]).unwrap().renders);
    }

    #[test]
    fn what_the_command_would_refuse_is_refused_now() {
        let said = |refused: Outcome<ServiceArguments>| refused.unwrap_err().message;
        assert!(said(worker(&["--slts", "2"])).contains("--slts"));
        assert!(said(server(&["--slots", "2"])).contains("--worker"), "it needs --worker");
        assert!(said(server(&["collect"])).contains("subcommands"));
        assert!(said(worker(&["--help"])).contains("kiln worker"));
        assert!(said(worker(&["--key", "secret"])).contains("--key-file"));
        let odd = <OsString as std::os::unix::ffi::OsStringExt>::from_vec(vec![b'-', 0xff]);
        assert!(said(read(ServiceRole::Worker, &[odd])).contains("Unicode"));
    }

    #[test]
    fn a_value_is_taken_out() {
        let words = || ["--key-file", "/a", "--name", "x", "--key-file=/b"].map(str::to_owned).to_vec();
        let mut rest = words();
        assert_eq!(take(&mut rest, "--key-file"), Some("/b".into()));
        assert_eq!(rest, ["--name", "x"]);
        assert_eq!(take(&mut rest, "--key-file"), None);
        assert_eq!(rest.len(), 2);
    }

    #[test]
    fn variables_are_kept_with_absolute_paths() {
        let given = |pairs: &[(&str, &str)], places| {
            variables(pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())), places)
        };
        let pairs = [
            ("KILN_DATA", "data"),
            ("HOME", "/home/ana"),
            ("KILN_TAG", "a;b"),
            ("KILN_SHARED", "s=mnt;t=/x"),
            ("KILN_BLENDER", "b/blender:/opt/blender"),
            ("KILN_SLOTS", ""),
            ("PATH", "/bin:.:bin"),
        ];
        let blenders = format!("{}:/opt/blender", here("b/blender"));
        let shared = format!("s={};t=/x", here("mnt"));
        let data = here("data");
        let kiln = [
            ("KILN_BLENDER", &*blenders),
            ("KILN_DATA", &data),
            ("KILN_SHARED", &shared),
            ("KILN_TAG", "a;b"),
        ];
        let own = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        assert_eq!(given(&pairs, false).unwrap(), own(&kiln));
        assert_eq!(given(&pairs, true).unwrap(), own(&[&kiln[..], &[("PATH", "/bin")]].concat()));
        assert!(given(&[("KILN_KEY", "secret")], false).unwrap_err().message.contains("KILN_KEY_FILE"));
    }
}
