//! Settings, resolved once: flags over `KILN_*` over `kiln.toml` over the defaults. Each knows where it came from.

mod wishes;

use std::{
    collections::BTreeMap,
    env, fmt, fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use kiln_server::{Expires, Retention};
use kiln_types::DeviceChoice;
use kiln_worker::{Sleep, WhenUsed, Yields};
use serde::{Deserialize, Serialize};

pub use wishes::{Span, WishSettings};

use crate::{
    args::{FarmArgs, GlobalArgs, JobArgs, KeepArgs, WishArgs},
    exit::{Fault, Outcome},
    shared::{self, Shared},
    size::ByteSize,
};

const DEFAULT_CACHE: ByteSize = ByteSize(kiln_worker::DEFAULT_CACHE_BYTES);

const BUNDLES: &str = "remove_bundles_after";
const OUTPUTS: &str = "remove_outputs_after";
const LOGS: &str = "remove_logs_after";
const EVENTS: &str = "remove_events_after";
const UPLOADS: &str = "remove_uploads_after";
const PROMISED: &str = "remove_promised_after";

/// Where a value was found.
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

/// `kiln.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    data: Option<PathBuf>,
    server: Option<String>,
    key: Option<String>,
    key_file: Option<PathBuf>,
    listen: Option<SocketAddr>,
    name: Option<String>,
    slots: Option<u16>,
    threads: Option<u16>,
    blender: Option<Vec<PathBuf>>,
    cache_size: Option<String>,
    hash_cache: Option<bool>,
    blender_newer: Option<bool>,
    remove_bundles_after: Option<String>,
    remove_outputs_after: Option<String>,
    remove_logs_after: Option<String>,
    remove_events_after: Option<String>,
    remove_uploads_after: Option<String>,
    remove_promised_after: Option<String>,
    shared: Option<BTreeMap<String, PathBuf>>,
    cores: Option<u32>,
    memory: Option<String>,
    nice: Option<u16>,
    tag: Option<Vec<String>>,
    sleep: Option<Vec<Sleep>>,
    #[serde(rename = "yield")]
    yields: Option<Yields>,
    yield_idle: Option<String>,
    yield_load: Option<f64>,
    when_used: Option<WhenUsed>,
    wake: Option<bool>,
    user: Option<String>,
    project: Option<String>,
    device: Option<DeviceChoice>,
}

/// What the flags of a command say.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    pub data: Option<PathBuf>,
    pub server: Option<String>,
    pub key: Option<String>,
    pub key_file: Option<PathBuf>,
    pub listen: Option<SocketAddr>,
    pub name: Option<String>,
    pub slots: Option<u16>,
    pub threads: Option<u16>,
    pub blender: Vec<PathBuf>,
    pub cache_size: Option<ByteSize>,
    pub keep: KeepArgs,
    pub shared: Vec<Shared>,
    pub wishes: WishArgs,
    pub user: Option<String>,
    pub project: Option<String>,
    pub device: Option<DeviceChoice>,
}

impl Flags {
    pub fn new(global: &GlobalArgs, farm: &FarmArgs) -> Self {
        Self {
            data: global.data.clone(),
            server: farm.server.clone(),
            key: farm.key.clone(),
            key_file: farm.key_file.clone(),
            ..Self::default()
        }
    }

    /// What the flags of one that is submitted say.
    pub fn of_job(&mut self, job: &JobArgs) {
        self.shared.clone_from(&job.shared);
        self.user.clone_from(&job.order.user);
        self.project.clone_from(&job.order.project);
        self.device = job.device;
    }
}

