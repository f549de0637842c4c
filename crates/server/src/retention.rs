//! The retention: the time for which inputs, outputs, logs and events are kept.

use std::{fmt, str::FromStr, time::Duration};

use kiln_api::{JobRetention, RetentionState};
use kiln_store::RetentionRow;
use kiln_types::TimeSpan;

/// The time after which something expires that nothing needs. Written as a duration or `never`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetentionPeriod {
    After(Duration),
    Never,
}

impl RetentionPeriod {
    const fn days(days: u64) -> Self {
        Self::After(Duration::from_secs(days * 24 * 60 * 60))
    }

    /// Returns the age at which things expire, as the time at which they began; both times in Unix milliseconds.
    pub(crate) fn until(self, now_ms: i64) -> Option<i64> {
        match self {
            Self::After(age) => Some(now_ms.saturating_sub(millis(age))),
            Self::Never => None,
        }
    }

    fn since(self, at_ms: i64) -> RetentionState {
        match self {
            Self::After(age) => RetentionState::Until { at_ms: at_ms.saturating_add(millis(age)) },
            Self::Never => RetentionState::UntilDeleted,
        }
    }
}

fn millis(age: Duration) -> i64 {
    i64::try_from(age.as_millis()).unwrap_or(i64::MAX)
}

impl FromStr for RetentionPeriod {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == "never" {
            return Ok(Self::Never);
        }
        let span = text.parse::<TimeSpan>();
        span.map(|span| Self::After(span.into()))
            .map_err(|why| format!("{why}; 0 means at once, and never is possible, too"))
    }
}

impl fmt::Display for RetentionPeriod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Never => f.write_str("never"),
            Self::After(age) => TimeSpan::from_secs(age.as_secs()).fmt(f),
        }
    }
}

/// The retention periods of a server. Nothing expires that a job, an upload or a promise needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// The files of a job, after the end of the last job that shares them; those of no job, after they arrived.
    pub bundles: RetentionPeriod,
    /// The frames of a job, after they were all fetched; never before.
    pub outputs: RetentionPeriod,
    /// Intermediate files, after the output that uses them is committed, or after the end of the job without it.
    pub intermediates: RetentionPeriod,
    /// The output of Blender, after the end of the job.
    pub logs: RetentionPeriod,
    pub events: RetentionPeriod,
    /// Unfinished uploads, after their last bytes.
    pub uploads: RetentionPeriod,
    /// Bytes of which a client was told that they are here, and which nothing needs since.
    pub promises: RetentionPeriod,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            bundles: RetentionPeriod::days(7),
            outputs: RetentionPeriod::days(30),
            intermediates: RetentionPeriod::days(1),
            logs: RetentionPeriod::days(90),
            events: RetentionPeriod::days(30),
            uploads: RetentionPeriod::days(7),
            promises: RetentionPeriod::days(1),
        }
    }
}

