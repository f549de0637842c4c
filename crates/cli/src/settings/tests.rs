use std::{fs, path::Path};

use clap::Args as _;
use kiln_server::RetentionPeriod;
use kiln_types::{DeviceChoice, TimeSpan};
use kiln_worker::YieldMode;

use super::{
    flags::{AvailabilityArgs, DeviceArgs, FarmArgs, RetentionArgs, WorkerSettingArgs},
    *,
};

fn resolve(flags: Flags, vars: &[(&str, &str)], toml: &str) -> Outcome<Settings> {
    let dir = tempfile::tempdir().unwrap();
    resolve_in(dir.path(), flags, vars, toml)
}

fn resolve_in(folder: &Path, flags: Flags, vars: &[(&str, &str)], toml: &str) -> Outcome<Settings> {
    let path = folder.join("kiln.toml");
    fs::write(&path, toml).unwrap();
    let config = path.display().to_string();
    Settings::resolve_from(flags, |name| {
        if name == "KILN_CONFIG" {
            return Some(config.clone());
        }
        vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    })
}

/// The flags of a command that takes this group.
fn given<A: clap::Args>(words: &[&str]) -> Result<A, String> {
    let command = A::augment_args(clap::Command::new("kiln").no_binary_name(true));
    let matches = command.try_get_matches_from(words).map_err(|error| error.to_string())?;
    Ok(A::from_arg_matches(&matches).unwrap())
}

fn flag(name: &'static str, text: &str) -> Flags {
    let mut flags = Flags::default();
    flags.insert(name, vec![text.into()]);
    flags
}

#[test]
fn flags_go_over_variables_over_the_file_over_defaults() {
    let toml = "slots = 1\nthreads = 1\nserver = \"http://file:1\"\n";
    let vars = [("KILN_SLOTS", "2"), ("KILN_THREADS", "2"), ("KILN_DATA", "/d")];
    let settings = resolve(flag("slots", "3"), &vars, toml).unwrap();
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
    assert!(error(&[], "slts = 1").contains("slts"));
    assert!(error(&[], "cache_size = \"big\"").contains("cache_size"));
    assert!(error(&[], "blender = \"/b\"").contains("list"));
    assert!(error(&[], "shared = [\"/b\"]").contains("table"));
    // Also where another place goes over it.
    let error = resolve(flag("slots", "3"), &[("KILN_SLOTS", "0")], "").unwrap_err().message;
    assert!(error.contains("KILN_SLOTS"), "{error}");
}

#[test]
fn what_goes_when_can_be_said_everywhere() {
    let toml = "remove_logs_after = \"2w\"\nremove_events_after = \"0\"\n";
    let vars = [("KILN_REMOVE_OUTPUTS_AFTER", "never"), ("KILN_REMOVE_EVENTS_AFTER", "36h")];
    let flags = given::<RetentionArgs>(&["--remove-uploads-after", "3d"]).unwrap().flags().clone();
    let settings = resolve(flags, &vars, toml).unwrap();
    let usual = Retention::default();
    let want = Retention {
        outputs: RetentionPeriod::Never,
        logs: "14d".parse().unwrap(),
        events: "36h".parse().unwrap(),
        uploads: "3d".parse().unwrap(),
        ..usual
    };
    assert_eq!(settings.retention(), want);
    assert_eq!(settings.remove_events_after.origin, Origin::Environment);
    let error = resolve(Flags::default(), &[], "remove_logs_after = \"soon\"").unwrap_err().message;
    assert!(error.contains("remove_logs_after") && error.contains("never"), "{error}");
}

#[test]
fn the_device_can_be_said_everywhere() {
    let device = |flag: Option<&str>, vars: &[(&str, &str)], toml: &str| {
        let words: Vec<&str> = flag.into_iter().flat_map(|device| ["--device", device]).collect();
        resolve(given::<DeviceArgs>(&words).unwrap().flags().clone(), vars, toml).map(|found| found.device)
    };
    let (toml, vars) = ("device = \"cpu\"", [("KILN_DEVICE", "gpu")]);
    let value = |value, origin| Value { value, origin };
    assert_eq!(device(None, &[], "").unwrap(), value(DeviceChoice::Auto, Origin::Default));
    assert_eq!(device(None, &[], toml).unwrap(), value(DeviceChoice::Cpu, Origin::File));
    assert_eq!(device(None, &vars, toml).unwrap(), value(DeviceChoice::Gpu, Origin::Environment));
    assert_eq!(device(Some("optix"), &vars, toml).unwrap(), value(DeviceChoice::Optix, Origin::Flag));
    assert!(device(None, &[("KILN_DEVICE", "vulkan")], "").unwrap_err().message.contains("optix"));
}

#[test]
fn the_key_is_not_printed() {
    let settings = resolve(Flags::default(), &[("KILN_KEY", "secret")], "").unwrap();
    assert!(settings.rows().iter().all(|(_, value, _)| !value.contains("secret")));
    assert!(settings.rows().iter().any(|(name, value, _)| *name == "key" && value == "(hidden)"));
}