/// Every setting of this run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The `kiln.toml` that is read, whether it is there or not.
    pub file: PathBuf,
    pub data: Value<PathBuf>,
    pub cache: PathBuf,
    pub server: Value<Option<String>>,
    pub key: Value<Option<String>>,
    pub key_file: Value<Option<PathBuf>>,
    pub listen: Value<SocketAddr>,
    pub name: Value<Option<String>>,
    pub slots: Value<Option<u16>>,
    pub threads: Value<Option<u16>>,
    pub blender: Value<Vec<PathBuf>>,
    pub cache_size: Value<ByteSize>,
    /// Whether hashes of files are kept from one submission to the next.
    pub hash_cache: Value<bool>,
    /// Whether a newer Blender may render a file without being asked, where the file's own is not there.
    pub blender_newer: Value<bool>,
    pub remove_bundles_after: Value<Expires>,
    pub remove_outputs_after: Value<Expires>,
    pub remove_logs_after: Value<Expires>,
    pub remove_events_after: Value<Expires>,
    pub remove_uploads_after: Value<Expires>,
    pub remove_promised_after: Value<Expires>,
    /// Folders that this machine shares with others of the farm.
    pub shared: Value<BTreeMap<String, PathBuf>>,
    pub wishes: WishSettings,
    /// Whose jobs are that are made here, and what for.
    pub user: Value<Option<String>>,
    pub project: Value<Option<String>>,
    /// On what jobs render that are made here.
    pub device: Value<DeviceChoice>,
}

