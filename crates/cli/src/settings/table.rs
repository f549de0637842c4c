//! The table of all settings. A setting is one entry here, and whatever uses its value.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::LazyLock};

use kiln_server::{Expires, Retention};
use kiln_types::DeviceChoice;
use kiln_worker::{Sleep, WhenUsed, Wishes, Yields};

use super::{
    Row, Value,
    layers::Layers,
    setting::{
        Form::{Folders, Path, Paths, Switch, Word, WordOr, Words},
        Group::{self, Account, Blender, Farm, Global, Job, Keep, Render, Server, ServerRender, Worker},
        Setting, Spec,
    },
    shape::{self, Span, absolute_path, between, item, many, maybe, one, path, plain},
};
use crate::{exit::Outcome, size::ByteSize};

macro_rules! setting {
    ($name:literal, $shape:expr, $spec:expr) => {
        Setting::new($name, $spec, &$shape, |text| ($shape.item.parse)(text).map(drop))
    };
}

/// Makes the settings' struct, and the table of their names, flags and help, of one list. An entry is
/// `field "name in kiln.toml": type = shape, spec;`.
macro_rules! settings {
    ($($field:ident $name:literal: $type:ty = $shape:expr, $spec:expr;)+) => {
        /// Every setting of this run.
        #[derive(Debug, Clone)]
        pub struct Settings {
            /// The `kiln.toml` that is read, whether it is there or not.
            pub file: PathBuf,
            /// The folder of what can be made again.
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

        static TABLE: LazyLock<Vec<Setting>> = LazyLock::new(|| vec![
            $(setting!($name, $shape, $spec),)+
        ]);
    };
}

/// All settings, in the order in which `kiln config` prints them.
pub fn table() -> &'static [Setting] {
    &TABLE
}

fn word(value_name: &'static str, help: &'static str) -> Spec {
    Spec::new(Word, value_name, help)
}

/// When something is removed.
fn keep(help: &'static str) -> Spec {
    Spec { is_rare: true, ..word("TIME", help).of(&[Keep]) }
}

/// What the farm gets of a machine.
const WISHES: &[Group] = &[Group::Wishes];

/// Nothing where there is no home folder.
fn data_folder() -> PathBuf {
    super::folders().map(|folders| folders.data_dir().to_owned()).unwrap_or_default()
}

