fn main() {
    use kiln_sim::farm::makespan::*;
    let mut args = std::env::args().skip(1);
    let seeds: u64 = args.next().and_then(|a| a.parse().ok()).unwrap_or(5);
    let a_slot: u32 = args.next().and_then(|a| a.parse().ok()).unwrap_or(20);
    for frames in Frames::ALL {
        for workers in [1, 2, 4, 10, 20, 50, 100, 200] {
            let (mut worst, mut sum, mut warm, mut cold, mut waste, mut at) = (0.0f64, 0.0, 0.0, 0.0, 0, 0);
            for seed in 1..=seeds {
                let race = Race::run(&mixed_farm(workers, frames, a_slot, seed));
                let r = |a: u64| a as f64 / race.bound as f64;
                if r(race.kiln) > worst {
                    worst = r(race.kiln);
                    at = seed;
                }
                sum += r(race.kiln);
                warm += r(race.warm);
                cold += r(race.cold);
                waste += race.wasted_percent;
            }
            let n = seeds as f64;
            println!(
                "{:24} {workers:4} worst {worst:.3} (seed {at}) mean {:.3} fcfs {:.2} cold {:.2} waste {}%",
                frames.name(),
                sum / n,
                warm / n,
                cold / n,
                waste / seeds
            );
        }
    }
}
