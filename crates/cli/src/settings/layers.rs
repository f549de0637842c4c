//! The layers of settings: flags override variables, which override `kiln.toml`.

use std::{
    collections::BTreeMap,
    env,
    ffi::{OsStr, OsString},
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    Origin, Row, Value,
    flags::SettingArgs,
    setting::{DeclaredSetting, Form},
    shape::Shape,
    table,
};
use crate::exit::{CommandError, Outcome};

/// The values of a command's flags, by the settings' names.
#[derive(Debug, Clone, Default)]
pub struct Flags(BTreeMap<&'static str, Vec<OsString>>);

impl Flags {
    #[must_use]
    pub fn and<const GROUP: u8>(mut self, args: &SettingArgs<GROUP>) -> Self {
        self.0.extend(args.flags().0.clone());
        self
    }

    pub fn insert(&mut self, name: &'static str, texts: Vec<OsString>) {
        if !texts.is_empty() {
            self.0.insert(name, texts);
        }
    }

    pub fn texts(&self, name: &str) -> &[OsString] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// All layers; an earlier one overrides a later one.
pub struct Layers<V> {
    pub flags: Flags,
    /// Reads a variable that is not empty.
    pub var: V,
    pub file: File,
}

/// `kiln.toml`, whether it is there or not.
pub struct File {
    path: PathBuf,
    table: toml::Table,
}

impl File {
    pub fn read(path: &Path) -> Outcome<Self> {
        let table = match fs::read_to_string(path) {
            Ok(text) => {
                text.parse::<toml::Table>().map_err(|error| in_file(path, error.message().to_owned()))?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => toml::Table::new(),
            Err(error) => return Err(in_file(path, error.to_string())),
        };
        let is_setting = |key: &str| table::table().iter().any(|setting| setting.name == key);
        if let Some(key) = table.keys().find(|key| !is_setting(key)) {
            return Err(in_file(path, format!("there is no setting `{key}`; `kiln config` lists all")));
        }
        Ok(Self { path: path.to_owned(), table })
    }

    fn texts(&self, setting: &DeclaredSetting) -> Outcome<Vec<OsString>> {
        let Some(value) = self.table.get(setting.name) else { return Ok(Vec::new()) };
        let wrong = |must: &str| in_file(&self.path, format!("{}: {must}", setting.name));
        let text = |value: &toml::Value| {
            scalar(value).ok_or_else(|| wrong("write a text, a number, or true or false"))
        };
        let list = || value.as_array().ok_or_else(|| wrong("write a list, such as [\"one\", \"two\"]"));
        match setting.spec.form {
            Form::Words => list()?.iter().map(|value| text(value).map(OsString::from)).collect(),
            Form::Paths => list()?.iter().map(|value| text(value).map(|path| self.resolve(&path))).collect(),
            Form::Path => Ok(vec![self.resolve(&text(value)?)]),
            Form::Folders => {
                let folders = value.as_table().ok_or_else(|| wrong("write a table of names and folders"))?;
                let both = |name: &str, root: &str| {
                    let mut both = OsString::from(format!("{name}="));
                    both.push(self.resolve(root));
                    both
                };
                folders.iter().map(|(name, root)| text(root).map(|root| both(name, &root))).collect()
            }
            Form::Word | Form::Switch | Form::WordOr(_) => Ok(vec![text(value)?.into()]),
        }
    }

    /// Returns a path of the file: relative ones start at its folder.
    fn resolve(&self, path: &str) -> OsString {
        self.path.parent().unwrap_or(Path::new("")).join(path).into_os_string()
    }
}

fn scalar(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(is_so) => Some(is_so.to_string()),
        _ => None,
    }
}

impl<V: Fn(&str) -> Option<String>> Layers<V> {
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// Reads a setting, and adds its row. Every layer is read, so that a mistake is found even if another layer overrides it.
    pub fn value<X, T>(
        &self,
        setting: &DeclaredSetting,
        shape: Shape<X, T>,
        rows: &mut Vec<Row>,
    ) -> Outcome<Value<T>> {
        let places = [
            (Origin::Flag, self.flags.texts(setting.name).to_vec()),
            (Origin::Environment, self.variable(setting)),
            (Origin::File, self.file.texts(setting)?),
        ];
        let mut origin = Origin::Default;
        let mut found = Vec::new();
        for (place, texts) in places {
            let read = |text: &OsString| {
                (shape.item.parse)(text).map_err(|why| self.wrong(setting, place, text, &why))
            };
            let items = texts.iter().map(read).collect::<Outcome<Vec<_>>>()?;
            if found.is_empty() && !items.is_empty() {
                (origin, found) = (place, items);
            }
        }
        if found.is_empty() {
            let held = setting.spec.falls_back_to.iter().find_map(|name| (self.var)(name));
            found.extend(held.and_then(|text| (shape.item.parse)(text.as_ref()).ok()));
        }
        let between = if setting.spec.form == Form::Words { "; " } else { ", " };
        let shown = match &*found {
            [] => setting.default.clone(),
            _ if setting.spec.is_secret => "(hidden)".to_owned(),
            items => items.iter().map(shape.item.show).collect::<Vec<_>>().join(between),
        };
        rows.push((setting.name, shown, origin));
        Ok(Value { value: shape.value(found), origin })
    }

    fn variable(&self, setting: &DeclaredSetting) -> Vec<OsString> {
        let Some(text) = (self.var)(&setting.variable) else { return Vec::new() };
        match setting.spec.form {
            Form::Words | Form::Folders => {
                text.split(';').map(str::trim).filter(|one| !one.is_empty()).map(OsString::from).collect()
            }
            Form::Paths => {
                env::split_paths(&text).map(Into::into).filter(|path: &OsString| !path.is_empty()).collect()
            }
            Form::Word | Form::Path | Form::Switch | Form::WordOr(_) => vec![text.into()],
        }
    }

    fn wrong(&self, setting: &DeclaredSetting, place: Origin, text: &OsStr, why: &str) -> CommandError {
        let text = text.display();
        match place {
            Origin::File => in_file(&self.file.path, format!("{}: {why}", setting.name)),
            Origin::Environment => CommandError::bad_input(format!(
                "the variable {} cannot be “{text}” ({why}); correct or unset it",
                setting.variable
            )),
            Origin::Flag | Origin::Default => {
                CommandError::bad_input(format!("--{} cannot be “{text}” ({why})", setting.flag))
            }
        }
    }
}

fn in_file(path: &Path, why: String) -> CommandError {
    CommandError::bad_input(format!("{} cannot be used: {why}; correct or remove it", path.display()))
}
