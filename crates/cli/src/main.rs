#![cfg_attr(test, allow(clippy::unwrap_used))]
//! The program `kiln`: server, worker and command line.

mod args;
mod ask;
mod bundle;
mod commands;
mod exit;
mod failed;
mod farm;
mod follow;
mod local_farm;
mod newer;
mod output;
mod progress;
mod scratch;
mod screen;
mod service;
mod settings;
mod shared;
mod signals;
mod size;
mod top;

use std::process::ExitCode;

use clap::{Parser as _, error::ErrorKind};
use kiln_types::AccountKind;
use tracing_subscriber::EnvFilter;

use crate::{
    args::{Cli, GlobalArgs, KilnCommand},
    commands::Context,
    exit::{CommandError, Exit, Outcome},
    output::Output,
};

const OVERVIEW: &str = "\
kiln turns the machines you own into one Blender render farm.

  kiln render shot.blend     renders here, or on your farm; the frames are saved beside the file
  kiln server --worker       a farm that others can join
  kiln worker --server URL   another machine joins
  kiln submit shot.blend     submits a job to the farm
  kiln jobs                  what the farm is doing
  kiln top                   the same, live

`kiln --help` lists every command, `kiln help COMMAND` explains one.
";

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(usage(&error) as u8),
    };
    let output = Output::new(cli.global.json, cli.global.quiet);
    let Some(command) = cli.command else {
        output.raw(OVERVIEW);
        return ExitCode::SUCCESS;
    };
    set_up_logs(&cli.global, &command);
    let context = Context { output, global: cli.global };
    let ended = run(&context, command);
    let exit = ended.unwrap_or_else(|fault| {
        output.error(&fault);
        fault.exit
    });
    ExitCode::from(exit as u8)
}

fn run(context: &Context, command: KilnCommand) -> Outcome<Exit> {
    match command {
        KilnCommand::Render(args) => wait_for(commands::render::run(context, *args)),
        KilnCommand::Submit(args) => wait_for(commands::submit::run(context, *args)),
        KilnCommand::Server(args) => wait_for(commands::server::run(context, args)),
        KilnCommand::Worker(args) => wait_for(commands::worker::run(context, args)),
        KilnCommand::Service { command } => commands::service::run(context, command),
        KilnCommand::Jobs(args) => wait_for(commands::jobs::run(context, args)),
        KilnCommand::Users(args) => wait_for(commands::shares::accounts(context, AccountKind::User, args)),
        KilnCommand::Projects(args) => {
            wait_for(commands::shares::accounts(context, AccountKind::Project, args))
        }
        KilnCommand::Limits(args) => wait_for(commands::shares::limits(context, args)),
        KilnCommand::Workers(args) => wait_for(commands::workers::run(context, args)),
        KilnCommand::Top(args) => wait_for(top::run(context, args)),
        KilnCommand::Blender { command } => wait_for(commands::blender::run(context, command)),
        KilnCommand::Bundle(args) => wait_for(commands::bundle::run(context, args)),
        KilnCommand::Inspect { file } => commands::inspect::run(context, &file),
        KilnCommand::Config { farm } => commands::small::config(context, &farm),
        KilnCommand::Completions { shell } => Ok(commands::small::completions(context, shell)),
        KilnCommand::Man { dir } => commands::small::man(context, &dir),
        KilnCommand::Help { topic } => commands::small::help(context, &topic),
    }
}

/// Runs a command that waits for others. All other commands end before the threads for it would have started.
fn wait_for(work: impl Future<Output = Outcome<Exit>>) -> Outcome<Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| {
        CommandError::failed(format!("the system does not let kiln start ({error}); try again"))
    })?;
    let ended = runtime.block_on(work);
    // A question that nobody answered must not keep the program from ending.
    runtime.shutdown_background();
    ended
}

/// Logs go to standard error: little for a command that shows its own progress, more for a server or a worker.
fn set_up_logs(global: &GlobalArgs, command: &KilnCommand) {
    let own = match (global.verbose, command) {
        (0, KilnCommand::Server(_)) if !global.quiet => "info",
        // It draws on the terminal where the logs would go.
        (0, KilnCommand::Top(_)) => "off",
        (0, _) if global.quiet => "error",
        (0, _) => "warn",
        (1, _) => "info",
        _ => "debug",
    };
    let others = if own == "off" { own } else { "error" };
    let fallback = || EnvFilter::new(format!("{others},kiln={own},{}", crates(own)));
    let filter = EnvFilter::try_from_env("KILN_LOG").unwrap_or_else(|_| fallback());
    let colour = console::colors_enabled_stderr();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(colour)
        .init();
}

fn crates(level: &str) -> String {
    ["blend", "blobs", "client", "core", "host", "image", "server", "store", "worker"]
        .map(|name| format!("kiln_{name}={level}"))
        .join(",")
}

/// Prints what clap answers: help and version as they are, a mistake as one line.
fn usage(error: &clap::Error) -> Exit {
    match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            // A reader that has gone needs nothing else.
            let _ = error.print();
            if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
                Exit::BadInput
            } else {
                Exit::Done
            }
        }
        _ => {
            let json = std::env::args_os().any(|arg| arg == "--json");
            Output::new(json, false).error(&CommandError::bad_input(mistake(&error.to_string())));
            Exit::BadInput
        }
    }
}

/// Returns in one sentence what clap says in several paragraphs.
fn mistake(text: &str) -> String {
    let mut paragraphs = text.split("\n\n").map(|part| {
        part.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
    });
    let first = paragraphs.next().unwrap_or_default();
    let first = first.strip_prefix("error: ").unwrap_or(&first).to_owned();
    match paragraphs.find_map(|part| part.strip_prefix("tip: ").map(str::to_owned)) {
        Some(tip) => format!("{first}; {tip}"),
        None => format!("{first}; --help lists what is possible"),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_mistake_is_one_line() {
        let say = |args: &[&str]| {
            let error = Cli::try_parse_from(args).unwrap_err();
            mistake(&error.to_string())
        };
        let frames = say(&["kiln", "render", "a.blend", "--frames", "1-2000000000"]);
        assert!(frames.contains("frame 2000000000 is outside what Blender can render"), "{frames}");
        assert!(say(&["kiln", "render", "a.blend", "--frames", ""]).contains("empty"));
        assert!(say(&["kiln", "render"]).contains("<FILE>"));
        assert!(say(&["kiln", "rendr", "x"]).contains("render"));
        for text in [frames, say(&["kiln", "jobs", "show", "x"])] {
            assert!(!text.contains('\n'), "{text}");
        }
    }

    #[test]
    fn every_command_and_argument_says_what_it_is() {
        fn check(command: &clap::Command, path: &str) {
            assert!(command.get_about().is_some() || path == "kiln", "{path} says nothing of itself");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{path} {} says nothing of itself", argument.get_id());
            }
            for sub in command.get_subcommands() {
                check(sub, &format!("{path} {}", sub.get_name()));
            }
        }
        check(&Cli::command(), "kiln");
    }
}
