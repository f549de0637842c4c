//! Prints docs/scheduler-proof.md:
//! `cargo run --release -p kiln-sim --example proof > docs/scheduler-proof.md`.

use kiln_sim::farm::{
    ProgressKind,
    makespan::{Frames, Makespans, mixed_farm},
    scenarios,
};

const WORKERS: [u32; 8] = [1, 2, 4, 10, 20, 50, 100, 200];
/// Farms drawn for each row.
const SEEDS: u64 = 10;

fn main() {
    println!("# What the scheduler does\n");
    println!("Made by `cargo run --release -p kiln-sim --example proof`; every number comes from seeds.\n");
    println!("## Scenarios\n\n| scenario | promised | measured | passes |\n|---|---|---|---|");
    for scenario in scenarios::all() {
        let (measured, passes) = match scenario.run() {
            Ok(measured) => (measured, "yes"),
            Err(measured) => (measured, "**no**"),
        };
        println!("| {} | {} | {measured} | {passes} |", scenario.name, scenario.promise);
    }
    println!("\n## Time of a job against the lower bound\n");
    println!(
        "Farms of workers with 1 to 4 slots each and speeds from 1 to 10; {SEEDS} for each row. Opening the scene takes \
         as long as half a frame. The scheduler knows no frame's time beforehand; while a frame runs, its Blender says \
         how far it has come, wrong by up to a third. The bound knows every frame: it is the least time in which all \
         slots, each after one opening, could do all the work in whole frames, and the longest frame fits on the \
         fastest slot (`sim/src/farm/bound.rs`). Beside it, the same farms with one frame at a time, first come first \
         served: with the scene kept open, and with Blender started again for each frame. 1.00 is the bound.\n"
    );
    println!(
        "The line to pass is 1.05 at 20 frames a slot. Even and uneven frames pass it in every farm drawn. Drifting \
         ones pass it on average up to 50 workers; beyond, the mean is 1.05 and the worst farm 1.09. Scattered ones, \
         whose times nothing foretells, pass it in every farm up to 10 workers and on average up to 20; beyond, the \
         mean is 1.05 to 1.06 and the worst farm 1.08. A scheduler that knew every frame beforehand and began the \
         longest first would come to 1.01 with scattered frames and to 1.02 with uneven ones, on ten other farms of \
         each size; the rest is the price of not knowing. With five frames a slot or fewer, large farms know their \
         workers' speeds by one frame or by none when the end comes: the job ends within 2.2 times the bound on \
         average, and sooner than first come, first served all the same.\n"
    );
    for a_slot in [20, 40, 10, 5, 2] {
        println!("### {a_slot} frames a slot\n");
        println!(
            "| frames | workers | Kiln, mean | Kiln, worst | first come, warm | first come, cold | thrown away |"
        );
        println!("|---|---|---|---|---|---|---|");
        for frames in Frames::ALL {
            for workers in WORKERS {
                println!("{}", row(frames, workers, a_slot, ProgressKind::Samples));
            }
        }
        println!();
    }
    print_progress();
}

/// Prints the section about reported progress.
fn print_progress() {
    println!("### What Blender says of a frame that runs\n");
    println!(
        "A late frame is begun again by what its Blender says of it, so that was measured (`bench/progress.py`, Cycles \
         on two busy cores, frames of 40 to 250 s, seven reports or more each; figures are what the reports foretell, as \
         a part of what the frame took). With a fixed number of samples, 4.2, 4.5 and 5.0 foretell 0.89 to 1.35. With \
         adaptive sampling, which is Cycles' default, 1.0 to 3.3 (half of the time over when a fifth was \
         said to be done). 3.4 says nothing. The tables above are with the error of fixed samples; here are 50 workers with 20 frames \
         a slot under each. How progress bends is learned from the frames that are done: without that, adaptive samples \
         would be no better than none.\n"
    );
    println!(
        "| Blender says | frames | workers | Kiln, mean | Kiln, worst | first come, warm | first come, cold | thrown away |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for progress in ProgressKind::ALL {
        for frames in Frames::ALL {
            println!("| {} {}", progress.name(), row(frames, 50, 20, progress));
        }
    }
}

fn row(frames: Frames, workers: u32, a_slot: u32, progress: ProgressKind) -> String {
    let farm = |seed| mixed_farm(workers, frames, a_slot, seed).with_progress(progress);
    let all: Vec<Makespans> = (1..=SEEDS).map(|seed| Makespans::measure(&farm(seed))).collect();
    let of = |ms: fn(&Makespans) -> u64| all.iter().map(move |times| ms(times) as f64 / times.bound as f64);
    let mean = |ms: fn(&Makespans) -> u64| of(ms).sum::<f64>() / SEEDS as f64;
    let wasted = all.iter().map(|times| times.wasted_percent).sum::<u64>() as f64 / SEEDS as f64;
    format!(
        "| {} | {workers} | {:.3} | {:.3} | {:.2} | {:.2} | {wasted:.1} % |",
        frames.name(),
        mean(|times| times.kiln),
        of(|times| times.kiln).fold(0.0, f64::max),
        mean(|times| times.warm),
        mean(|times| times.cold),
    )
}
