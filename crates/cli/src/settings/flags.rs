//! The flags of settings, made from the table.

use std::ffi::{OsStr, OsString};

use clap::{
    Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, ValueHint,
    builder::{OsStringValueParser, TypedValueParser as _},
};

use super::{
    layers::Flags,
    setting::{DeclaredSetting, Form, Group},
    table::table,
};

pub type DataArgs = SettingArgs<{ Group::Global as u8 }>;
pub type FarmArgs = SettingArgs<{ Group::Farm as u8 }>;
pub type RenderHereArgs = SettingArgs<{ Group::Render as u8 }>;
pub type ServerRenderArgs = SettingArgs<{ Group::ServerRender as u8 }>;
pub type WorkerSettingArgs = SettingArgs<{ Group::Worker as u8 }>;
pub type BlenderArgs = SettingArgs<{ Group::Blender as u8 }>;
pub type ListenArgs = SettingArgs<{ Group::Server as u8 }>;
pub type RetentionArgs = SettingArgs<{ Group::Retention as u8 }>;
pub type AvailabilityArgs = SettingArgs<{ Group::Availability as u8 }>;
pub type DeviceArgs = SettingArgs<{ Group::Device as u8 }>;
pub type SharedArgs = SettingArgs<{ Group::Shared as u8 }>;
pub type AccountArgs = SettingArgs<{ Group::Account as u8 }>;

/// The flags of a [`Group`] that a command line sets.
#[derive(Debug, Clone, Default)]
pub struct SettingArgs<const GROUP: u8>(Flags);

impl<const GROUP: u8> SettingArgs<GROUP> {
    pub fn flags(&self) -> &Flags {
        &self.0
    }

    /// Returns the text of a flag.
    pub fn text(&self, name: &str) -> Option<&OsStr> {
        self.0.texts(name).first().map(OsString::as_os_str)
    }

    /// Returns the settings of the group.
    fn settings() -> impl Iterator<Item = (&'static DeclaredSetting, Group)> {
        let of_group = |setting: &'static DeclaredSetting| {
            let group = setting.spec.groups.iter().find(|group| **group as u8 == GROUP)?;
            Some((setting, *group))
        };
        table().iter().filter_map(of_group)
    }
}

impl<const GROUP: u8> Args for SettingArgs<GROUP> {
    fn augment_args(command: Command) -> Command {
        Self::settings().fold(command, |command, (setting, group)| command.arg(argument(setting, group)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<const GROUP: u8> FromArgMatches for SettingArgs<GROUP> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Flags::default();
        for (setting, _) in Self::settings() {
            let texts = match setting.spec.form {
                Form::Switch if matches.get_flag(setting.name) => vec!["true".into()],
                Form::Switch => Vec::new(),
                _ => matches.get_many::<OsString>(setting.name).into_iter().flatten().cloned().collect(),
            };
            flags.insert(setting.name, texts);
        }
        Ok(Self(flags))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn argument(setting: &'static DeclaredSetting, group: Group) -> Arg {
    let (spec, check) = (&setting.spec, setting.check);
    let mut argument = Arg::new(setting.name)
        .long(setting.flag.as_str())
        .help(setting.help.as_str())
        .long_help(setting.long_help.as_str())
        .help_heading(group.heading())
        .hide_short_help(spec.is_rare)
        .global(group == Group::Global);
    if let Some(other) = spec.excludes {
        argument = argument.conflicts_with(other);
    }
    if group == Group::ServerRender {
        argument = argument.requires("worker").help_heading("This machine, with --worker");
    }
    if spec.form == Form::Switch {
        return argument.action(ArgAction::SetTrue);
    }
    let checked = OsStringValueParser::new().try_map(move |text: OsString| check(&text).map(|()| text));
    let argument = argument.value_name(spec.value_name).value_parser(checked);
    match spec.form {
        Form::Word | Form::Switch => argument,
        Form::Path => argument.value_hint(ValueHint::AnyPath),
        Form::Words | Form::Folders => argument.action(ArgAction::Append),
        Form::Paths => argument.action(ArgAction::Append).value_hint(ValueHint::AnyPath),
        Form::WordOr(alone) => argument.num_args(0..=1).require_equals(true).default_missing_value(alone),
    }
}
