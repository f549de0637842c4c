//! The table of all settings. A setting is one entry here, and whatever uses its value.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::LazyLock};

use kiln_server::RetentionPeriod;
use kiln_types::{DeviceChoice, Name, Owner, Project, ShortName, TimeSpan};
use kiln_worker::{AvailabilityOptions, OnUnavailable, SleepTime, YieldMode};

use super::{
    Row, Value,
    layers::Layers,
    setting::{
        DeclaredSetting,
        Form::{Folders, Path, Paths, Switch, Word, WordOr, Words},
        Group::{
            Account, Availability, Blender, Device, Farm, Global, Render, Retention, Server, ServerRender,
            Shared, Worker,
        },
        Spec,
    },
    shape::{self, absolute_path, between, item, many, maybe, one, path, plain},
};
use crate::{exit::Outcome, size::ByteSize};

macro_rules! setting {
    ($name:literal, $shape:expr, $spec:expr) => {
        DeclaredSetting::new($name, $spec, &$shape, |text| ($shape.item.parse)(text).map(drop))
    };
}

/// Makes the struct of settings and their table from one list. An entry is
/// `field "name in kiln.toml": type = shape, spec;`.
macro_rules! settings {
    ($($field:ident $name:literal: $type:ty = $shape:expr, $spec:expr;)+) => {
        /// Every setting of this run.
        #[derive(Debug, Clone)]
        pub struct Settings {
            /// The `kiln.toml` that is read, whether it is there or not.
            pub file: PathBuf,
            /// The folder of files that can be made again.
            pub cache: PathBuf,
            $(pub $field: Value<$type>,)+
            pub(super) rows: Vec<Row>,
        }

        impl Settings {
            pub(super) fn read(layers: &Layers<impl Fn(&str) -> Option<String>>) -> Outcome<Self> {
                let mut rows = Vec::new();
                Ok(Self {
                    file: layers.path().to_owned(),
                    cache: PathBuf::new(),
                    $($field: layers.value(&setting!($name, $shape, $spec), $shape, &mut rows)?,)+
                    rows,
                })
            }
        }

        static TABLE: LazyLock<Vec<DeclaredSetting>> = LazyLock::new(|| vec![
            $(setting!($name, $shape, $spec),)+
        ]);
    };
}

/// Returns all settings, in the order in which `kiln config` prints them.
pub fn table() -> &'static [DeclaredSetting] {
    &TABLE
}

fn word(value_name: &'static str, help: &'static str) -> Spec {
    Spec::new(Word, value_name, help)
}

fn retention(help: &'static str) -> Spec {
    word("DURATION|never", help).of(&[Retention]).rare()
}

fn availability(value_name: &'static str, help: &'static str) -> Spec {
    word(value_name, help).of(&[Availability])
}

/// Returns the default data folder; empty if there is no home folder.
fn data_folder() -> PathBuf {
    super::folders().map(|folders| folders.data_dir().to_owned()).unwrap_or_default()
}

