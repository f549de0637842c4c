//! What a worker gives to the farm, and when.

use std::{path::Path, str::FromStr, time::Duration};

use kiln_worker::{Sleep, WhenUsed, Wishes, WorkerOptions, Yields};

use super::{File, Origin, Value, checked, in_file, optional, parsed, pick};
use crate::{
    args::WishArgs,
    exit::{Fault, Outcome},
    size::ByteSize,
};

/// Characters of a tag.
const MAX_TAG: usize = 60;

/// A time as people write it: `5m`, `90s`, `1h 30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let span = text.parse::<jiff::SignedDuration>().ok().and_then(|span| Duration::try_from(span).ok());
        span.map(Self).ok_or_else(|| "write a time such as 5m, 90s or 1h30m".to_owned())
    }
}

impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#}", jiff::SignedDuration::try_from(self.0).unwrap_or(jiff::SignedDuration::MAX))
    }
}

#[derive(Debug, Clone)]
pub struct WishSettings {
    pub cores: Value<Option<u32>>,
    pub memory: Value<Option<ByteSize>>,
    pub nice: Value<Option<u16>>,
    pub tags: Value<Vec<String>>,
    pub sleep: Value<Vec<Sleep>>,
    pub yields: Value<Yields>,
    pub yield_idle: Value<Span>,
    pub yield_load: Value<Option<f64>>,
    pub when_used: Value<WhenUsed>,
    pub wake: Value<bool>,
}

impl WishSettings {
    /// `path` is the file's.
    ///
    /// # Errors
    /// Where a variable or the file says what cannot be.
    pub(super) fn resolve(
        args: WishArgs,
        file: &mut File,
        path: &Path,
        var: &impl Fn(&str) -> Option<String>,
    ) -> Outcome<Self> {
        fn of<T>(found: Option<Value<T>>, default: T) -> Value<T> {
            found.unwrap_or(Value { value: default, origin: Origin::Default })
        }
        fn given<T>(list: Vec<T>) -> Option<Vec<T>> {
            Some(list).filter(|list| !list.is_empty())
        }
        let bad = |name: &str| {
            let name = name.to_owned();
            move |why: String| in_file(path, format!("{name}: {why}"))
        };
        let memory = file.memory.take().map(|text| text.parse()).transpose().map_err(bad("memory"))?;
        let idle = file.yield_idle.take().map(|text| text.parse()).transpose().map_err(bad("yield_idle"))?;
        let settings = Self {
            cores: optional(pick(args.cores, parsed(var, "KILN_CORES")?, file.cores)),
            memory: optional(pick(args.memory, parsed(var, "KILN_MEMORY")?, memory)),
            nice: checked(optional(pick(args.nice, parsed(var, "KILN_NICE")?, file.nice)), 0..=19, "nice")?,
            tags: of(pick(given(args.tag), listed(var, "KILN_TAG")?, file.tag.take()), Vec::new()),
            sleep: of(pick(given(args.sleep), listed(var, "KILN_SLEEP")?, file.sleep.take()), Vec::new()),
            yields: of(pick(args.yields, parsed(var, "KILN_YIELD")?, file.yields), Yields::Auto),
            yield_idle: of(pick(args.yield_idle, parsed(var, "KILN_YIELD_IDLE")?, idle), Span(Wishes::IDLE)),
            yield_load: optional(pick(args.yield_load, parsed(var, "KILN_YIELD_LOAD")?, file.yield_load)),
            when_used: of(
                pick(args.when_used, parsed(var, "KILN_WHEN_USED")?, file.when_used),
                WhenUsed::Finish,
            ),
            wake: of(pick(args.wake.then_some(true), parsed(var, "KILN_WAKE")?, file.wake), false),
        };
        let wrong = |name: &str, must: &str, origin| {
            Err(Fault::bad_input(format!("{name} in the {origin} cannot be: {must}")))
        };
        if settings.cores.value == Some(0) {
            return wrong("cores", "give the farm one at least", settings.cores.origin);
        }
        if settings.yield_load.value.is_some_and(|load| !load.is_finite() || load <= 0.0) {
            return wrong("yield_load", "it is a number of cores, such as 1.5", settings.yield_load.origin);
        }
        let is_tag = |tag: &String| {
            (1..=MAX_TAG).contains(&tag.chars().count())
                && tag.trim() == tag
                && !tag.contains(char::is_control)
        };
        if !settings.tags.value.iter().all(is_tag) {
            return wrong("tag", "it is a name of 1 to 60 letters", settings.tags.origin);
        }
        Ok(settings)
    }

    /// What any worker on this machine keeps to, also one that renders for the person who waits for it.
    pub fn limit(&self, options: &mut WorkerOptions) {
        options.cores = self.cores.value;
        options.memory = self.memory.value.map(|memory| memory.0);
        options.nice = self.nice.value.and_then(|nice| u8::try_from(nice).ok()).unwrap_or(0);
    }