#[test]
fn paths_in_the_file_are_meant_from_where_it_lies() {
    let dir = tempfile::tempdir().unwrap();
    let toml = "data = \"d\"\nkey_file = \"k\"\nblender = [\"b\", \"/opt/b\"]\nshared = { studio = \"s\" }\n";
    let settings = resolve_in(dir.path(), Flags::default(), &[], toml).unwrap();
    let at = |name: &str| dir.path().join(name);
    assert_eq!(settings.data.value, at("d"));
    assert_eq!(settings.key_file.value, Some(at("k")));
    assert_eq!(settings.blender.value, [at("b"), "/opt/b".into()]);
    assert_eq!(settings.shared.value, [("studio".parse().unwrap(), at("s"))].into());
    let vars = [("KILN_SHARED", "a=/x; b=/y;"), ("KILN_BLENDER", "/one:/two")];
    let settings = resolve_in(dir.path(), Flags::default(), &vars, toml).unwrap();
    assert_eq!(settings.shared.value.len(), 2);
    assert_eq!(settings.blender.value, [Path::new("/one"), Path::new("/two")]);
    // A variable that names none leaves it to the file.
    let settings = resolve_in(dir.path(), Flags::default(), &[("KILN_SHARED", " ")], toml).unwrap();
    assert_eq!(settings.shared.origin, Origin::File);
}

#[test]
fn availability_is_read_from_every_layer() {
    let toml = "sleep = [\"22:00-08:00\", \"sat,sun\"]\nyield = \"no\"\nmemory = \"16G\"\nwake = true\nnice = 5\nyield_load = 2.5\n";
    let vars = [("KILN_TAG", "attic; fast"), ("KILN_YIELD_IDLE", "90s")];
    let settings =
        resolve(Flags::default().and(&given::<AvailabilityArgs>(&["--yield"]).unwrap()), &vars, toml)
            .unwrap();
    assert_eq!(settings.yields, Value { value: YieldMode::Yes, origin: Origin::Flag });
    assert_eq!(settings.tags.value, ["attic", "fast"]);
    assert_eq!(settings.yield_idle.value, TimeSpan::from_secs(90));
    let mut options = WorkerOptions::new("", "", "");
    settings.limit(&mut options);
    settings.serve(&mut options);
    assert_eq!((options.memory, options.nice, options.wakes), (Some(16 << 30), 5, true));
    assert_eq!((options.availability.sleep.len(), options.availability.load), (2, Some(2.5)));
    let shown: Vec<String> =
        settings.rows().iter().map(|(name, value, _)| format!("{name} {value}")).collect();
    assert!(shown.contains(&"sleep 22:00-08:00; sat,sun 00:00-24:00".to_owned()), "{shown:?}");
    assert!(shown.contains(&"yield_idle 1m 30s".to_owned()), "{shown:?}");
    assert!(shown.contains(&"cores (all)".to_owned()), "{shown:?}");
}

#[test]
fn a_wrong_value_is_named_with_its_layer() {
    let error =
        |vars: &[(&str, &str)], toml: &str| resolve(Flags::default(), vars, toml).unwrap_err().message;
    assert!(error(&[("KILN_SLEEP", "22:00-08:00; later")], "").contains("“later”"));
    assert!(error(&[], "sleep = [\"22-08\"]").contains("22:00-08:00"));
    assert!(error(&[], "yield = \"maybe\"").contains("auto, yes, no"));
    assert!(error(&[("KILN_YIELD_IDLE", "-5m")], "").contains("KILN_YIELD_IDLE"));
    assert!(error(&[], "yield_load = -1.0").contains("yield_load"));
    assert!(error(&[], "nice = 20").contains("between 0 and 19"));
    assert!(error(&[("KILN_TAG", "a\u{7}b")], "").contains("control characters"));
    assert!(error(&[], "cores = 0").contains("cores"));
}

#[test]
fn flags_take_what_the_table_says() {
    let flags = given::<AvailabilityArgs>(&["--wake", "--tag", "a", "--tag", "b", "--yield=no"]).unwrap();
    let settings = resolve(flags.flags().clone(), &[("KILN_WAKE", "false")], "").unwrap();
    assert_eq!(settings.wake, Value { value: true, origin: Origin::Flag });
    assert_eq!(settings.tags.value, ["a", "b"]);
    assert_eq!(settings.yields.value, YieldMode::No);
    assert!(AvailabilityArgs::default().flags().is_empty() && !flags.flags().is_empty());
    let error = given::<WorkerSettingArgs>(&["--slots", "0"]).unwrap_err();
    assert!(error.contains("--slots <N>") && error.contains("between 1 and 256"), "{error}");
    assert!(given::<FarmArgs>(&["--key", "k", "--key-file", "f"]).unwrap_err().contains("--key-file"));
    assert!(given::<FarmArgs>(&["--slots", "1"]).is_err(), "it is no flag of this group");
    assert!(FarmArgs::default().text("key").is_none());
}

/// Help must state the defaults that hold.
#[test]
fn help_tells_variable_and_default() {
    let command = WorkerSettingArgs::augment_args(clap::Command::new("kiln"));
    let help =
        command.clone().render_long_help().to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    for said in ["[env: KILN_CACHE_SIZE] [default: 20 GiB]", "[env: KILN_SLOTS] [default: Kiln decides]"] {
        assert!(help.contains(said), "{said} is not in {help}");
    }
    let settings = resolve(Flags::default(), &[], "").unwrap();
    for setting in table() {
        let row = settings.rows().iter().find(|(name, ..)| *name == setting.name).unwrap();
        assert_eq!(row.2, Origin::Default, "{}", setting.name);
        if setting.name != "data" {
            assert_eq!(row.1, setting.default, "{}", setting.name);
        }
    }
}

/// A name that two settings share would be read twice from one place.
#[test]
fn no_two_settings_share_a_name() {
    let mut names: Vec<&str> = table().iter().map(|setting| setting.name).collect();
    names.sort_unstable();
    let all = names.len();
    names.dedup();
    assert_eq!(names.len(), all);
}
