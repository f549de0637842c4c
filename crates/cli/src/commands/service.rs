//! `kiln service`.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use serde_json::json;

use super::Context;
use crate::{
    args::{FarmArgs, InstallArgs, RemoveArgs, ScopeArgs, ServiceCommand},
    exit::{CommandError, Exit, Outcome},
    output::{table::table, text::shown},
    service::{
        ServiceRole, arguments, program,
        systemd::{self, Manager, SYSTEM_SETTINGS},
        unit::{OWN_ACCOUNT, OWN_DATA, RunsAs, ServiceUnit, UnitError, Word},
    },
};

/// The copy of the key file that a service of the system reads, below the system's root.
const KEY_COPY: &str = "etc/kiln/farm.key";

impl From<UnitError> for CommandError {
    fn from(error: UnitError) -> Self {
        Self::bad_input(error.to_string())
    }
}

pub fn run(context: &Context, command: ServiceCommand) -> Outcome<Exit> {
    match command {
        ServiceCommand::Install(args) => install(context, *args),
        ServiceCommand::Remove(args) => remove(context, &args),
        ServiceCommand::Status => status(context),
    }
}

fn manager(scope: ScopeArgs, root: Option<&PathBuf>, run_as: Option<&String>) -> Manager {
    match root {
        Some(root) => Manager::System(Some(std::path::absolute(root).unwrap_or_else(|_| root.clone()))),
        None if scope.system || run_as.is_some() || (is_root() && !scope.user) => Manager::System(None),
        None => Manager::Myself,
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Checks that a service of the system is changed by root.
fn demand_root(manager: &Manager) -> Outcome {
    if matches!(manager, Manager::System(None)) && !is_root() {
        return Err(CommandError::bad_input(
            "a service of the system needs root: use sudo, or install one of yours with --user",
        ));
    }
    Ok(())
}

fn install(context: &Context, args: InstallArgs) -> Outcome<Exit> {
    let manager = manager(args.scope, args.root.as_ref(), args.run_as.as_ref());
    let file = manager.file(args.role)?;
    if !args.print {
        manager.demand()?;
        demand_root(&manager)?;
        manager.installed(args.role)?;
    }
    let (unit, key) = unit(context, &args, &manager)?;
    let text = unit.text()?;
    if args.print {
        let value =
            json!({ "role": args.role, "of": manager.whose(), "file": shown(Some(&file)), "unit": text });
        context.output.note(&format!("this would be {}", file.display()));
        context.output.result(&value, || text);
        return Ok(Exit::Done);
    }
    if let Some(root) = manager.root() {
        if unit.runs_as == RunsAs::Own {
            manager.create_account()?;
        }
        if let Some(key) = key {
            systemd::write(&root.join(KEY_COPY), &key, 0o600)?;
        }
    }
    systemd::write(&file, &text, 0o644)?;
    manager.reload()?;
    manager.systemctl(&["--quiet", "enable", &args.role.unit()])?;
    let at_boot = matches!(manager, Manager::System(_)) || linger(context);
    manager.start(args.role)?;
    let started = args.root.is_none();
    let value = json!({
        "role": args.role, "of": manager.whose(), "unit": args.role.unit(), "file": shown(Some(&file)),
        "program": shown(Some(&unit.program)), "started": started, "at_boot": at_boot,
    });
    let mut sentence = format!("{} is installed", args.role.unit());
    sentence += match (started, at_boot) {
        (true, true) => " and runs; it starts again at boot",
        (true, false) => " and runs; it starts again when you log in",
        (false, _) => "; it starts at the next boot of that system",
    };
    sentence += &format!(".\nIts unit: {}", file.display());
    if started {
        let user = if manager.whose() == "user" { "--user " } else { "" };
        sentence += &format!(
            "\nIts messages: journalctl {user}--unit {}",
            args.role.unit().trim_end_matches(".service")
        );
    }
    if unit.runs_as == RunsAs::Own && args.role == ServiceRole::Server {
        sentence +=
            &format!("\nIts key, for artists and other machines: {}/farm.key (sudo cat)", own_data(&unit));
    }
    context.output.done(&value, &sentence);
    Ok(Exit::Done)
}

/// Returns the unit, and the farm's key if the service gets a copy of it.
fn unit(context: &Context, args: &InstallArgs, manager: &Manager) -> Outcome<(ServiceUnit, Option<String>)> {
    let runs_as = match (manager, &args.run_as) {
        (Manager::Myself, _) => RunsAs::Myself,
        (_, None) => RunsAs::Own,
        (_, Some(name)) if name == OWN_ACCOUNT => RunsAs::Own,
        (_, Some(name)) => RunsAs::Named(named(name, args.root.is_some())?),
    };
    let read = arguments::read(args.role, &args.arguments)?;
    let mut words = read.words;
    let mut environment = arguments::variables(env::vars_os(), runs_as == RunsAs::Myself)?;
    let has = |environment: &[(String, String)], name| environment.iter().any(|(known, _)| known == name);
    let mut data = read.data;
    if data.is_none() {
        let own = || runs_as == RunsAs::Own && !has(&environment, "KILN_DATA");
        data = match context.global.data.text("data").map(PathBuf::from) {
            Some(data) => Some(std::path::absolute(&data).unwrap_or(data)),
            None => own().then(|| OWN_DATA.into()),
        };
        if let Some(data) = &data {
            let text = data.to_str().ok_or_else(|| {
                CommandError::bad_input(format!(
                    "{} is not Unicode, which systemd requires; choose another folder",
                    data.display()
                ))
            })?;
            words.extend(["--data".to_owned(), text.to_owned()]);
        }
    }
    if runs_as == RunsAs::Own && !has(&environment, "KILN_CONFIG") {
        environment.push(("KILN_CONFIG".into(), format!("/{SYSTEM_SETTINGS}/kiln.toml")));
    }
    let key = if args.role == ServiceRole::Worker {
        take_key(&mut words, &mut environment, manager)?
    } else {
        None
    };
    let program = program_of(context, args, &runs_as)?;
    match (&runs_as, &data) {
        // A mistake in the settings is reported now, not at the next boot.
        (RunsAs::Myself, _) => drop(context.settings(&FarmArgs::default())?),
        (RunsAs::Own, Some(data)) if data != Path::new(OWN_DATA) => context.output.note(&format!(
            "the account {OWN_ACCOUNT} needs {0} for itself: sudo install -d -o {OWN_ACCOUNT} -g {OWN_ACCOUNT} -m 700 {0}",
            data.display()
        )),
        _ => {}
    }
    let mut words: Vec<Word> = words.into_iter().map(Word::Text).collect();
    if key.is_some() {
        words.extend([Word::Text("--key-file".into()), Word::KeyFile]);
    }
    let unit = ServiceUnit {
        role: args.role,
        runs_as,
        program,
        words,
        environment,
        renders: read.renders,
        key_file: key.is_some().then(|| Path::new("/").join(KEY_COPY)),
        systemd: systemd::release(),
    };
    Ok((unit, key))
}

fn named(name: &str, elsewhere: bool) -> Outcome<String> {
    if name == "root" {
        return Err(CommandError::bad_input(
            "a service that opens other people's files does not run as root; choose another account",
        ));
    }
    if !elsewhere && !systemd::account_exists(name) {
        return Err(CommandError::bad_input(format!(
            "there is no account “{name}” on this machine; --run-as needs one that exists"
        )));
    }
    Ok(name.to_owned())
}

/// Returns the program that the service starts, at a path that lasts.
fn program_of(context: &Context, args: &InstallArgs, runs_as: &RunsAs) -> Outcome<PathBuf> {
    let path = match &args.program {
        Some(path) => std::path::absolute(path).unwrap_or_else(|_| path.clone()),
        None => env::current_exe().map_err(|error| {
            CommandError::failed(format!("this program does not know its path ({error})"))
        })?,
    };
    // A program of another system is below the root of that system.
    let here = match &args.root {
        Some(root) => root.join(path.strip_prefix("/").unwrap_or(&path)),
        None => path.clone(),
    };
    if !here.is_file() {
        return Err(CommandError::bad_input(format!(
            "there is no program {}; name one with --program",
            here.display()
        )));
    }
    if args.root.is_some() {
        return Ok(path);
    }
    if let Err(why) = program::check_path(&path) {
        if args.program.is_none() && !args.print {
            return Err(CommandError::bad_input(format!(
                "{why}; install Kiln first (scripts/install) and use that program, or insist with --program"
            )));
        }
        context.output.warning(&why.to_string());
    }
    if *runs_as == RunsAs::Own
        && let Some(closed) = program::closed_to_others(&path)
    {
        let why = format!(
            "the account {OWN_ACCOUNT} cannot run {}: {} is closed to it",
            path.display(),
            closed.display()
        );
        if !args.print {
            return Err(CommandError::bad_input(format!(
                "{why}; install Kiln for the whole machine (scripts/install --prefix /usr/local), or choose an account with \
                 --run-as"
            )));
        }
        context.output.warning(&why);
    }
    Ok(path)
}

/// Returns the farm's key if its file is named for a service of the system, which gets a copy: its account may not read the
/// file, and the file may be deleted. A person's service reads the file itself.
fn take_key(
    words: &mut Vec<String>,
    environment: &mut Vec<(String, String)>,
    manager: &Manager,
) -> Outcome<Option<String>> {
    let named = |name: &str| environment.iter().position(|(known, _)| known == name);
    let mut rest = words.clone();
    let place = named("KILN_KEY_FILE");
    let Some(path) = arguments::take(&mut rest, "--key-file").or_else(|| Some(environment[place?].1.clone()))
    else {
        return Ok(None);
    };
    let key = fs::read_to_string(&path).map_err(|error| {
        CommandError::bad_input(format!("the key file {path} cannot be read ({error}); check its path"))
    })?;
    if matches!(manager, Manager::Myself) {
        return Ok(None);
    }
    *words = rest;
    if let Some(place) = place {
        environment.remove(place);
    }
    Ok(Some(key))
}

fn own_data(unit: &ServiceUnit) -> String {
    let mut words = unit.words.iter();
    let data = words.find(|word| **word == Word::Text("--data".into())).and_then(|_| words.next());
    match data {
        Some(Word::Text(data)) => data.clone(),
        _ => "its data folder".to_owned(),
    }
}

/// Lets the user's services start at boot. Returns whether they do.
fn linger(context: &Context) -> bool {
    if systemd::lingers() {
        return true;
    }
    match systemd::linger() {
        Ok(()) => true,
        Err(fault) => {
            let user =
                env::var("USER").or_else(|_| env::var("LOGNAME")).unwrap_or_else(|_| "NAME".to_owned());
            context.output.warning(&format!(
                "services of yours end when you log out, until you run: sudo loginctl enable-linger {user} ({})",
                fault.message
            ));
            false
        }
    }
}

fn remove(context: &Context, args: &RemoveArgs) -> Outcome<Exit> {
    let manager = manager(args.scope, args.root.as_ref(), None);
    manager.demand()?;
    let file = manager.file(args.role)?;
    let Some(text) = manager.installed(args.role)? else {
        let other = match manager {
            Manager::Myself => Manager::System(None),
            Manager::System(_) => Manager::Myself,
        };
        let elsewhere = args.root.is_none() && matches!(other.installed(args.role), Ok(Some(_)));
        let hint =
            if elsewhere { format!("; one of the {} is: add --{0}", other.whose()) } else { String::new() };
        return Err(CommandError::bad_input(format!(
            "no such service is installed ({} is not there){hint}",
            file.display()
        )));
    };
    demand_root(&manager)?;
    let unit = args.role.unit();
    let now: &[&str] = if args.root.is_none() { &["--now"] } else { &[] };
    manager.systemctl(&[&["--quiet", "disable"], now, &[&*unit]].concat())?;
    systemd::remove(&file)?;
    if let Some(root) = manager.root() {
        if text.contains(&format!("\nLoadCredential=farm.key:/{KEY_COPY}\n")) {
            systemd::remove(&root.join(KEY_COPY))?;
            // Fails, as it should, if other files are in it.
            let _ = fs::remove_dir(root.join(SYSTEM_SETTINGS));
        }
        let others = ServiceRole::ALL.into_iter().any(|role| matches!(manager.installed(role), Ok(Some(_))));
        if !others {
            manager.forget_account()?;
        }
    }
    manager.reload()?;
    if args.root.is_none() {
        // Without this, systemd keeps listing a unit that has failed.
        let _ = manager.systemctl(&["reset-failed", &unit]);
    }
    let value = json!({ "role": args.role, "of": manager.whose(), "unit": unit, "file": shown(Some(&file)) });
    context.output.done(&value, &format!("{unit} is stopped and removed; its data stays."));
    Ok(Exit::Done)
}

/// Prints the installed services and their state.
fn status(context: &Context) -> Outcome<Exit> {
    Manager::System(None).demand()?;
    let mut services = Vec::new();
    let mut rows = Vec::new();
    for manager in [Manager::Myself, Manager::System(None)] {
        for role in ServiceRole::ALL {
            // Units that Kiln did not write are not listed; without a home folder the user has no services.
            if !matches!(manager.installed(role), Ok(Some(_))) {
                continue;
            }
            let file = manager.file(role)?;
            let properties = manager.properties(role);
            let of = |name: &str| properties.get(name).cloned().unwrap_or_default();
            let enabled = of("UnitFileState") == "enabled";
            let at_boot = enabled && (manager.whose() == "system" || systemd::lingers());
            let pid = of("MainPID").parse::<u32>().ok().filter(|pid| *pid != 0);
            let restarts = of("NRestarts").parse::<u32>().unwrap_or_default();
            let (active, sub) = (of("ActiveState"), of("SubState"));
            services.push(json!({
                "role": role, "of": manager.whose(), "unit": role.unit(), "file": shown(Some(&file)), "state": active,
                "substate": sub, "pid": pid, "restarts": restarts, "enabled": enabled, "at_boot": at_boot,
            }));
            let state = if active.is_empty() { "unknown".to_owned() } else { format!("{active} ({sub})") };
            let yes = |is: bool| (if is { "yes" } else { "no" }).to_owned();
            rows.push(vec![
                role.unit(),
                manager.whose().to_owned(),
                state,
                pid.map_or_else(String::new, |pid| pid.to_string()),
                restarts.to_string(),
                yes(at_boot),
                file.display().to_string(),
            ]);
        }
    }
    context.output.result(&json!({ "services": services }), || {
        if rows.is_empty() {
            return "no services of Kiln are installed here; `kiln service install server` or `worker` installs one".into();
        }
        table(&["SERVICE", "OF", "STATE", ">PID", ">RESTARTS", "AT BOOT", "FILE"], rows)
    });
    Ok(Exit::Done)
}
