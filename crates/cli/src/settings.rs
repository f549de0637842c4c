//! The settings, resolved once: flags override `KILN_*`, which override `kiln.toml`, which overrides the defaults. All are in
//! one table (`settings/table.rs`, decision 026).

pub mod flags;
mod layers;
mod setting;
mod shape;
mod table;

use std::{env, fmt, path::PathBuf};

use kiln_server::Retention;
use kiln_worker::{AvailabilityOptions, WorkerOptions};
use serde::Serialize;

pub use layers::Flags;
pub use setting::Form;
pub use table::{Settings, table};

use crate::exit::{CommandError, Outcome};
use layers::{File, Layers};

/// The origin of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    Flag,
    Environment,
    File,
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flag => "flag",
            Self::Environment => "environment",
            Self::File => "kiln.toml",
            Self::Default => "default",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value<T> {
    pub value: T,
    pub origin: Origin,
}

/// Name, value and origin of a setting, as `kiln config` prints them.
pub type Row = (&'static str, String, Origin);

impl Settings {
    pub fn resolve(flags: Flags) -> Outcome<Self> {
        Self::resolve_from(flags, |name| env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn resolve_from(flags: Flags, var: impl Fn(&str) -> Option<String>) -> Outcome<Self> {
        let folders = folders();
        let path = match var("KILN_CONFIG") {
            Some(path) => PathBuf::from(path),
            None => {
                folders.as_ref().map(|folders| folders.config_dir().join("kiln.toml")).unwrap_or_default()
            }
        };
        let file = File::read(&path)?;
        let mut settings = Self::read(&Layers { flags, var, file })?;
        if settings.data.value.as_os_str().is_empty() {
            return Err(CommandError::bad_input(
                "there is no home folder to keep data in; name a folder with --data or KILN_DATA",
            ));
        }
        settings.cache = match folders {
            Some(folders) => folders.cache_dir().to_owned(),
            None => settings.data.value.join("cache"),
        };
        Ok(settings)
    }

    /// Resolves these variables and no others, without a `kiln.toml`.
    #[cfg(test)]
    pub fn of_variables(variables: &[(&str, &str)]) -> Outcome<Self> {
        let of =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Self::resolve_from(Flags::default(), |name| match name {
            "KILN_CONFIG" => Some("/dev/null".to_owned()),
            _ => of(name),
        })
    }

    /// Returns every setting for `kiln config`, which hides the key.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Returns the retention times of a server.
    pub fn retention(&self) -> Retention {
        Retention {
            bundles: self.remove_bundles_after.value,
            outputs: self.remove_outputs_after.value,
            intermediates: self.remove_intermediates_after.value,
            logs: self.remove_logs_after.value,
            events: self.remove_events_after.value,
            uploads: self.remove_uploads_after.value,
            promises: self.remove_promised_after.value,
        }
    }

    /// Applies the limits of every worker on this machine, including that of `kiln render`.
    pub fn limit(&self, options: &mut WorkerOptions) {
        options.cores = self.cores.value;
        options.memory = self.memory.value.map(|memory| memory.0);
        options.nice = self.nice.value;
    }

    /// Applies the settings of a worker that serves the farm.
    pub fn serve(&self, options: &mut WorkerOptions) {
        options.tags.clone_from(&self.tags.value);
        options.wakes = self.wake.value;
        options.availability = AvailabilityOptions {
            sleep: self.sleep.value.clone(),
            yields: self.yields.value,
            idle: self.yield_idle.value.into(),
            load: self.yield_load.value,
            on_unavailable: self.when_used.value,
        };
    }
}

/// Returns the folders of Kiln's files, if there is a home folder.
fn folders() -> Option<directories::ProjectDirs> {
    directories::ProjectDirs::from("", "", "kiln")
}

#[cfg(test)]
mod tests;
