//! Every operation on a task in every state: the legal ones do what the table says, the others are a broken invariant.

use std::panic::{AssertUnwindSafe, catch_unwind};

use kiln_types::{AttemptId, Epoch, Generation, JobId, Order, StepIndex, TaskIndex};

use super::w;
use crate::{
    BrokenInvariant, IndexSet,
    ids::StepRef,
    state::{TaskPlace, Tasks},
};

const TASK: TaskIndex = TaskIndex(3);
const FIRST: AttemptId = AttemptId { epoch: Epoch(1), counter: 1 };
const SECOND: AttemptId = AttemptId { epoch: Epoch(1), counter: 2 };
const OTHER: AttemptId = AttemptId { epoch: Epoch(1), counter: 3 };

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    /// Waiting, with a mishap.
    Retry,
    Live,
    LiveTwice,
    Done,
    Failed,
    Cancelled,
    Blocked,
    /// Streaming, with its frames there.
    Streaming,
    /// Streaming, and blocked without its attempt.
    StreamingBlocked,
}

use State::{Blocked, Cancelled, Done, Failed, Live, LiveTwice, Retry, Streaming, StreamingBlocked, Waiting};

const STATES: [State; 10] =
    [Waiting, Retry, Live, LiveTwice, Done, Failed, Cancelled, Blocked, Streaming, StreamingBlocked];

/// A step of five tasks, of which the one is in this state.
fn tasks_in(state: State) -> Tasks {
    let mut tasks = Tasks::new(StepRef { job: JobId(7), step: StepIndex(2) }, Order::Coarse, 5);
    match state {
        Waiting => {}
        Retry => tasks.update_history(TASK, |history| history.note_loss(OTHER, w(1))),
        Live => tasks.dispatch(TASK, FIRST),
        LiveTwice => {
            tasks.dispatch(TASK, FIRST);
            tasks.speculate(TASK, SECOND);
        }
        Done => drop(tasks.finish(TASK)),
        Failed => drop(tasks.fail(TASK)),
        Cancelled => drop(tasks.cancel_waiting()),
        Blocked => tasks.block(&[TASK].into_iter().collect()),
        Streaming => tasks.stream(TASK, FIRST),
        StreamingBlocked => {
            tasks.block(&[TASK].into_iter().collect());
            tasks.stream(TASK, FIRST);
        }
    }
    tasks.check(|_| false);
    tasks
}

fn state_of(tasks: &Tasks) -> State {
    match tasks.place(TASK).unwrap() {
        TaskPlace::Waiting if tasks.retries().any(|task| task == TASK) => Retry,
        TaskPlace::Waiting => Waiting,
        TaskPlace::Live(_) if tasks.second_attempt(TASK).is_some() => LiveTwice,
        TaskPlace::Live(_) => Live,
        TaskPlace::Done => Done,
        TaskPlace::Failed => Failed,
        TaskPlace::Cancelled => Cancelled,
        TaskPlace::Blocked => Blocked,
        TaskPlace::Streaming(_) if tasks.streaming().with_frames().next().is_some() => Streaming,
        TaskPlace::Streaming(_) => StreamingBlocked,
    }
}

