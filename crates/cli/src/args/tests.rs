//! Rules for the help and the values of every command.

use clap::{Arg, Command as ClapCommand, CommandFactory as _};
use kiln_api::{ChangePools, Hello, SubmitJob};
use kiln_types::WorkerId;
use serde_json::{Value, json};

use super::Cli;
use crate::settings::{Settings, table};

/// Every command with its path, such as `jobs fetch`.
fn commands() -> Vec<(String, ClapCommand)> {
    fn collect(path: &str, command: &ClapCommand, all: &mut Vec<(String, ClapCommand)>) {
        all.push((path.to_owned(), command.clone()));
        for one in command.get_subcommands() {
            collect(format!("{path} {}", one.get_name()).trim(), one, all);
        }
    }
    let mut root = Cli::command();
    root.build();
    let mut all = Vec::new();
    collect("", &root, &mut all);
    all
}

/// Every argument that takes a value, with the path of its command.
fn arguments() -> Vec<(String, Arg)> {
    let of = |(path, command): (String, ClapCommand)| {
        let takes_value = |arg: &&Arg| arg.get_action().takes_values();
        command.get_arguments().filter(takes_value).map(|arg| (path.clone(), arg.clone())).collect::<Vec<_>>()
    };
    commands().into_iter().flat_map(of).collect()
}

fn accepts(arg: &Arg, text: &str) -> bool {
    let alone = Arg::new("it").long("it").value_parser(arg.get_value_parser().clone());
    ClapCommand::new("kiln").arg(alone).try_get_matches_from(["kiln", &format!("--it={text}")]).is_ok()
}

#[test]
fn the_short_help_of_every_command_fits_a_screen() {
    for (path, command) in commands() {
        let help = command.term_width(100).max_term_width(100).render_help().to_string();
        let lines: Vec<&str> = help.trim_end().lines().collect();
        assert!(lines.len() <= 40, "`kiln {path} -h` has {} lines:\n{help}", lines.len());
        let widest = lines.iter().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= 100, "`kiln {path} -h` is {widest} columns wide:\n{help}");
    }
}

#[test]
fn options_of_a_job_are_under_headings_in_this_order() {
    let headings = ["Frames:", "Settings:", "Policy:", "Scheduling:", "Farm:", "Global:"];
    for (path, mut command) in commands() {
        if !["render", "submit"].contains(&&*path) {
            continue;
        }
        for help in [command.render_help().to_string(), command.render_long_help().to_string()] {
            let found: Vec<&str> =
                help.lines().filter(|line| !line.starts_with(' ') && line.ends_with(':')).collect();
            assert_eq!(found[..headings.len()], headings, "{help}");
            assert!(found[headings.len()..].iter().all(|line| line.starts_with("Examples")), "{help}");
        }
    }
}

/// A duration is an option that reads `1h30m`, or whose help or name tells of time.
#[test]
fn every_option_that_is_a_duration_reads_and_shows_the_same_texts() {
    let mut durations = 0;
    for (path, arg) in arguments() {
        let name = arg.get_id().as_str();
        let value_name =
            arg.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str());
        let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
        let is_free_text = accepts(&arg, "no duration");
        let reads_duration = !is_free_text && accepts(&arg, "1h30m");
        let is_named_so = value_name.starts_with("DURATION");
        assert_eq!(reads_duration, is_named_so, "kiln {path} {name}: {value_name}");
        if !reads_duration {
            let words = ["second", "minute", "hour", "timeout", "time limit", "for this long"];
            let told = words.iter().find(|word| help.to_lowercase().contains(*word) || name.contains(*word));
            // `30-40x2` renders every second frame.
            assert!(told.is_none() || name == "frames", "kiln {path} {name} is no duration: {help}");
            continue;
        }
        durations += 1;
        for text in ["90s", "30m", "2 h", "7d", "1d 12h"] {
            assert!(accepts(&arg, text), "kiln {path} {name} refuses {text}");
        }
        for text in ["90", "", "-5m", "1mo", "1.5s", "soon"] {
            assert!(!accepts(&arg, text), "kiln {path} {name} takes “{text}”");
        }
        assert_eq!(
            arg.get_default_values(),
            [""; 0],
            "kiln {path} {name}: the default is a sentence of its help"
        );
    }
    assert!(durations >= 13, "{durations}");
}

