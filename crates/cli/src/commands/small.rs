//! Commands of a few lines: config, completions, man pages, help.

use std::{fs, path::Path};

use clap::CommandFactory as _;
use serde_json::json;

use super::Context;
use crate::{
    args::{Cli, FarmArgs},
    exit::{CommandError, EXIT_CODES, Exit, Outcome},
    output::{table::table, text::shown},
};

pub fn config(context: &Context, farm: &FarmArgs) -> Outcome<Exit> {
    let settings = context.settings(farm)?;
    let rows = settings.rows();
    let values: Vec<_> = rows
        .iter()
        .map(|(name, value, origin)| json!({ "name": name, "value": value, "from": origin }))
        .collect();
    let there = settings.file.is_file();
    context.output.result(
        &json!({ "file": shown(Some(&settings.file)), "file_is_there": there, "settings": values }),
        || {
            let lines = rows
                .iter()
                .map(|(name, value, origin)| vec![(*name).to_owned(), value.clone(), origin.to_string()]);
            let file = settings.file.display();
            let state = if there { "is read" } else { "is not there" };
            format!("{}\n\n{file} {state}.", table(&["SETTING", "VALUE", "FROM"], lines))
        },
    );
    Ok(Exit::Done)
}

pub fn completions(context: &Context, shell: clap_complete::Shell) -> Exit {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "kiln", &mut text);
    context.output.raw(&String::from_utf8_lossy(&text));
    Exit::Done
}

pub fn man(context: &Context, dir: &Path) -> Outcome<Exit> {
    let fail = |error| {
        CommandError::bad_input(format!(
            "{} cannot be written ({error}); choose another folder",
            dir.display()
        ))
    };
    fs::create_dir_all(dir).map_err(fail)?;
    clap_mangen::generate_to(Cli::command(), dir).map_err(fail)?;
    let sentence = format!("The manual pages are in {}.", dir.display());
    context.output.done(&json!({ "dir": shown(Some(dir)) }), &sentence);
    Ok(Exit::Done)
}

pub fn help(context: &Context, topic: &[String]) -> Outcome<Exit> {
    if let [topic] = topic
        && topic == "exit-codes"
    {
        context.output.raw(&format!("{EXIT_CODES}\n"));
        return Ok(Exit::Done);
    }
    let mut root = Cli::command();
    root.build();
    let mut command = &mut root;
    for name in topic {
        command = command.find_subcommand_mut(name).ok_or_else(|| {
            CommandError::bad_input(format!("there is no help on “{name}”; `kiln --help` lists the commands"))
        })?;
    }
    context.output.raw(&format!("{}\n", command.render_long_help()));
    Ok(Exit::Done)
}
