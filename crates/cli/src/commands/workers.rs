//! `kiln workers`.

use kiln_api::{ChangePools, WorkerView};
use kiln_types::WorkerState;
use serde_json::json;

use super::Context;
use crate::{
    args::{FarmArgs, OneWorker, PoolArgs, WorkersArgs, WorkersCommand},
    exit::{Exit, Outcome},
    farm,
    output::{
        table::table,
        text::{count, moment},
    },
    size::ByteSize,
};

pub async fn run(context: &Context, args: WorkersArgs) -> Outcome<Exit> {
    let (verb, worker, sentence) = match args.command {
        None => return list(context, &args.farm).await,
        Some(WorkersCommand::List { farm }) => return list(context, &farm).await,
        Some(WorkersCommand::Pause(worker)) => ("pause", worker, "gets no further work"),
        Some(WorkersCommand::Resume(worker)) => ("resume", worker, "gets work again"),
        Some(WorkersCommand::Drain(worker)) => ("drain", worker, "finishes what it renders, then leaves"),
        Some(WorkersCommand::Stop(worker)) => ("stop", worker, "leaves now"),
        Some(WorkersCommand::Unquarantine(worker)) => {
            ("unquarantine", worker, "is out of quarantine, and gets work again")
        }
        Some(WorkersCommand::Wake(worker)) => {
            ("wake", worker, "was sent a wake-on-LAN packet; a machine needs about a minute to start")
        }
        Some(WorkersCommand::Pool(args)) => return pool(context, args).await,
        Some(WorkersCommand::Show(worker)) => return show(context, worker).await,
        Some(WorkersCommand::Remove(worker)) => ("remove", worker, "is forgotten"),
    };
    let client = farm::need(&context.settings(&worker.farm)?)?;
    if verb == "remove" {
        client.remove_worker(&worker.name).await?;
    } else {
        client.tell_worker(&worker.name, verb).await?;
    }
    context
        .output
        .done(&json!({ "worker": worker.name, "done": verb }), &format!("{} {sentence}.", worker.name));
    Ok(Exit::Done)
}

async fn pool(context: &Context, args: PoolArgs) -> Outcome<Exit> {
    let client = farm::need(&context.settings(&args.worker.farm)?)?;
    let (add, remove) = (args.add.into_iter().collect(), args.remove.into_iter().collect());
    let change = ChangePools { add, remove };
    let worker = client.change_pools(&args.worker.name, &change).await?;
    let told = match &worker.pools[..] {
        [] => "no pool".to_owned(),
        [one] => format!("the pool {one}"),
        more => format!("the pools {}", more.join(", ")),
    };
    context.output.done(&json!({ "worker": worker }), &format!("{} is in {told}.", worker.name));
    Ok(Exit::Done)
}

async fn show(context: &Context, worker: OneWorker) -> Outcome<Exit> {
    let client = farm::need(&context.settings(&worker.farm)?)?;
    let worker = client.worker(&worker.name).await?;
    context
        .output
        .result(&json!({ "worker": worker }), || table(&["", ""], lines(&worker)).trim_start().to_owned());
    Ok(Exit::Done)
}

/// Describes a worker, a line for each property.
fn lines(worker: &WorkerView) -> impl Iterator<Item = Vec<String>> {
    let until = worker.unavailable.as_ref().and_then(|unavailable| unavailable.until_ms);
    let tags = if worker.tags.is_empty() { "none".to_owned() } else { worker.tags.join(", ") };
    let mut lines = vec![
        ("name", worker.name.clone()),
        ("state", state(worker)),
        ("desired state", worker.desired.to_string()),
        ("slots", worker.slots.to_string()),
        ("renders", renders(worker)),
        ("machine", machine(worker)),
        ("processor", worker.machine.cpu.clone()),
        ("system", format!("{} on {}", worker.machine.system, worker.machine.hostname)),
        ("tags", tags),
        ("pools", if worker.pools.is_empty() { "none".to_owned() } else { worker.pools.join(", ") }),
        ("the farm may wake it", if worker.wakes { "yes" } else { "no" }.to_owned()),
        ("Kiln", worker.build.clone()),
        ("last heard of", moment(worker.last_seen_ms)),
    ];
    lines.extend(until.map(|until| ("unavailable until", moment(until))));
    if let Some(quarantine) = &worker.quarantine {
        lines.push(("failed probes", quarantine.failed_probes.to_string()));
        lines.push((
            "next probe",
            quarantine.next_probe_ms.map_or_else(|| "as soon as something waits".to_owned(), moment),
        ));
    }
    for blender in &worker.blenders {
        lines.push(("Blender", format!("{} ({})", blender.version, blender.flavor)));
        for device in blender.devices.iter().filter(|device| device.class.is_gpu()) {
            let memory = device.memory.map_or_else(String::new, |bytes| format!(", {}", ByteSize(bytes)));
            lines.push(("", format!("{} {}{memory}", device.class, device.name)));
        }
    }
    lines.into_iter().map(|(name, value)| vec![name.to_owned(), value])
}