settings! {
    data "data": PathBuf = one(absolute_path(), data_folder()),
        Spec {
            default: Some("kiln in the XDG data folder"),
            ..Spec::new(Path, "DIR", "The folder of Kiln's data").of(&[Global]).rare()
        };
    server "server": Option<String> = maybe(plain::<String>(), "the one that runs on this machine"),
        word("URL", "The farm's server").of(&[Farm]);
    key "key": Option<String> = maybe(plain::<String>(), "none"),
        Spec {
            excludes: Some("key_file"),
            is_secret: true,
            ..word("KEY", "The farm's key").details("Other users can see it; a file is safer").of(&[Farm]).rare()
        };
    key_file "key_file": Option<PathBuf> = maybe(path(), "farm.key in the data folder"),
        Spec::new(Path, "FILE", "A file that holds the farm's key").of(&[Farm]);
    listen "listen": SocketAddr = one(plain(), kiln_server::DEFAULT_LISTEN),
        word("ADDRESS:PORT", "The address to listen on").of(&[Server]);
    name "name": Option<Name> = maybe(plain::<Name>(), "the machine's"),
        word("NAME", "The name of this worker in the farm").of(&[Worker]);
    slots "slots": Option<u16> = maybe(item(|text| between(text, 1..=256_u16)), "Kiln decides"),
        word("N", "Blenders that this machine runs side by side").of(&[Worker, Render, ServerRender]).rare();
    threads "threads": Option<u16> = maybe(item(|text| between(text, 0..=1024_u16)), "Kiln decides"),
        word("N", "Threads of each Blender; 0 lets Blender decide").of(&[Worker, ServerRender]).rare();
    blender "blender": Vec<PathBuf> = many(absolute_path(), "those that are found"),
        Spec::new(Paths, "PATH", "Another Blender: the program, or the Python of an environment with `bpy`")
            .of(&[Worker, Render, ServerRender, Blender])
            .rare();
    cache_size "cache_size": ByteSize = one(plain(), ByteSize(kiln_worker::DEFAULT_CACHE_BYTES)),
        word("SIZE", "Disk space for the files of jobs, such as 20G").of(&[Worker]);
    shared "shared": BTreeMap<ShortName, PathBuf> = shape::folders(),
        Spec::new(Folders, "NAME=PATH", "A folder that artists' machines and workers share")
            .details(
                "NAME is its name in the farm, PATH its path on this machine. Files below it are not uploaded: each \
                worker reads them there. Can be repeated",
            )
            .of(&[Worker, Shared])
            .rare();
    user "user": Option<Owner> = maybe(plain::<Owner>(), "the farm"),
        Spec {
            default: Some("your login name"),
            falls_back_to: &["LOGNAME", "USER"],
            ..word("NAME", "The user that the job belongs to").of(&[Account]).rare()
        };
    project "project": Option<Project> = maybe(plain::<Project>(), "default"),
        word("NAME", "The project that the job belongs to").of(&[Account]).rare();
    device "device": DeviceChoice = one(plain(), DeviceChoice::Auto),
        word("DEVICE", "auto, cpu, gpu, optix, cuda, hip, oneapi or metal")
            .details("auto: as the scene says; gpu: the best backend of the worker")
            .of(&[Device]);
    hash_cache "hash_cache": bool = one(plain(), true),
        word("", "Keep the hashes of files from one submission to the next");
    blender_newer "blender_newer": bool = one(plain(), false),
        word("", "Render with a newer Blender without asking, if the file's own series is missing");
    remove_bundles_after "remove_bundles_after": RetentionPeriod = one(plain(), kiln_server::Retention::default().bundles),
        retention("Files of jobs, after the end of the last job that uses them");
    remove_outputs_after "remove_outputs_after": RetentionPeriod = one(plain(), kiln_server::Retention::default().outputs),
        retention("Frames, after all frames of their job were fetched");
    remove_intermediates_after "remove_intermediates_after": RetentionPeriod = one(plain(), kiln_server::Retention::default().intermediates),
        retention("Parts of frames and other intermediate files, after they were used or their job ended");
    remove_logs_after "remove_logs_after": RetentionPeriod = one(plain(), kiln_server::Retention::default().logs),
        retention("Logs, after the end of their job");
    remove_events_after "remove_events_after": RetentionPeriod = one(plain(), kiln_server::Retention::default().events),
        retention("Events of the farm");
    remove_uploads_after "remove_uploads_after": RetentionPeriod = one(plain(), kiln_server::Retention::default().uploads),
        retention("Uploads that are not finished");
    remove_promised_after "remove_promised_after": RetentionPeriod = one(plain(), kiln_server::Retention::default().promises),
        retention("Files that a client reserved or sent, and that no job uses yet");
    cores "cores": Option<u32> = maybe(item(shape::cores), "all"),
        availability("N", "Cores that this machine gives to the farm").details("Fewer cores mean fewer slots, and fewer threads of each Blender");
    memory "memory": Option<ByteSize> = maybe(plain::<ByteSize>(), "all"),
        availability("SIZE", "Memory that this machine gives to the farm, such as 16G");
    nice "nice": u8 = one(item(|text| between(text, 0..=19_u8)), 0),
        availability("N", "The niceness of Blender, from 0 to 19: 19 yields to all other programs").rare();
    tags "tag": Vec<ShortName> = many(plain::<ShortName>(), "none"),
        Spec::new(Words, "NAME", "A tag that jobs may require; can be repeated").of(&[Availability]);
    sleep "sleep": Vec<SleepTime> = many(plain::<SleepTime>(), "none"),
        Spec::new(Words, "TIMES", "Times when this machine takes no work, such as 'mon-fri 09:00-18:00'; can be repeated")
            .details("In local time")
            .of(&[Availability]);
    yields "yield": YieldMode = one(plain(), YieldMode::Auto),
        Spec::new(WordOr("yes"), "WHEN", "Take no work while a person uses the machine: yes, no or auto")
            .details("auto: yes if somebody has a graphical session on it. --yield alone means yes")
            .of(&[Availability]);
    yield_idle "yield_idle": TimeSpan = one(plain(), TimeSpan::from_secs(AvailabilityOptions::IDLE.as_secs())),
        availability("DURATION", "The time without a touch of keyboard and mouse after which the person has left")
            .details("0s: they do not count")
            .rare();
    yield_load "yield_load": Option<f64> = maybe(item(shape::load), "half of the machine's cores"),
        availability("CORES", "Cores that other programs must use before this machine yields to them").rare();
    when_used "when_used": OnUnavailable = one(plain(), OnUnavailable::Finish),
        availability("CHOICE", "What happens to a frame that renders when this machine must yield or sleep: finish or stop")
            .details("`finish` renders it with the lowest priority, `stop` returns it to the farm")
            .rare();
    wake "wake": bool = one(plain(), false),
        Spec::new(Switch, "", "Let the farm wake this machine over the network when it is off and work waits")
            .of(&[Availability])
            .rare();
}