type Operation = (&'static str, fn(&mut Tasks), [Option<State>; 10]);

/// The state in which each operation leaves a task of each of [`STATES`]; `None`: it is a broken invariant.
const TABLE: [Operation; 19] = [
    (
        "dispatch",
        |t| t.dispatch(TASK, OTHER),
        [Some(Live), Some(Live), None, None, None, None, None, None, None, None],
    ),
    (
        "speculate",
        |t| t.speculate(TASK, OTHER),
        [None, None, Some(LiveTwice), None, None, None, None, None, None, None],
    ),
    (
        "begin",
        |t| {
            t.set_begun(TASK, FIRST, true);
            t.set_begun(TASK, FIRST, false);
        },
        [None, None, Some(Live), Some(LiveTwice), None, None, None, None, None, None],
    ),
    (
        "stream",
        |t| t.stream(TASK, OTHER),
        [Some(Streaming), Some(Streaming), None, None, None, None, None, Some(StreamingBlocked), None, None],
    ),
    (
        "place what streams",
        |t| t.place_stream(TASK),
        [None, None, None, None, None, None, None, None, Some(Live), None],
    ),
    (
        "stream again",
        |t| t.stream_again(TASK),
        [None, None, Some(Streaming), None, None, None, None, None, None, None],
    ),
    (
        "close the first",
        |t| t.close(TASK, FIRST),
        [None, None, Some(Waiting), Some(Live), None, None, None, None, Some(Waiting), Some(Blocked)],
    ),
    (
        "close the second",
        |t| t.close(TASK, SECOND),
        [None, None, None, Some(Live), None, None, None, None, None, None],
    ),
    ("close another", |t| t.close(TASK, OTHER), [None, None, None, None, None, None, None, None, None, None]),
    (
        "finish",
        |t| drop(t.finish(TASK)),
        [Some(Done), Some(Done), None, None, None, None, None, None, None, None],
    ),
    (
        "fail",
        |t| drop(t.fail(TASK)),
        [Some(Failed), Some(Failed), None, None, None, None, None, Some(Failed), None, None],
    ),
    (
        "cancel what waits",
        |t| {
            t.cancel_waiting();
            t.forget_histories();
        },
        [
            Some(Cancelled),
            Some(Cancelled),
            Some(Live),
            Some(LiveTwice),
            Some(Done),
            Some(Failed),
            Some(Cancelled),
            Some(Cancelled),
            Some(Streaming),
            Some(StreamingBlocked),
        ],
    ),
    (
        "reset what ended",
        |t| drop(t.reset_ended(&IndexSet::first(5))),
        [
            Some(Waiting),
            Some(Retry),
            Some(Live),
            Some(LiveTwice),
            Some(Done),
            Some(Waiting),
            Some(Waiting),
            Some(Blocked),
            Some(Streaming),
            Some(StreamingBlocked),
        ],
    ),
    (
        "reset what is done",
        |t| drop(t.reset_done(&IndexSet::first(5))),
        [
            Some(Waiting),
            Some(Retry),
            Some(Live),
            Some(LiveTwice),
            Some(Waiting),
            Some(Failed),
            Some(Cancelled),
            Some(Blocked),
            Some(Streaming),
            Some(StreamingBlocked),
        ],
    ),
    (
        "outdate, this one begun",
        |t| drop(t.outdate(&IndexSet::first(5), &[TASK].into_iter().collect())),
        [Some(Waiting), Some(Waiting), None, None, None, None, None, None, None, None],
    ),
    (
        "outdate, none begun",
        |t| drop(t.outdate(&IndexSet::first(5), &IndexSet::default())),
        [
            Some(Waiting),
            Some(Retry),
            Some(Live),
            Some(LiveTwice),
            Some(Waiting),
            Some(Failed),
            Some(Cancelled),
            Some(Blocked),
            Some(Streaming),
            Some(StreamingBlocked),
        ],
    ),
    (
        "go wrong",
        |t| t.update_history(TASK, |history| history.note_loss(FIRST, w(2))),
        [
            Some(Retry),
            Some(Retry),
            Some(Live),
            Some(LiveTwice),
            None,
            None,
            None,
            Some(Blocked),
            Some(Streaming),
            Some(StreamingBlocked),
        ],
    ),
    (
        "block",
        |t| t.block(&IndexSet::first(5)),
        [
            Some(Blocked),
            Some(Blocked),
            Some(Live),
            Some(LiveTwice),
            Some(Done),
            Some(Failed),
            Some(Cancelled),
            Some(Blocked),
            Some(StreamingBlocked),
            Some(StreamingBlocked),
        ],
    ),
    (
        "unblock",
        |t| t.unblock(&IndexSet::first(5)),
        [
            Some(Waiting),
            Some(Retry),
            Some(Live),
            Some(LiveTwice),
            Some(Done),
            Some(Failed),
            Some(Cancelled),
            Some(Waiting),
            Some(Streaming),
            Some(Streaming),
        ],
    ),
];

#[test]
fn each_operation_in_each_state_does_what_the_table_says_or_is_a_broken_invariant() {
    for (name, operation, expected) in TABLE {
        for (state, expected) in STATES.into_iter().zip(expected) {
            let mut tasks = tasks_in(state);
            let done = catch_unwind(AssertUnwindSafe(|| operation(&mut tasks)));
            match (done, expected) {
                (Ok(()), Some(expected)) => {
                    assert_eq!(state_of(&tasks), expected, "{name} from {state:?}");
                    tasks.check(|_| false);
                    assert_eq!(tasks.counts().total, 5);
                }
                (Err(broken), None) => {
                    let broken = broken.downcast_ref::<BrokenInvariant>().expect("it says what is broken");
                    assert_eq!(broken.job, Some(JobId(7)), "{name} from {state:?}");
                    assert!(
                        broken.what.contains("7.2.3"),
                        "{name} from {state:?} does not name the task: {broken}"
                    );
                }
                (Ok(()), None) => panic!("{name} passes from {state:?}"),
                (Err(_), Some(_)) => panic!("{name} is illegal from {state:?}"),
            }
        }
    }
}

#[test]
fn what_went_wrong_with_a_task_is_known_when_it_is_blocked_no_longer() {
    let mut tasks = tasks_in(Retry);
    tasks.block(&IndexSet::first(5));
    tasks.check(|_| false);
    assert_eq!((tasks.waiting_len(), tasks.counts().waiting), (0, 5));
    tasks.unblock(&IndexSet::first(4));
    tasks.check(|_| false);
    assert_eq!((state_of(&tasks), tasks.waiting_len()), (Retry, 4));
}

#[test]
fn a_reset_or_outdated_task_has_the_next_generation_and_a_retried_one_the_same() {
    let generation = |state: State, operation: fn(&mut Tasks)| {
        let mut tasks = tasks_in(state);
        operation(&mut tasks);
        tasks.generation(TASK)
    };
    let all = || IndexSet::first(5);
    assert_eq!(generation(Done, |t| drop(t.reset_done(&IndexSet::first(5)))), Generation(1));
    assert_eq!(
        generation(Done, |t| drop(t.outdate(&IndexSet::first(5), &IndexSet::default()))),
        Generation(1)
    );
    assert_eq!(
        generation(Waiting, |t| drop(t.outdate(&IndexSet::first(5), &[TASK].into_iter().collect()))),
        Generation(1)
    );
    assert_eq!(generation(Failed, |t| drop(t.reset_ended(&IndexSet::first(5)))), Generation(0));
    assert_eq!(tasks_in(Cancelled).reset_ended(&all()), all());
}

#[test]
fn the_second_attempt_becomes_the_first_and_counts_as_running_if_it_has_begun() {
    let mut tasks = tasks_in(LiveTwice);
    tasks.set_begun(TASK, FIRST, true);
    tasks.set_begun(TASK, SECOND, true);
    assert_eq!(tasks.counts().running, 1, "a task that runs twice is one task");
    tasks.close(TASK, FIRST);
    assert_eq!((tasks.first_attempt(TASK), tasks.counts().running), (Some(SECOND), 1));
    tasks.close(TASK, SECOND);
    assert_eq!((tasks.counts().running, tasks.waiting_len()), (0, 5));
}