/// Returns the times until which a job's files are kept; without a retention, as long as the server runs.
pub(crate) fn job_retention(
    retention: Option<&Retention>,
    row: &RetentionRow,
    ended_ms: Option<i64>,
) -> JobRetention {
    let after = |period: fn(&Retention) -> RetentionPeriod| {
        let period = retention.map_or(RetentionPeriod::Never, period);
        match (ended_ms, row.archived_ms) {
            (None, _) => RetentionState::WhileOpen,
            (Some(_), Some(at_ms)) => RetentionState::Until { at_ms },
            (Some(ended_ms), None) => period.since(ended_ms),
        }
    };
    let inputs = match row.inputs_gone_ms {
        Some(at_ms) => RetentionState::Gone { at_ms },
        None => after(|retention| retention.bundles),
    };
    let logs = match row.logs_gone_ms.filter(|gone| ended_ms.is_some_and(|ended| *gone >= ended)) {
        Some(at_ms) => RetentionState::Gone { at_ms },
        None => after(|retention| retention.logs),
    };
    let fetched = row.last_seq > 0 && row.fetched_seq >= row.last_seq;
    let outputs = match (ended_ms, row.fetched_ms, row.outputs_gone_ms) {
        (_, _, Some(at_ms)) if row.outputs_gone_seq >= row.last_seq => RetentionState::Gone { at_ms },
        (None, ..) => RetentionState::WhileOpen,
        _ if row.archived_ms.is_some() => RetentionState::UntilDeleted,
        (Some(ended), Some(at_ms), _) if fetched => {
            retention.map_or(RetentionPeriod::Never, |retention| retention.outputs).since(at_ms.max(ended))
        }
        _ => RetentionState::UntilFetched,
    };
    JobRetention { archived_ms: row.archived_ms, fetched, inputs, outputs, logs }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_a_duration_or_never() {
        for (text, want, back) in [
            ("7d", RetentionPeriod::days(7), "7d"),
            ("36h", RetentionPeriod::After(Duration::from_secs(36 * 3600)), "1d 12h"),
            ("0", RetentionPeriod::After(Duration::ZERO), "0s"),
            (" never", RetentionPeriod::Never, "never"),
        ] {
            assert_eq!(text.parse(), Ok(want), "{text}");
            assert_eq!(want.to_string(), back);
            assert_eq!(back.parse(), Ok(want), "{back}");
        }
        for bad in ["", "7", "-1d", "7 years", "Never"] {
            let error = bad.parse::<RetentionPeriod>().unwrap_err();
            assert!(error.contains("never is possible"), "{bad}: {error}");
        }
    }

    #[test]
    fn the_retention_of_a_job_follows_its_state() {
        let day = 86_400_000;
        let retention = Retention::default();
        let fresh = RetentionRow { last_seq: 9, ..RetentionRow::default() };
        let kept = |row: &RetentionRow, ended_ms| job_retention(Some(&retention), row, ended_ms);
        let open = kept(&fresh, None);
        assert_eq!(
            (open.inputs, open.outputs, open.logs),
            (RetentionState::WhileOpen, RetentionState::WhileOpen, RetentionState::WhileOpen)
        );
        let ended = kept(&fresh, Some(0));
        assert_eq!(ended.inputs, RetentionState::Until { at_ms: 7 * day });
        assert_eq!(ended.logs, RetentionState::Until { at_ms: 90 * day });
        assert_eq!((ended.outputs, ended.fetched), (RetentionState::UntilFetched, false));
        let half = RetentionRow { fetched_seq: 8, fetched_ms: Some(day), ..fresh };
        assert_eq!(kept(&half, Some(0)).outputs, RetentionState::UntilFetched);
        let fetched = RetentionRow { fetched_seq: 9, ..half };
        assert_eq!(kept(&fetched, Some(0)).outputs, RetentionState::Until { at_ms: 31 * day });
        assert_eq!(job_retention(None, &fetched, Some(0)).outputs, RetentionState::UntilDeleted);
        let archived = kept(&RetentionRow { archived_ms: Some(5), ..fetched }, Some(0));
        assert_eq!(
            (archived.outputs, archived.inputs),
            (RetentionState::UntilDeleted, RetentionState::Until { at_ms: 5 })
        );
        let gone =
            RetentionRow { outputs_gone_seq: 9, outputs_gone_ms: Some(7), logs_gone_ms: Some(7), ..fetched };
        let removed = kept(&gone, Some(0));
        assert_eq!(
            (removed.outputs, removed.logs),
            (RetentionState::Gone { at_ms: 7 }, RetentionState::Gone { at_ms: 7 })
        );
        let rendered_again = kept(&RetentionRow { last_seq: 12, ..gone }, Some(8));
        assert_eq!(
            (rendered_again.outputs, rendered_again.logs),
            (RetentionState::UntilFetched, RetentionState::Until { at_ms: 90 * day + 8 })
        );
    }
}
