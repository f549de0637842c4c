//! The one place that prints: tables for people, JSON for programs, results alone with `--quiet`.

pub mod bake;
pub mod blend;
mod device;
pub mod explain;
pub mod submission;
pub mod suspicious;
pub mod table;
pub mod text;

use std::io::{IsTerminal as _, Write as _};

use console::style;
use serde::Serialize;

use crate::exit::CommandError;

/// The form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputMode {
    Human,
    Json,
    /// Results and errors only.
    Quiet,
}

/// The printer of the program. Results go to standard output, everything else to standard error.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    reader: OutputMode,
}

impl Output {
    pub fn new(json: bool, quiet: bool) -> Self {
        let reader = match (json, quiet) {
            (true, _) => OutputMode::Json,
            (false, true) => OutputMode::Quiet,
            (false, false) => OutputMode::Human,
        };
        Self { reader }
    }

    pub fn reader(self) -> OutputMode {
        self.reader
    }

    /// Returns whether a moving bar can be shown.
    pub fn live(self) -> bool {
        self.reader == OutputMode::Human
            && std::io::stderr().is_terminal()
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
    }

    /// Returns whether a question can be asked.
    pub fn can_ask(self) -> bool {
        self.reader == OutputMode::Human && std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
    }

    /// Prints the result of the command.
    pub fn result(self, value: &impl Serialize, human: impl FnOnce() -> String) {
        match self.reader {
            OutputMode::Json => {
                // These types cannot fail to serialise.
                let text = serde_json::to_string_pretty(value).unwrap_or_default();
                self.print(&text);
            }
            OutputMode::Human | OutputMode::Quiet => {
                let text = human();
                if !text.is_empty() {
                    self.print(text.trim_end());
                }
            }
        }
    }

    /// Prints that a change was made: the sentence for people, the value for programs.
    pub fn done(self, value: &impl Serialize, sentence: &str) {
        match self.reader {
            OutputMode::Quiet => {}
            _ => self.result(value, || sentence.to_owned()),
        }
    }

    /// Prints one of many values as a line, for programs only.
    pub fn line(self, value: &impl Serialize) {
        if self.reader == OutputMode::Json {
            self.print(&serde_json::to_string(value).unwrap_or_default());
        }
    }

    /// Prints the result of a command that printed lines before: for programs as the last line.
    pub fn last_line(self, value: &impl Serialize, human: impl FnOnce() -> String) {
        match self.reader {
            OutputMode::Json => self.line(value),
            OutputMode::Human | OutputMode::Quiet => self.result(value, human),
        }
    }

    /// Prints a text as it is, such as a log.
    pub fn raw(self, text: &str) {
        let mut out = std::io::stdout().lock();
        // A reader that has gone needs nothing else.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    fn print(self, text: &str) {
        self.raw(&format!("{text}\n"));
    }

    /// Prints a line for a person.
    pub fn note(self, text: &str) {
        if self.reader != OutputMode::Quiet {
            say(&one_line(text));
        }
    }

    pub fn warning(self, text: &str) {
        say(&format!("{} {}", style("warning:").for_stderr().yellow().bold(), one_line(text)));
    }

    /// Prints an error that ends the command.
    pub fn error(self, fault: &CommandError) {
        if self.reader == OutputMode::Json {
            let value = serde_json::json!({
                "error": { "message": fault.message, "exit_code": fault.exit as i32 }
            });
            self.line(&value);
        }
        self.error_line(fault);
    }

    /// Prints the line of an error whose details programs read in the result.
    pub fn error_line(self, fault: &CommandError) {
        say(&format!("{} {}", style("error:").for_stderr().red().bold(), one_line(&fault.message)));
    }
}

fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Removes control characters, which a file's name may contain: they must not reach the terminal.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c == '\n' || c == '\t' { ' ' } else { c }).filter(|c| !c.is_control()).collect()
}