    /// And one that serves the farm.
    pub fn serve(&self, options: &mut WorkerOptions) {
        options.tags.clone_from(&self.tags.value);
        options.wakes = self.wake.value;
        options.wishes = Wishes {
            sleep: self.sleep.value.clone(),
            yields: self.yields.value,
            idle: self.yield_idle.value.0,
            load: self.yield_load.value,
            when_used: self.when_used.value,
        };
    }

    pub(super) fn rows(&self) -> Vec<(&'static str, String, Origin)> {
        fn row<T: ToString>(name: &'static str, value: &Value<T>) -> (&'static str, String, Origin) {
            (name, value.value.to_string(), value.origin)
        }
        fn maybe<T: ToString>(
            name: &'static str,
            value: &Value<Option<T>>,
            absent: &str,
        ) -> (&'static str, String, Origin) {
            (name, value.value.as_ref().map_or_else(|| absent.to_owned(), T::to_string), value.origin)
        }
        fn list<T: ToString>(name: &'static str, value: &Value<Vec<T>>) -> (&'static str, String, Origin) {
            let all: Vec<String> = value.value.iter().map(T::to_string).collect();
            (name, if all.is_empty() { "(none)".to_owned() } else { all.join("; ") }, value.origin)
        }
        vec![
            maybe("cores", &self.cores, "(all)"),
            maybe("memory", &self.memory, "(all)"),
            maybe("nice", &self.nice, "0"),
            list("tag", &self.tags),
            list("sleep", &self.sleep),
            row("yield", &self.yields),
            row("yield_idle", &self.yield_idle),
            maybe("yield_load", &self.yield_load, "(half of the machine's cores)"),
            row("when_used", &self.when_used),
            row("wake", &self.wake),
        ]
    }
}

/// A variable with several values.
fn listed<T: FromStr>(var: impl Fn(&str) -> Option<String>, name: &str) -> Outcome<Option<Vec<T>>>
where
    T::Err: std::fmt::Display,
{
    let Some(text) = var(name) else { return Ok(None) };
    let all = text.split(';').map(str::trim).filter(|one| !one.is_empty());
    let all: Vec<T> = all
        .map(|one| parsed(|_| Some(one.to_owned()), name))
        .filter_map(Outcome::transpose)
        .collect::<Outcome<_>>()?;
    Ok(Some(all).filter(|all| !all.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::{super::tests::resolve, *};
    use crate::settings::Flags;

    #[test]
    fn wishes_come_from_everywhere() {
        let toml = "sleep = [\"22:00-08:00\", \"sat,sun\"]\nyield = \"no\"\nmemory = \"16G\"\nwake = true\nnice = 5\n";
        let vars = [("KILN_TAG", "attic; fast"), ("KILN_YIELD_IDLE", "90s")];
        let wishes = WishArgs { yields: Some(Yields::Yes), ..WishArgs::default() };
        let settings = resolve(Flags { wishes, ..Flags::default() }, &vars, toml).unwrap().wishes;
        assert_eq!(settings.yields, Value { value: Yields::Yes, origin: Origin::Flag });
        assert_eq!(settings.tags.value, ["attic", "fast"]);
        assert_eq!(settings.yield_idle.value, Span(Duration::from_secs(90)));
        let mut options = WorkerOptions::new("", "", "");
        settings.limit(&mut options);
        settings.serve(&mut options);
        assert_eq!((options.memory, options.nice, options.wakes), (Some(16 << 30), 5, true));
        assert_eq!(options.wishes.sleep.len(), 2);
        let shown: Vec<String> =
            settings.rows().into_iter().map(|(name, value, _)| format!("{name} {value}")).collect();
        assert!(shown.contains(&"sleep 22:00-08:00; sat,sun 00:00-24:00".to_owned()), "{shown:?}");
        assert!(shown.contains(&"yield_idle 1m 30s".to_owned()), "{shown:?}");
    }

    #[test]
    fn a_wish_that_cannot_be_is_named_with_its_place() {
        let error =
            |vars: &[(&str, &str)], toml: &str| resolve(Flags::default(), vars, toml).unwrap_err().message;
        assert!(error(&[("KILN_SLEEP", "22:00-08:00; later")], "").contains("“later”"));
        assert!(error(&[], "sleep = [\"22-08\"]").contains("22:00-08:00"));
        assert!(error(&[], "yield = \"maybe\"").contains("auto, yes, no"));
        assert!(error(&[("KILN_YIELD_IDLE", "-5m")], "").contains("KILN_YIELD_IDLE"));
        assert!(error(&[], "yield_load = -1.0").contains("yield_load"));
        assert!(error(&[], "nice = 20").contains("between 0 and 19"));
        assert!(error(&[("KILN_TAG", "a\u{7}b")], "").contains("tag"));
        assert!(error(&[], "cores = 0").contains("cores"));
    }
}