#[test]
fn every_setting_that_is_a_duration_reads_and_shows_the_same_texts() {
    let mut durations = 0;
    for setting in table() {
        let is_read = |text: &str| (setting.check)(text.as_ref()).is_ok();
        let is_duration = !is_read("no duration") && is_read("1h30m");
        assert_eq!(is_duration, setting.spec.value_name.starts_with("DURATION"), "{}", setting.name);
        if !is_duration {
            continue;
        }
        durations += 1;
        assert!(is_read("90s") && is_read("7d") && !is_read("90"), "{}", setting.name);
        for (text, shown) in [("90s", "1m 30s"), ("1h30m", "1h 30m"), ("7d", "7d"), ("36h", "1d 12h")] {
            let settings = Settings::of_variables(&[(&setting.variable, text)]).unwrap();
            let row = settings.rows().iter().find(|(name, ..)| *name == setting.name).unwrap();
            assert_eq!(row.1, shown, "{}", setting.name);
        }
    }
    assert!(durations >= 7, "{durations}");
}

const HOSTILE_NAMES: [&str; 7] = ["", "  ", "\u{a0}", "a\nb", "\u{1b}[31mred", "a\u{9b}b", "\u{7f}"];

/// Every name that people choose: options, settings and the fields of requests refuse the same texts.
#[test]
fn names_keep_one_rule_everywhere() {
    // Names inside a .blend, and the account of a service.
    let others = ["scene", "camera", "view_layer", "run_as"];
    let mut names = 0;
    for (path, arg) in arguments() {
        let value_name =
            arg.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str());
        let is_name = ["NAME", "NAME[=N]", "NAME=PATH", "POOL"].contains(&value_name);
        if !is_name || others.contains(&arg.get_id().as_str()) {
            continue;
        }
        names += 1;
        let suffix = if value_name == "NAME=PATH" { "=/mnt" } else { "" };
        let is_accepted = |name: &str| accepts(&arg, &format!("{name}{suffix}"));
        let what = format!("kiln {path} {}", arg.get_id());
        assert!(is_accepted("night shift") && is_accepted(" é "), "{what}");
        assert!(!is_accepted(&"x".repeat(201)), "{what}");
        for name in HOSTILE_NAMES {
            assert!(!is_accepted(name), "{what} takes {name:?}");
        }
    }
    assert!(names >= 20, "{names}");
    for setting in ["name", "user", "project", "tag", "shared"] {
        let setting = table().iter().find(|one| one.name == setting).unwrap();
        let suffix = if setting.name == "shared" { "=/mnt" } else { "" };
        for name in HOSTILE_NAMES {
            let text = format!("{name}{suffix}");
            assert!((setting.check)(text.as_ref()).is_err(), "{} takes {name:?}", setting.name);
        }
    }
}

#[test]
fn names_in_requests_keep_the_rule_of_the_command_line() {
    let submit = |field: &str, value: Value| {
        let mut body = json!({ "source": { "upload": { "id": "0".repeat(15) + "1" } }, "requirements": {} });
        match field.split_once('.') {
            Some((outer, inner)) => body[outer][inner] = value,
            None => body[field] = value,
        }
        serde_json::from_value::<SubmitJob>(body).is_ok()
    };
    type Wrap = fn(&str) -> Value;
    let wrap: [(&str, Wrap); 6] = [
        ("name", |name| json!(name)),
        ("user", |name| json!(name)),
        ("project", |name| json!(name)),
        ("requirements.tags", |name| json!([name])),
        ("requirements.pool", |name| json!(name)),
        ("requirements.limits", |name| json!({ name: 1 })),
    ];
    let pools =
        |field: &str, name: &str| serde_json::from_value::<ChangePools>(json!({ field: [name] })).is_ok();
    for (field, value) in wrap {
        assert!(submit(field, value("night")), "{field}");
    }
    assert!(pools("add", "night") && pools("remove", "night"));
    let hello =
        serde_json::to_value(Hello::new(WorkerId::from_bits(1).unwrap(), "anvil".parse().unwrap())).unwrap();
    let joins = |field: &str, value: Value| {
        let mut hello = hello.clone();
        hello[field] = value;
        serde_json::from_value::<Hello>(hello).is_ok()
    };
    assert!(
        joins("name", json!("anvil")) && joins("tags", json!(["fast"])) && joins("shared", json!(["studio"]))
    );
    for name in HOSTILE_NAMES {
        for (field, value) in wrap {
            assert!(!submit(field, value(name)), "{field}: {name:?}");
        }
        assert!(!pools("add", name) && !pools("remove", name), "{name:?}");
        let is_refused = |field: &str, value: Value| assert!(!joins(field, value), "{field}: {name:?}");
        is_refused("name", json!(name));
        is_refused("tags", json!([name]));
        is_refused("shared", json!([name]));
    }
}
