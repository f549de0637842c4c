//! A setting, apart from its value: its name in each place, and what help says of it.

use std::ffi::OsStr;

use super::shape::Shape;

/// How a setting is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One text.
    Word,
    /// One path. In `kiln.toml` it is meant from where the file lies.
    Path,
    /// Several texts: a flag that is repeated, a list in `kiln.toml`, `;` between them in a variable.
    Words,
    /// Several paths; a variable holds them as PATH does.
    Paths,
    /// `NAME=PATH`, several as [`Form::Words`]; a table in `kiln.toml`.
    Folders,
    /// A flag without a value; elsewhere `true` or `false`.
    Switch,
    /// One text, and this one where the flag stands alone.
    WordOr(&'static str),
}

/// Flags that a command takes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    Global,
    Farm,
    /// Of a machine that renders.
    Render,
    /// The same of `kiln server`, which renders only with --worker.
    ServerRender,
    Worker,
    Blender,
    Server,
    Keep,
    Wishes,
    Job,
    /// Whom a job counts for.
    Account,
}

/// What the table says of a setting besides its values.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    pub form: Form,
    pub value_name: &'static str,
    pub help: &'static str,
    /// Those that have its flag; it has none without them.
    pub groups: &'static [Group],
    /// The default in other words than the value has.
    pub default: Option<&'static str>,
    /// Whether only the long help shows the flag.
    pub is_rare: bool,
    /// Whether the value is never printed.
    pub is_secret: bool,
    /// A setting whose flag does not go with this one's.
    pub excludes: Option<&'static str>,
    /// Variables of the system; the first one that is there holds the default.
    pub falls_back_to: &'static [&'static str],
}

impl Spec {
    pub fn new(form: Form, value_name: &'static str, help: &'static str) -> Self {
        Self {
            form,
            value_name,
            help,
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
}

/// Tells what is wrong with a text.
pub type Check = fn(&OsStr) -> Result<(), String>;

/// A setting.
#[derive(Debug)]
pub struct Setting {
    /// Its key in `kiln.toml`, from which its other names follow.
    pub name: &'static str,
    pub flag: String,
    pub variable: String,
    pub spec: Spec,
    /// The default as `kiln config` prints it.
    pub default: String,
    /// What help says, with the variable and the default.
    pub help: String,
    pub check: Check,
}

impl Setting {
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
        Self {
            name,
            flag: name.replace('_', "-"),
            help: format!("{} [env: {variable}{several}]{default}", spec.help),
            variable,
            spec,
            default: if shape.words_are_value { words.clone() } else { format!("({words})") },
            check,
        }
    }
}
