//! The constants that tune the scheduler, each with its reason. What a farm may set is in [`crate::Config`].

/// Tasks that one turn dispatches, about. Nothing of a turn is sent before all of it is on disk, so a turn must end
/// soon; if there is more to do, queues are filled in the next one.
pub(crate) const DISPATCHES_PER_TURN: usize = 512;

/// Steps, workers or tasks that one decision looks at. Among these, one can nearly always be served; without a bound,
/// a worker on which everything fails would make each decision walk all that it has failed.
pub(crate) const CANDIDATES: usize = 256;

/// Milliseconds of fair share by which another account may be ahead before a slot leaves the scene that it has open.
/// About what opening a large scene costs.
pub(crate) const RELOAD_MS: u64 = 20_000;

/// One part in this many of the time goes to lower priorities, so that none starves.
pub(crate) const LOWER_PRIORITY_PART: u64 = 20;

/// Uploads of one slot that may be under way before it gets nothing new: it should catch up first.
pub(crate) const MAX_DELIVERING: usize = 16;

pub(crate) mod estimate {
    use std::ops::RangeInclusive;

    /// Milliseconds that a frame is taken to last where none was measured.
    pub const UNMEASURED_MS: u64 = 10_000;
    /// Frames from which on a worker's speed says more than what one of its slots has measured.
    pub const TRUSTED_FRAMES: u32 = 2;
    /// The part of a worker's known speed that the next frame changes, once there are many. Frames differ more than a
    /// machine does from hour to hour, so this is little.
    pub const SPEED_STEP: f32 = 0.05;
    /// The least progress from which the end of an attempt is predicted.
    pub const LEAST_PROGRESS: f32 = 0.1;
    /// Speeds beyond these come from the frames, not from the worker.
    pub const SPEEDS: RangeInclusive<f32> = 0.02..=50.0;
    /// Frames of a step from which on a worker's speed is learned from them.
    pub const KNOWN_FRAMES: u32 = 3;
    /// The latest frames, of which the median is known.
    pub const LATEST: usize = 16;
    /// Pieces of the curve along an animation.
    pub const PIECES: usize = 512;
}

pub(crate) mod speculation {
    /// Milliseconds between two looks at the ends of steps while nothing changes.
    pub const LOOK_EVERY_MS: u64 = 500;
    /// Milliseconds between two looks at least...
    pub const AT_MOST_EVERY_MS: u64 = 20;
    /// ...and one more for this many attempts: the cost of a look grows with them.
    pub const ATTEMPTS_PER_MS: u64 = 50;
    /// Vacant workers that are compared at least, to see which would end a late frame sooner.
    pub const CANDIDATES: usize = 64;
    /// Attempts of one task that are stopped for another one. As long as the speeds of workers are not known, each looks
    /// faster than the one that runs, and a frame that is always begun again never ends.
    pub const MAX_REPLACED: u8 = 3;
    /// A second attempt must end earlier than the first by this part of its own time...
    pub const GAIN_PART: u64 = 10;
    /// ...and by this many milliseconds.
    pub const GAIN_MS: u64 = 500;
}

pub(crate) mod quarantine {
    /// Failures without a delivery between them that show that a worker is the origin, and the number of tasks that they
    /// must be of: one task that fails again and again may be the origin itself.
    pub const FAILURES: usize = 3;
    pub const TASKS: usize = 2;
    /// Milliseconds within which two losses of a worker count together.
    pub const LOSSES_WITHIN_MS: u64 = 30 * 60_000;
    /// Milliseconds until a quarantined worker is first probed, and at most.
    pub const FIRST_PROBE_MS: u64 = 60_000;
    pub const LAST_PROBE_MS: u64 = 30 * 60_000;
    /// Incidents kept of one worker.
    pub const INCIDENTS: usize = 16;
}

pub(crate) mod common_failure {
    /// Tasks of a step that must have failed alike. A single task that fails is not a common failure.
    pub const TASKS: usize = 3;
    /// Attempts in all, also where the step has only two tasks.
    pub const ATTEMPTS: usize = 3;
    /// Workers on which they failed, if that many would take them.
    pub const WORKERS: usize = 2;
    /// Groups of failures alike that are kept.
    pub const GROUPS: usize = 16;
}

pub(crate) mod cooldown {
    /// Milliseconds of the first cooldown of a worker, and of the longest: it doubles.
    pub const FIRST_MS: u64 = 500;
    pub const LAST_MS: u64 = 30_000;
    /// Milliseconds after its end for which a cooldown is remembered, so that the next one is longer.
    pub const REMEMBERED_MS: u64 = 60_000;
}

pub(crate) mod time_limit {
    /// A frame is shown as slow when it takes this many times the median of the step's latest frames...
    pub const SLOW_TIMES: f32 = 10.0;
    /// ...and at least this many milliseconds.
    pub const SLOW_MS: u64 = 60_000;
    /// Frames from which on the median is compared with.
    pub const SLOW_FRAMES: usize = 5;
    /// Milliseconds for which no attempt is ended of a worker whose message waits to be read.
    pub const POSTPONED_MS: u64 = 1_000;
}