settings! {
    data "data": PathBuf = one(absolute_path(), data_folder()),
        Spec {
            default: Some("kiln in the XDG data folder"),
            ..Spec::new(Path, "DIR", "Where Kiln keeps its data").of(&[Global])
        };
    server "server": Option<String> = maybe(plain::<String>(), "the one that runs on this machine"),
        word("URL", "The farm's server").of(&[Farm]);
    key "key": Option<String> = maybe(plain::<String>(), "none"),
        Spec {
            excludes: Some("key_file"),
            is_rare: true,
            is_secret: true,
            ..word("KEY", "The farm's key; better in a file, where other users cannot see it").of(&[Farm])
        };
    key_file "key_file": Option<PathBuf> = maybe(path(), "farm.key in the data folder"),
        Spec::new(Path, "FILE", "A file that holds the farm's key").of(&[Farm]);
    listen "listen": SocketAddr = one(plain(), kiln_server::DEFAULT_LISTEN),
        word("ADDRESS:PORT", "The address to listen on").of(&[Server]);
    name "name": Option<String> = maybe(plain::<String>(), "the machine's"),
        word("NAME", "The name in the farm").of(&[Worker]);
    slots "slots": Option<u16> = maybe(item(|text| between(text, 1..=256_u16)), "Kiln decides"),
        word("N", "Blenders that this machine runs side by side").of(&[Worker, Render, ServerRender]);
    threads "threads": Option<u16> = maybe(item(|text| between(text, 0..=1024_u16)), "Kiln decides"),
        word("N", "Threads that each Blender uses; 0 lets Blender decide").of(&[Worker, ServerRender]);
    blender "blender": Vec<PathBuf> = many(absolute_path(), "those that are found"),
        Spec::new(Paths, "PATH", "One more Blender: the program, or the Python of an environment with `bpy`")
            .of(&[Worker, Render, ServerRender, Blender]);
    cache_size "cache_size": ByteSize = one(plain(), ByteSize(kiln_worker::DEFAULT_CACHE_BYTES)),
        word("SIZE", "How much of the disk jobs' files may take, such as 20G").of(&[Worker]);
    shared "shared": BTreeMap<String, PathBuf> = shape::folders(),
        Spec::new(
            Folders,
            "NAME=PATH",
            "A folder that artists' machines and workers reach, by its name in the farm and its path on this machine: \
            files of jobs below it are not sent, but read where they are",
        )
        .of(&[Worker, Job]);
    user "user": Option<String> = maybe(plain::<String>(), "the farm"),
        Spec {
            default: Some("your login name"),
            falls_back_to: &["LOGNAME", "USER"],
            ..word("NAME", "Whose job it is").of(&[Account])
        };
    project "project": Option<String> = maybe(plain::<String>(), "default"),
        word("NAME", "What it is made for").of(&[Account]);
    device "device": DeviceChoice = one(plain(), DeviceChoice::Auto),
        word(
            "DEVICE",
            "auto, cpu, gpu, optix, cuda, hip, oneapi or metal. auto is what the scene says; gpu is the best that is there",
        )
        .of(&[Job]);
    hash_cache "hash_cache": bool = one(plain(), true),
        word("", "Whether hashes of files are kept from one submission to the next");
    blender_newer "blender_newer": bool = one(plain(), false),
        word("", "Whether a newer Blender may render a file without being asked, where the file's own is not there");
    remove_bundles_after "remove_bundles_after": Expires = one(plain(), Retention::default().bundles),
        keep("The files of a job, after the last job with them has ended");
    remove_outputs_after "remove_outputs_after": Expires = one(plain(), Retention::default().outputs),
        keep("Frames, after all of a job's were fetched");
    remove_logs_after "remove_logs_after": Expires = one(plain(), Retention::default().logs),
        keep("Logs, after the job has ended");
    remove_events_after "remove_events_after": Expires = one(plain(), Retention::default().events),
        keep("What happened at the farm");
    remove_uploads_after "remove_uploads_after": Expires = one(plain(), Retention::default().uploads),
        keep("Uploads that nobody goes on with");
    remove_promised_after "remove_promised_after": Expires = one(plain(), Retention::default().promises),
        keep("What a client asked for, or sent, and made no job of; a client that takes longer sends it again");
    cores "cores": Option<u32> = maybe(item(shape::cores), "all"),
        word("N", "Cores that it gives to the farm: fewer slots, and fewer threads of each Blender").of(WISHES);
    memory "memory": Option<ByteSize> = maybe(plain::<ByteSize>(), "all"),
        word("SIZE", "Memory that it gives to the farm, such as 16G").of(WISHES);
    nice "nice": u8 = one(item(|text| between(text, 0..=19_u8)), 0),
        word("N", "How far its Blenders stand back for other programs, from 0 to 19").of(WISHES);
    tags "tag": Vec<String> = many(item(shape::tag), "none"),
        Spec::new(Words, "NAME", "A name that jobs may ask for; give it again for more").of(WISHES);
    sleep "sleep": Vec<Sleep> = many(plain::<Sleep>(), "none"),
        Spec::new(
            Words,
            "TIMES",
            "Times at which it takes no work, such as `22:00-08:00` or `mon-fri 09:00-18:00`, by this machine's clock; \
            give it again for more",
        )
        .of(WISHES);
    yields "yield": Yields = one(plain(), Yields::Auto),
        Spec::new(
            WordOr("yes"),
            "WHEN",
            "Takes no work while a person uses the machine: `yes`, `no`, or `auto`, which does so where somebody has a \
            graphical session on it; `--yield` alone means yes",
        )
        .of(WISHES);
    yield_idle "yield_idle": Span = one(plain(), Span(Wishes::IDLE)),
        word("TIME", "Nobody is there who has touched nothing for so long; 0s: hands do not count").of(WISHES);
    yield_load "yield_load": Option<f64> = maybe(item(shape::load), "half of the machine's cores"),
        word("CORES", "Cores that other programs must keep busy for it to yield").of(WISHES);
    when_used "when_used": WhenUsed = one(plain(), WhenUsed::Finish),
        word(
            "WHAT",
            "What becomes of a frame that renders when the machine is used, or it is time to sleep: `finish` it, behind \
            all other programs, or `stop` and hand it back",
        )
        .of(WISHES);
    wake "wake": bool = one(plain(), false),
        Spec::new(Switch, "", "Lets the farm wake this machine over the network when it is off and work waits for it")
            .of(WISHES);
}
