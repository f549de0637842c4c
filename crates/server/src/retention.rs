//! For how long what nobody needs any more is kept.

use std::{fmt, str::FromStr, time::Duration};

use kiln_api::{JobRetention, Kept};
use kiln_store::KeptRow;
use kiln_types::TimeSpan;

/// When something goes that nothing needs any more. Written as a duration or `never`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expires {
    After(Duration),
    Never,
}

impl Expires {
    const fn days(days: u64) -> Self {
        Self::After(Duration::from_secs(days * 24 * 60 * 60))
    }

    /// What is as old as this may go, at this time; both in Unix milliseconds.
    pub(crate) fn until(self, now_ms: i64) -> Option<i64> {
        match self {
            Self::After(age) => Some(now_ms.saturating_sub(millis(age))),
            Self::Never => None,
        }
    }

    fn from(self, at_ms: i64) -> Kept {
        match self {
            Self::After(age) => Kept::Until { at_ms: at_ms.saturating_add(millis(age)) },
            Self::Never => Kept::UntilDeleted,
        }
    }
}

fn millis(age: Duration) -> i64 {
    i64::try_from(age.as_millis()).unwrap_or(i64::MAX)
}

impl FromStr for Expires {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == "never" {
            return Ok(Self::Never);
        }
        let span = text.parse::<TimeSpan>();
        span.map(|span| Self::After(span.into()))
            .map_err(|why| format!("{why}; 0 is at once, and never is possible too"))
    }
}

impl fmt::Display for Expires {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Never => f.write_str("never"),
            Self::After(age) => TimeSpan::from_secs(age.as_secs()).fmt(f),
        }
    }
}

/// What a server keeps for how long. Nothing goes that a job, an upload or a promise still needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// The files of a job, after the end of the last job that shares them; those that no job was made of, after
    /// they came.
    pub bundles: Expires,
    /// The frames of a job, after they were all fetched; never before.
    pub outputs: Expires,
    /// Intermediate files, after what they were made for is stored, or after the end of the job without it.
    pub intermediates: Expires,
    /// What Blender printed, after the end of the job.
    pub logs: Expires,
    /// What happened at the farm.
    pub events: Expires,
    /// Uploads that nobody went on with.
    pub uploads: Expires,
    /// What somebody was told is there, and has made nothing of.
    pub promises: Expires,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            bundles: Expires::days(7),
            outputs: Expires::days(30),
            intermediates: Expires::days(1),
            logs: Expires::days(90),
            events: Expires::days(30),
            uploads: Expires::days(7),
            promises: Expires::days(1),
        }
    }
}

/// Until when a job's things are kept; without a retention, as long as the server lives.
pub(crate) fn kept(retention: Option<&Retention>, row: &KeptRow, ended_ms: Option<i64>) -> JobRetention {
    let after = |expires: fn(&Retention) -> Expires| {
        let expires = retention.map_or(Expires::Never, expires);
        match (ended_ms, row.archived_ms) {
            (None, _) => Kept::WhileOpen,
            (Some(_), Some(at_ms)) => Kept::Until { at_ms },
            (Some(ended_ms), None) => expires.from(ended_ms),
        }
    };
    let inputs = match row.inputs_gone_ms {
        Some(at_ms) => Kept::Gone { at_ms },
        None => after(|retention| retention.bundles),
    };
    let logs = match row.logs_gone_ms.filter(|gone| ended_ms.is_some_and(|ended| *gone >= ended)) {
        Some(at_ms) => Kept::Gone { at_ms },
        None => after(|retention| retention.logs),
    };
    let fetched = row.last_seq > 0 && row.fetched_seq >= row.last_seq;
    let outputs = match (ended_ms, row.fetched_ms, row.outputs_gone_ms) {
        (_, _, Some(at_ms)) if row.outputs_gone_seq >= row.last_seq => Kept::Gone { at_ms },
        (None, ..) => Kept::WhileOpen,
        _ if row.archived_ms.is_some() => Kept::UntilDeleted,
        (Some(ended), Some(at_ms), _) if fetched => {
            retention.map_or(Expires::Never, |retention| retention.outputs).from(at_ms.max(ended))
        }
        _ => Kept::UntilFetched,
    };
    JobRetention { archived_ms: row.archived_ms, fetched, inputs, outputs, logs }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_duration_or_never() {
        for (text, want, back) in [
            ("7d", Expires::days(7), "7d"),
            ("36h", Expires::After(Duration::from_secs(36 * 3600)), "1d 12h"),
            ("0", Expires::After(Duration::ZERO), "0s"),
            (" never", Expires::Never, "never"),
        ] {
            assert_eq!(text.parse(), Ok(want), "{text}");
            assert_eq!(want.to_string(), back);
            assert_eq!(back.parse(), Ok(want), "{back}");
        }
        for bad in ["", "7", "-1d", "7 years", "Never"] {
            let error = bad.parse::<Expires>().unwrap_err();
            assert!(error.contains("never is possible"), "{bad}: {error}");
        }
    }

    #[test]
    fn what_a_job_keeps_is_told() {
        let day = 86_400_000;
        let retention = Retention::default();
        let fresh = KeptRow { last_seq: 9, ..KeptRow::default() };
        let open = kept(Some(&retention), &fresh, None);
        assert_eq!(
            (open.inputs, open.outputs, open.logs),
            (Kept::WhileOpen, Kept::WhileOpen, Kept::WhileOpen)
        );
        let ended = kept(Some(&retention), &fresh, Some(0));
        assert_eq!(ended.inputs, Kept::Until { at_ms: 7 * day });
        assert_eq!(ended.logs, Kept::Until { at_ms: 90 * day });
        assert_eq!((ended.outputs, ended.fetched), (Kept::UntilFetched, false));
        let half = KeptRow { fetched_seq: 8, fetched_ms: Some(day), ..fresh };
        assert_eq!(kept(Some(&retention), &half, Some(0)).outputs, Kept::UntilFetched);
        let home = KeptRow { fetched_seq: 9, ..half };
        assert_eq!(kept(Some(&retention), &home, Some(0)).outputs, Kept::Until { at_ms: 31 * day });
        assert_eq!(kept(None, &home, Some(0)).outputs, Kept::UntilDeleted);
        let archived = kept(Some(&retention), &KeptRow { archived_ms: Some(5), ..home }, Some(0));
        assert_eq!((archived.outputs, archived.inputs), (Kept::UntilDeleted, Kept::Until { at_ms: 5 }));
        let gone = KeptRow { outputs_gone_seq: 9, outputs_gone_ms: Some(7), logs_gone_ms: Some(7), ..home };
        let told = kept(Some(&retention), &gone, Some(0));
        assert_eq!((told.outputs, told.logs), (Kept::Gone { at_ms: 7 }, Kept::Gone { at_ms: 7 }));
        // Rendered again since.
        let anew = kept(Some(&retention), &KeptRow { last_seq: 12, ..gone }, Some(8));
        assert_eq!((anew.outputs, anew.logs), (Kept::UntilFetched, Kept::Until { at_ms: 90 * day + 8 }));
    }
}
