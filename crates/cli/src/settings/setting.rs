//! A setting without its value: its names and its help.

use std::ffi::OsStr;

use super::shape::Shape;

/// The form of a setting's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One text.
    Word,
    /// One path. In `kiln.toml` a relative one starts at the folder of the file.
    Path,
    /// Several texts: a repeated flag, a list in `kiln.toml`, separated by `;` in a variable.
    Words,
    /// Several paths; separated by `:` in a variable.
    Paths,
    /// Several `NAME=PATH`, like [`Form::Words`], but a table in `kiln.toml`.
    Folders,
    /// A flag without a value; elsewhere `true` or `false`.
    Switch,
    /// One text; this one if the flag has no value.
    WordOr(&'static str),
}

/// Flags that a command takes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    Global,
    Farm,
    /// The flags of `kiln render`, which renders on this machine.
    Render,
    /// The flags of `kiln server` that need --worker.
    ServerRender,
    Worker,
    Blender,
    Server,
    Retention,
    Availability,
    Device,
    Shared,
    /// The user and the project of a job.
    Account,
}

impl Group {
    /// Returns the heading of its flags in help.
    pub fn heading(self) -> Option<&'static str> {
        match self {
            Self::Global => Some("Global"),
            Self::Farm | Self::Render | Self::Shared => Some("Farm"),
            Self::Account => Some("Scheduling"),
            Self::Device => Some("Settings"),
            Self::Worker | Self::ServerRender => Some("This machine"),
            Self::Availability => Some("Availability"),
            Self::Retention => Some("Retention"),
            Self::Blender | Self::Server => None,
        }
    }
}

/// The part of a setting that does not depend on the type of its value.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    pub form: Form,
    pub value_name: &'static str,
    /// One line.
    pub help: &'static str,
    /// Further sentences of `--help`.
    pub details: &'static str,
    /// The groups that have its flag; without a group there is no flag.
    pub groups: &'static [Group],
    /// The default in words, if they differ from the value.
    pub default: Option<&'static str>,
    /// Only `--help` shows the flag, and `-h` does not.
    pub is_rare: bool,
    /// The value is never printed.
    pub is_secret: bool,
    /// A setting whose flag conflicts with this one's.
    pub excludes: Option<&'static str>,
    /// Variables of the system; the first one that is set is the default.
    pub falls_back_to: &'static [&'static str],
}

impl Spec {
    pub fn new(form: Form, value_name: &'static str, help: &'static str) -> Self {
        Self {
            form,
            value_name,
            help,
            details: "",
            groups: &[],
            default: None,
            is_rare: false,
            is_secret: false,
            excludes: None,
            falls_back_to: &[],
        }
    }

    pub fn of(self, groups: &'static [Group]) -> Self {
        Self { groups, ..self }
    }

    pub fn rare(self) -> Self {
        Self { is_rare: true, ..self }
    }

    pub fn details(self, details: &'static str) -> Self {
        Self { details, ..self }
    }
}

/// Checks a text.
pub type Check = fn(&OsStr) -> Result<(), String>;

/// A setting.
#[derive(Debug)]
pub struct DeclaredSetting {
    /// The key in `kiln.toml`, from which its other names follow.
    pub name: &'static str,
    pub flag: String,
    pub variable: String,
    pub spec: Spec,
    /// The default as `kiln config` prints it.
    pub default: String,
    /// The line of `-h`, with the default.
    pub help: String,
    /// The text of `--help`, with the details and the variable.
    pub long_help: String,
    pub check: Check,
}

impl DeclaredSetting {
    pub fn new<X, T>(name: &'static str, spec: Spec, shape: &Shape<X, T>, check: Check) -> Self {
        let variable = format!("KILN_{}", name.to_ascii_uppercase());
        let words = &shape.words;
        let several = match spec.form {
            Form::Words | Form::Folders => ", several separated by `;`",
            _ => "",
        };
        let default = match spec.default.unwrap_or(words) {
            "none" | "false" => String::new(),
            words => format!(" [default: {words}]"),
        };
        let details = if spec.details.is_empty() { String::new() } else { format!(". {}", spec.details) };
        Self {
            name,
            flag: name.replace('_', "-"),
            help: format!("{}{default}", spec.help),
            long_help: format!("{}{details} [env: {variable}{several}]{default}", spec.help),
            variable,
            spec,
            default: if shape.words_are_value { words.clone() } else { format!("({words})") },
            check,
        }
    }
}