impl Settings {
    /// # Errors
    /// Where a variable or `kiln.toml` says what cannot be.
    pub fn resolve(flags: Flags) -> Outcome<Self> {
        Self::resolve_from(flags, |name| env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn resolve_from(flags: Flags, var: impl Fn(&str) -> Option<String>) -> Outcome<Self> {
        let dirs = directories::ProjectDirs::from("", "", "kiln");
        let home = || {
            Fault::bad_input(
                "there is no home folder to keep data in; name a folder with --data or KILN_DATA",
            )
        };
        let path = match var("KILN_CONFIG") {
            Some(path) => PathBuf::from(path),
            None => dirs.as_ref().map(|dirs| dirs.config_dir().join("kiln.toml")).unwrap_or_default(),
        };
        let mut file = read(&path)?;
        let wishes = WishSettings::resolve(flags.wishes, &mut file, &path, &var)?;
        // A relative path in the file is meant from where the file lies.
        let beside = |value: PathBuf| path.parent().unwrap_or(Path::new("")).join(value);

        let data = pick(flags.data, parsed(&var, "KILN_DATA")?, file.data.map(beside));
        let data = match data {
            Some(found) => found,
            None => {
                let dirs = dirs.as_ref().ok_or_else(home)?;
                Value { value: dirs.data_dir().to_owned(), origin: Origin::Default }
            }
        };
        let data = Value { value: absolute(data.value), origin: data.origin };
        let cache = dirs.map_or_else(|| data.value.join("cache"), |dirs| dirs.cache_dir().to_owned());

        let env_blenders =
            var("KILN_BLENDER").map(|text| env::split_paths(&text).map(absolute).collect::<Vec<_>>());
        let flag_blenders: Vec<PathBuf> = flags.blender.into_iter().map(absolute).collect();
        let file_blenders = file.blender.map(|paths| paths.into_iter().map(beside).collect());
        let file_cache = file
            .cache_size
            .map(|text| text.parse().map_err(|why| in_file(&path, format!("cache_size: {why}"))))
            .transpose()?;
        let usual = Retention::default();
        let expires = |name: &str, flag, text: Option<String>, default| -> Outcome<Value<Expires>> {
            let text = text
                .map(|text| text.parse().map_err(|why| in_file(&path, format!("{name}: {why}"))))
                .transpose()?;
            let var = parsed(&var, &format!("KILN_{}", name.to_ascii_uppercase()))?;
            Ok(pick(flag, var, text).unwrap_or(Value { value: default, origin: Origin::Default }))
        };
        let keep = flags.keep;
        Ok(Self {
            wishes,
            remove_bundles_after: expires(
                BUNDLES,
                keep.remove_bundles_after,
                file.remove_bundles_after,
                usual.bundles,
            )?,
            remove_outputs_after: expires(
                OUTPUTS,
                keep.remove_outputs_after,
                file.remove_outputs_after,
                usual.outputs,
            )?,
            remove_logs_after: expires(LOGS, keep.remove_logs_after, file.remove_logs_after, usual.logs)?,
            remove_events_after: expires(
                EVENTS,
                keep.remove_events_after,
                file.remove_events_after,
                usual.events,
            )?,
            remove_uploads_after: expires(
                UPLOADS,
                keep.remove_uploads_after,
                file.remove_uploads_after,
                usual.uploads,
            )?,
            remove_promised_after: expires(
                PROMISED,
                keep.remove_promised_after,
                file.remove_promised_after,
                usual.promises,
            )?,
            server: optional(pick(flags.server, var("KILN_SERVER"), file.server)),
            key: optional(pick(flags.key, var("KILN_KEY"), file.key)),
            key_file: optional(pick(
                flags.key_file,
                parsed(&var, "KILN_KEY_FILE")?,
                file.key_file.map(beside),
            )),
            listen: pick(flags.listen, parsed(&var, "KILN_LISTEN")?, file.listen)
                .unwrap_or(Value { value: kiln_server::DEFAULT_LISTEN, origin: Origin::Default }),
            name: optional(pick(flags.name, var("KILN_NAME"), file.name)),
            slots: checked(
                optional(pick(flags.slots, parsed(&var, "KILN_SLOTS")?, file.slots)),
                1..=256,
                "slots",
            )?,
            threads: checked(
                optional(pick(flags.threads, parsed(&var, "KILN_THREADS")?, file.threads)),
                0..=1024,
                "threads",
            )?,
            blender: pick(Some(flag_blenders).filter(|paths| !paths.is_empty()), env_blenders, file_blenders)
                .unwrap_or(Value { value: Vec::new(), origin: Origin::Default }),
            cache_size: pick(flags.cache_size, parsed(&var, "KILN_CACHE_SIZE")?, file_cache)
                .unwrap_or(Value { value: DEFAULT_CACHE, origin: Origin::Default }),
            shared: pick(
                shared::by_name(flags.shared),
                shared::listed(var("KILN_SHARED"))?,
                file.shared.map(|roots| roots.into_iter().map(|(name, root)| (name, beside(root))).collect()),
            )
            .unwrap_or(Value { value: BTreeMap::new(), origin: Origin::Default }),
            hash_cache: pick(None, parsed(&var, "KILN_HASH_CACHE")?, file.hash_cache)
                .unwrap_or(Value { value: true, origin: Origin::Default }),
            blender_newer: pick(None, parsed(&var, "KILN_BLENDER_NEWER")?, file.blender_newer)
                .unwrap_or(Value { value: false, origin: Origin::Default }),
            user: pick(flags.user, var("KILN_USER"), file.user).map_or_else(
                || Value { value: var("LOGNAME").or_else(|| var("USER")), origin: Origin::Default },
                |Value { value, origin }| Value { value: Some(value), origin },
            ),
            project: optional(pick(flags.project, var("KILN_PROJECT"), file.project)),
            device: pick(flags.device, parsed(&var, "KILN_DEVICE")?, file.device)
                .unwrap_or(Value { value: DeviceChoice::Auto, origin: Origin::Default }),
            file: path,
            data,
            cache,
        })
    }

    /// Name, value and origin of each, as `kiln config` prints them. The key itself is not shown.
    pub fn rows(&self) -> Vec<(&'static str, String, Origin)> {
        fn shown<T: ToString>(value: &Value<Option<T>>, absent: &str) -> (String, Origin) {
            (value.value.as_ref().map_or_else(|| absent.to_owned(), T::to_string), value.origin)
        }
        let path = |value: &Value<Option<PathBuf>>, absent: &str| {
            let text =
                value.value.as_ref().map_or_else(|| absent.to_owned(), |path| path.display().to_string());
            (text, value.origin)
        };
        let blenders: Vec<String> = self.blender.value.iter().map(|p| p.display().to_string()).collect();
        let key = if self.key.value.is_some() { "(hidden)" } else { "(none)" };
        let shared: Vec<String> =
            self.shared.value.iter().map(|(name, root)| format!("{name}={}", root.display())).collect();
        let row = |name, (value, origin)| (name, value, origin);
        let expires = |name, value: &Value<Expires>| (name, value.value.to_string(), value.origin);
        let mut rows = vec![
            ("data", self.data.value.display().to_string(), self.data.origin),
            row("server", shown(&self.server, "(the one on this machine, if there is one)")),
            ("key", key.to_owned(), self.key.origin),
            row("key_file", path(&self.key_file, "(farm.key in the data folder)")),
            ("listen", self.listen.value.to_string(), self.listen.origin),
            row("name", shown(&self.name, "(the machine's)")),
            row("slots", shown(&self.slots, "(Kiln decides)")),
            row("threads", shown(&self.threads, "(Kiln decides)")),
            (
                "blender",
                if blenders.is_empty() { "(those that are found)".to_owned() } else { blenders.join(", ") },
                self.blender.origin,
            ),
            ("cache_size", self.cache_size.value.to_string(), self.cache_size.origin),
            (
                "shared",
                if shared.is_empty() { "(none)".to_owned() } else { shared.join(", ") },
                self.shared.origin,
            ),
            row("user", shown(&self.user, "(the farm)")),
            row("project", shown(&self.project, "default")),
            ("device", self.device.value.to_string(), self.device.origin),
            ("hash_cache", self.hash_cache.value.to_string(), self.hash_cache.origin),
            ("blender_newer", self.blender_newer.value.to_string(), self.blender_newer.origin),
            expires(BUNDLES, &self.remove_bundles_after),
            expires(OUTPUTS, &self.remove_outputs_after),
            expires(LOGS, &self.remove_logs_after),
            expires(EVENTS, &self.remove_events_after),
            expires(UPLOADS, &self.remove_uploads_after),
            expires(PROMISED, &self.remove_promised_after),
        ];
        rows.extend(self.wishes.rows());
        rows
    }

    /// What a server keeps for how long.
    pub fn retention(&self) -> Retention {
        Retention {
            bundles: self.remove_bundles_after.value,
            outputs: self.remove_outputs_after.value,
            logs: self.remove_logs_after.value,
            events: self.remove_events_after.value,
            uploads: self.remove_uploads_after.value,
            promises: self.remove_promised_after.value,
        }
    }
}

fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

fn read(path: &Path) -> Outcome<File> {
    match fs::read_to_string(path) {
        Ok(text) => toml::from_str(&text).map_err(|error| in_file(path, error.message().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(File::default()),
        Err(error) => Err(in_file(path, error.to_string())),
    }
}

fn in_file(path: &Path, why: String) -> Fault {
    Fault::bad_input(format!("{} cannot be used: {why}; correct it or take it away", path.display()))
}

fn pick<T>(flag: Option<T>, var: Option<T>, file: Option<T>) -> Option<Value<T>> {
    flag.map(|value| Value { value, origin: Origin::Flag })
        .or_else(|| var.map(|value| Value { value, origin: Origin::Environment }))
        .or_else(|| file.map(|value| Value { value, origin: Origin::File }))
}

fn optional<T>(found: Option<Value<T>>) -> Value<Option<T>> {
    match found {
        Some(Value { value, origin }) => Value { value: Some(value), origin },
        None => Value { value: None, origin: Origin::Default },
    }
}

fn parsed<T: FromStr>(var: impl Fn(&str) -> Option<String>, name: &str) -> Outcome<Option<T>>
where
    T::Err: fmt::Display,
{
    let Some(text) = var(name) else { return Ok(None) };
    text.parse().map(Some).map_err(|why| {
        Fault::bad_input(format!("the variable {name} cannot be “{text}” ({why}); correct or unset it"))
    })
}

fn checked(
    value: Value<Option<u16>>,
    range: std::ops::RangeInclusive<u16>,
    name: &str,
) -> Outcome<Value<Option<u16>>> {
    match value.value {
        Some(number) if !range.contains(&number) => Err(Fault::bad_input(format!(
            "{name} is {number} in the {}; it must lie between {} and {}",
            value.origin,
            range.start(),
            range.end()
        ))),
        _ => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn resolve(flags: Flags, vars: &[(&str, &str)], toml: &str) -> Outcome<Settings> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kiln.toml");
        fs::write(&path, toml).unwrap();
        let config = path.display().to_string();
        Settings::resolve_from(flags, |name| {
            if name == "KILN_CONFIG" {
                return Some(config.clone());
            }
            vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn flags_go_over_variables_over_the_file_over_defaults() {
        let toml = "slots = 1\nthreads = 1\nserver = \"http://file:1\"\n";
        let vars = [("KILN_SLOTS", "2"), ("KILN_THREADS", "2"), ("KILN_DATA", "/d")];
        let settings = resolve(Flags { slots: Some(3), ..Flags::default() }, &vars, toml).unwrap();
        assert_eq!(settings.slots, Value { value: Some(3), origin: Origin::Flag });
        assert_eq!(settings.threads, Value { value: Some(2), origin: Origin::Environment });
        assert_eq!(settings.server, Value { value: Some("http://file:1".into()), origin: Origin::File });
        assert_eq!(settings.name, Value { value: None, origin: Origin::Default });
        assert_eq!(settings.listen.value, kiln_server::DEFAULT_LISTEN);
    }

    #[test]
    fn what_cannot_be_is_named_with_its_place() {
        let error =
            |vars: &[(&str, &str)], toml: &str| resolve(Flags::default(), vars, toml).unwrap_err().message;
        assert!(error(&[("KILN_SLOTS", "many")], "").contains("KILN_SLOTS"));
        assert!(error(&[("KILN_SLOTS", "0")], "").contains("between 1 and 256"));
        assert!(error(&[], "slts = 1").contains("kiln.toml"));
        assert!(error(&[], "cache_size = \"big\"").contains("cache_size"));
    }

    #[test]
    fn what_goes_when_can_be_said_everywhere() {
        let toml = "remove_logs_after = \"2w\"\nremove_events_after = \"0\"\n";
        let vars = [("KILN_REMOVE_OUTPUTS_AFTER", "never"), ("KILN_REMOVE_EVENTS_AFTER", "36h")];
        let settings = resolve(Flags::default(), &vars, toml).unwrap();
        let usual = Retention::default();
        let want = Retention {
            outputs: Expires::Never,
            logs: "14d".parse().unwrap(),
            events: "36h".parse().unwrap(),
            ..usual
        };
        assert_eq!(settings.retention(), want);
        assert_eq!(settings.remove_events_after.origin, Origin::Environment);
        let error = resolve(Flags::default(), &[], "remove_logs_after = \"soon\"").unwrap_err().message;
        assert!(error.contains("remove_logs_after") && error.contains("never"), "{error}");
    }

    #[test]
    fn the_device_can_be_said_everywhere() {
        let device = |flag, vars: &[(&str, &str)], toml: &str| {
            resolve(Flags { device: flag, ..Flags::default() }, vars, toml).map(|found| found.device)
        };
        let (toml, vars) = ("device = \"cpu\"", [("KILN_DEVICE", "gpu")]);
        let value = |value, origin| Value { value, origin };
        assert_eq!(device(None, &[], "").unwrap(), value(DeviceChoice::Auto, Origin::Default));
        assert_eq!(device(None, &[], toml).unwrap(), value(DeviceChoice::Cpu, Origin::File));
        assert_eq!(device(None, &vars, toml).unwrap(), value(DeviceChoice::Gpu, Origin::Environment));
        let flag = Some(DeviceChoice::Optix);
        assert_eq!(device(flag, &vars, toml).unwrap(), value(DeviceChoice::Optix, Origin::Flag));
        assert!(device(None, &[("KILN_DEVICE", "vulkan")], "").unwrap_err().message.contains("optix"));
    }

    #[test]
    fn the_key_is_not_printed() {
        let settings = resolve(Flags::default(), &[("KILN_KEY", "secret")], "").unwrap();
        assert!(settings.rows().iter().all(|(_, value, _)| !value.contains("secret")));
    }
}
