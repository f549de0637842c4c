//! `kiln jobs`.

use std::{num::NonZeroU32, path::PathBuf};

use clap::{Args, Subcommand};
use kiln_client::Existing;
use kiln_types::{AttemptId, FrameSet, JobId, JobState, Owner, Priority, Project};

use super::{At, FarmArgs, Jobs, OrNone};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(
    after_long_help = "Examples:\n  kiln jobs\n  kiln jobs --state queued,running,paused --user ana\n  kiln jobs show 7\n  kiln jobs wait 7\n  kiln jobs retry 7\n  \
    kiln jobs rerender 7 --frames 20-30\n  kiln jobs logs 7 --frame 12\n  kiln jobs archive 3 4 5"
)]
pub struct JobsArgs {
    #[command(subcommand)]
    pub command: Option<JobsCommand>,
    #[command(flatten)]
    pub list: ListArgs,
    #[command(flatten)]
    pub farm: FarmArgs,
}

#[derive(Debug, Clone, Args)]
pub struct ListArgs {
    /// The number of jobs to list, newest first.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,
    /// Only jobs in these states, separated by commas.
    ///
    /// The states are queued, running, paused, completed, failed and cancelled.
    #[arg(long, value_name = "STATE[,STATE]", value_delimiter = ',')]
    pub state: Vec<JobState>,
    /// Only jobs of this user.
    #[arg(long, value_name = "NAME")]
    pub user: Option<Owner>,
    /// Only jobs of this project.
    #[arg(long, value_name = "NAME")]
    pub project: Option<Project>,
    /// Only jobs that are archived.
    #[arg(long, conflicts_with = "all")]
    pub archived: bool,
    /// List archived jobs too.
    #[arg(long)]
    pub all: bool,
}

/// Numbers of jobs and the farm they are in.
#[derive(Debug, Args)]
pub struct SomeJobs {
    /// The jobs' numbers, as `kiln jobs` prints them.
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<JobId>,
    #[command(flatten)]
    pub farm: FarmArgs,
}

/// A job's number and the farm it is in.
#[derive(Debug, Args)]
pub struct OneJob {
    /// The job's number, as `kiln jobs` prints it.
    pub id: JobId,
    #[command(flatten)]
    pub farm: FarmArgs,
}

#[derive(Debug, Subcommand)]
pub enum JobsCommand {
    /// List the newest jobs.
    #[command(
        after_long_help = "Examples:\n  kiln jobs list --limit 100\n  kiln jobs list --state running\n  \
        kiln jobs list --state queued,running,paused --user ana\n  kiln jobs list --state failed --project advert --all"
    )]
    List {
        #[command(flatten)]
        list: ListArgs,
        #[command(flatten)]
        farm: FarmArgs,
    },
    /// Show the settings, frames and notices of a job, and the reason why it waits.
    Show(OneJob),
    /// Explain why a job waits, and when it will be done.
    #[command(after_long_help = "Examples:\n  kiln jobs explain 7\n  kiln jobs explain 7 --json")]
    Explain(OneJob),
    /// List the attempts that failed, with frame, worker and reason.
    #[command(after_long_help = "Examples:\n  kiln jobs failures 7\n  kiln jobs failures 7 --json")]
    Failures(OneJob),
    /// Attach to a job until it ends, and exit with its code.
    #[command(after_long_help = "Examples:\n  kiln jobs wait 7\n  kiln jobs wait 7 && notify-send done")]
    Wait(FetchArgs),
    /// End a job; what is rendered stays.
    Cancel(OneJob),
    /// Start no further frames of a job; frames that render are finished.
    #[command(visible_alias = "hold")]
    Pause(OneJob),
    /// Continue a paused job.
    #[command(visible_alias = "release")]
    Resume(OneJob),
    /// Change the scheduling options of a job.
    Set(SetArgs),
    /// Try the failed frames of a job again.
    Retry(OneJob),
    /// Render frames that are done again.
    #[command(
        after_long_help = "Examples:\n  kiln jobs rerender 7\n  kiln jobs rerender 7 --frames 20-30\n  kiln jobs rerender 7 --bake"
    )]
    Rerender {
        /// The frames to render again [default: all].
        #[arg(long, short, value_name = "RANGE", allow_hyphen_values = true)]
        frames: Option<FrameSet>,
        /// Bake the simulations again, and then render every frame.
        #[arg(long, conflicts_with = "frames")]
        bake: bool,
        #[command(flatten)]
        job: OneJob,
    },
    /// Add frames to a job.
    #[command(after_long_help = "Example:\n  kiln jobs extend 7 --frames 251-300")]
    Extend {
        /// The frames to add.
        #[arg(long, short, value_name = "RANGE", allow_hyphen_values = true)]
        frames: FrameSet,
        #[command(flatten)]
        job: OneJob,
    },
    /// Print the output of Blender for an attempt at a frame.
    Logs(LogsArgs),
    /// Download the frames of a job; continues an interrupted download.
    #[command(
        after_long_help = "Without --out the frames go to the folder that was chosen when this machine submitted the \
        job, or else to the current folder.\n\nExamples:\n  kiln jobs fetch 7\n  kiln jobs fetch 7 --out ~/frames"
    )]
    Fetch(FetchArgs),
    /// Hide jobs that have ended from the list; their frames stay.
    #[command(
        after_long_help = "The next collection removes their input files and logs; after that they cannot be rendered again.\n\n\
        Examples:\n  kiln jobs archive 7\n  kiln jobs archive 3 4 5\n  kiln jobs --archived"
    )]
    Archive(SomeJobs),
    /// Show archived jobs in the list again.
    #[command(
        after_long_help = "Input files and logs that were removed meanwhile do not come back.\n\nExample:\n  kiln jobs unarchive 7"
    )]
    Unarchive(SomeJobs),
    /// Delete jobs that have ended, and their frames on the server.
    #[command(after_long_help = "Frames that were fetched stay where they are.\n\n\
        Examples:\n  kiln jobs delete 7\n  kiln jobs delete 3 4 5 --force")]
    Delete {
        /// Cancel jobs that have not ended, then delete them.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        jobs: SomeJobs,
    },
}

