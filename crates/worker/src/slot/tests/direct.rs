//! Tasks without a Blender beside the process of their slot.

use futures_util::future::BoxFuture;
use kiln_types::FailureCause;

use super::*;
use crate::{
    direct::{DirectRoom, DirectTask, DirectWork},
    inputs::{InputFetcher, SharedInputs},
    output::OutputFiles,
};

/// The state machine never runs it.
#[derive(Debug)]
struct Unused;

impl DirectWork for Unused {
    fn run(self: Arc<Self>, _: DirectRoom) -> BoxFuture<'static, Result<OutputFiles, Failure>> {
        unreachable!()
    }
}

fn direct(counter: u64) -> SlotTask {
    let client = kiln_client::Client::new("http://127.0.0.1:1", "key").unwrap();
    let inputs = InputFetcher::new(client, "/nowhere".into()).inputs("1-1", Vec::new());
    let head = work(counter, "A", false).head;
    SlotTask::Direct(DirectTask {
        head,
        memory: 0,
        inputs: SharedInputs::new(inputs),
        work: Arc::new(Unused),
    })
}

fn id(counter: u64) -> kiln_types::AttemptId {
    direct(counter).head().attempt
}

#[test]
fn a_task_without_a_blender_starts_none_and_leaves_the_open_file_as_it_is() {
    let world = world();
    let mut slot = SlotMachine::new();
    slot.enqueue(vec![direct(1)], &world);
    assert_eq!(said(&mut slot), ["started 1", "run 1"]);
    assert!(matches!(slot.phase, SlotPhase::Cold));
    slot.ran(Ok(()), &world);
    assert!(said(&mut slot).is_empty());

    let mut slot = rendering(&world);
    slot.revoke(id(3), false, &world);
    slot.enqueue(vec![direct(4)], &world);
    enqueue(&mut slot, vec![work(5, "A", false)], &world);
    said(&mut slot);
    slot.worked(Ok(()), true, &world);
    assert_eq!(said(&mut slot), ["started 2", "render 2"]);
    slot.worked(Ok(()), true, &world);
    assert_eq!(said(&mut slot), ["started 4", "run 4"], "the slot does one task at a time");
    assert!(matches!(slot.phase, SlotPhase::Idle { open: Some(_), .. }));
    assert_eq!(slot.current().unwrap().attempt, id(4));
    slot.advance(&world);
    assert!(said(&mut slot).is_empty());
    slot.ran(Ok(()), &world);
    assert_eq!(said(&mut slot), ["started 5", "render 5"], "nothing is opened again");
}

#[test]
fn a_task_without_a_blender_runs_while_a_process_starts() {
    let world = world();
    let mut slot = SlotMachine::new();
    slot.prestart("3.4".parse().unwrap(), &world);
    slot.enqueue(vec![direct(1)], &world);
    enqueue(&mut slot, vec![work(2, "A", false)], &world);
    assert_eq!(said(&mut slot), ["start", "started 1", "run 1", "fetch"]);
    slot.started(Ok(()), &world);
    slot.fetched(work(2, "A", false).key, Ok(()), &world);
    assert!(said(&mut slot).is_empty());
    slot.ran(Err((fault(FailureCause::DiskFull), 1.0)), &world);
    assert_eq!(said(&mut slot), ["failed 1 disk-full", "started 2", "open for 2"]);
}

#[test]
fn a_start_that_fails_beside_such_a_task_fails_no_task_that_has_not_begun() {
    let world = world();
    let mut slot = SlotMachine::new();
    slot.prestart("3.4".parse().unwrap(), &world);
    slot.enqueue(vec![direct(1)], &world);
    enqueue(&mut slot, vec![work(2, "A", false)], &world);
    said(&mut slot);
    slot.started(Err(fault(FailureCause::CannotStart)), &world);
    assert!(said(&mut slot).is_empty());
    slot.ran(Ok(()), &world);
    assert_eq!(said(&mut slot), ["start"]);
}

#[test]
fn a_cancelled_task_is_returned_at_once_and_the_next_begins_when_it_has_ended() {
    let world = world();
    let mut slot = SlotMachine::new();
    slot.enqueue(vec![direct(1), direct(2)], &world);
    said(&mut slot);
    slot.revoke(id(1), false, &world);
    assert!(said(&mut slot).is_empty(), "a running task is not preempted");
    slot.revoke(id(1), true, &world);
    assert_eq!(said(&mut slot), ["returned 1", "cancel run"]);
    slot.revoke(id(1), true, &world);
    assert!(slot.current().is_none() && said(&mut slot).is_empty());
    slot.ran(Err((fault(FailureCause::Other), 1.0)), &world);
    assert_eq!(said(&mut slot), ["started 2", "run 2"], "it was returned before it failed");
}

#[test]
fn a_slot_closes_when_its_task_without_a_blender_has_ended() {
    for running in [false, true] {
        let world = world();
        let mut slot = SlotMachine::new();
        slot.enqueue(vec![direct(1), direct(2)], &world);
        said(&mut slot);
        slot.close(running, &world);
        let returned: &[&str] =
            if running { &["returned 2", "returned 1", "cancel run"] } else { &["returned 2"] };
        assert_eq!(said(&mut slot), returned);
        slot.ran(Ok(()), &world);
        assert_eq!(said(&mut slot), ["closed"]);
    }
}

#[test]
fn a_task_that_lacks_memory_ends_the_idle_process_of_its_slot_and_is_returned_in_the_end() {
    let world = world();
    let mut slot = rendering(&world);
    for counter in [2, 3] {
        slot.revoke(id(counter), false, &world);
    }
    slot.worked(Ok(()), true, &world);
    said(&mut slot);
    world.room.set(false);
    slot.enqueue(vec![direct(4)], &world);
    assert_eq!(said(&mut slot), ["recycle", "wake", "release"]);
    slot.recycled(&world);
    assert_eq!(said(&mut slot), ["wake"]);
    world.now.set(world.now.get() + Duration::from_secs(11));
    slot.advance(&world);
    assert_eq!(said(&mut slot), ["returned 4"]);
    world.room.set(true);
    world.uploads.set(false);
    slot.enqueue(vec![direct(5)], &world);
    assert!(said(&mut slot).is_empty(), "its files would have no room");
    world.uploads.set(true);
    slot.advance(&world);
    assert_eq!(said(&mut slot), ["started 5", "run 5"]);
}