async fn list(context: &Context, farm: &FarmArgs) -> Outcome<Exit> {
    let client = farm::need(&context.settings(farm)?)?;
    let workers = client.workers().await?;
    context.output.result(&json!({ "workers": workers }), || {
        if workers.is_empty() {
            let url = client.url();
            return format!("The farm has no workers. `kiln worker --server {url}` on a machine adds it.");
        }
        let mut heads = vec!["NAME", "STATE", ">SLOTS", "RENDERS", "BLENDERS", "MACHINE"];
        let pools = workers.iter().any(|worker| !worker.pools.is_empty());
        heads.extend(pools.then_some("POOLS"));
        let row = |worker: &WorkerView| {
            let mut row = row(worker);
            row.extend(pools.then(|| worker.pools.join(", ")));
            row
        };
        table(&heads, workers.iter().map(row))
    });
    Ok(Exit::Done)
}

fn renders(worker: &WorkerView) -> String {
    let running: Vec<String> = worker
        .running
        .iter()
        .map(|run| {
            let part = run.fraction.map_or_else(String::new, |fraction| {
                let estimate = if run.estimated { " est." } else { "" };
                format!(" {:.0}%{estimate}", fraction * 100.0)
            });
            let slow = if run.slow.is_some() { ", slow" } else { "" };
            format!("job {} {}{part}{slow}", run.job, run.name)
        })
        .collect();
    running.join(", ")
}

fn row(worker: &WorkerView) -> Vec<String> {
    let mut blenders: Vec<String> = worker
        .blenders
        .iter()
        .map(|blender| {
            let devices: Vec<_> = blender
                .devices
                .iter()
                .map(|device| device.class.as_str())
                .filter(|class| *class != "cpu")
                .collect();
            let devices =
                if devices.is_empty() { String::new() } else { format!(" ({})", devices.join(", ")) };
            format!("{}{devices}", blender.version)
        })
        .collect();
    blenders.dedup();
    vec![
        worker.name.clone(),
        state(worker),
        worker.slots.to_string(),
        renders(worker),
        if blenders.is_empty() { "none".to_owned() } else { blenders.join(", ") },
        machine(worker),
    ]
}

/// `unavailable: asleep until 08:00`, `quarantine: it failed 3 times in a row where others render; the last: ...`.
fn state(worker: &WorkerView) -> String {
    let why = match worker.state {
        WorkerState::Unavailable => worker.unavailable.as_ref().map(|unavailable| unavailable.why.as_str()),
        WorkerState::Quarantined => worker.quarantine.as_ref().map(|quarantine| quarantine.why.as_str()),
        _ => None,
    };
    why.map_or_else(|| worker.state.to_string(), |why| format!("{}: {why}", worker.state))
}

/// `16 cores, 64 GB`, or `8 of 16 cores, 32 of 64 GB` if the farm gets only a part.
fn machine(worker: &WorkerView) -> String {
    let (machine, offered) = (&worker.machine, &worker.offered);
    let part = |is_part: bool, part: String| if is_part { format!("{part} of ") } else { String::new() };
    format!(
        "{}{}, {}{}",
        part(offered.cores != machine.cores, offered.cores.to_string()),
        count(machine.cores, "core"),
        part(offered.memory != machine.memory, ByteSize(offered.memory).to_string()),
        ByteSize(machine.memory)
    )
}