#[derive(Debug, Args)]
#[command(
    after_long_help = "Examples:\n  kiln jobs set 7 --priority 90\n  kiln jobs set 7 --max-workers none\n  \
    kiln jobs set 7 --after 5,6 --at 22:00\n  kiln jobs set 7 --after none --at now"
)]
#[command(override_usage = "kiln jobs set [OPTIONS] <ID>")]
#[group(required = true, multiple = true, id = "what", args = ["priority", "max_workers", "after", "at"])]
pub struct SetArgs {
    /// From 0 to 100; higher is earlier.
    #[arg(long, value_name = "N")]
    pub priority: Option<Priority>,
    /// Workers that the job may use at once, or `none` for all.
    #[arg(long, value_name = "N|none")]
    pub max_workers: Option<OrNone<NonZeroU32>>,
    /// The jobs that must be completed before it starts, or `none`.
    #[arg(long, value_name = "JOB[,JOB]|none")]
    pub after: Option<Jobs>,
    /// Start at 22:00 (the next), 2026-12-24 or 2026-12-24T18:00, or `now`.
    #[arg(long, value_name = "TIME|now")]
    pub at: Option<At>,
    #[command(flatten)]
    pub job: OneJob,
}

#[derive(Debug, Args)]
pub struct FetchArgs {
    /// The folder for the frames.
    #[arg(long, short, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// The treatment of existing files: replace, skip, overwrite or error.
    ///
    /// Without it, only frames of an earlier save of the job's .blend are replaced.
    #[arg(long, value_name = "CHOICE")]
    pub existing: Option<Existing>,
    #[command(flatten)]
    pub job: OneJob,
}

#[derive(Debug, Args)]
#[command(
    after_long_help = "Without an option, Kiln prints the log of the last failed attempt; if there is none, of one that \
    runs; or else of the last one.\n\n\
    Examples:\n  kiln jobs logs 7\n  kiln jobs logs 7 --frame 12\n  kiln jobs logs 7 --attempt 1-31"
)]
pub struct LogsArgs {
    /// Print the log of the last attempt at this frame.
    #[arg(long, value_name = "N", allow_hyphen_values = true, conflicts_with = "attempt")]
    pub frame: Option<i32>,
    /// Print the log of this attempt, as `kiln jobs show --json` names it.
    #[arg(long, value_name = "ID")]
    pub attempt: Option<AttemptId>,
    #[command(flatten)]
    pub job: OneJob,
}
