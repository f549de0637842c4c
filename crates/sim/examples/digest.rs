//! Prints a hash of every decision of the farms of these seeds, to compare two versions of the core:
//! `cargo run --release -p kiln-sim --example digest -- 1 8000`

fn main() {
    let mut seeds = std::env::args().skip(1).map(|text| text.parse::<u64>().expect("a seed is a number"));
    let (first, last) = (seeds.next().unwrap_or(1), seeds.next().unwrap_or(1000));
    let mut all = 0u64;
    for seed in first..=last {
        let report = kiln_sim::run(seed);
        all = all.rotate_left(1) ^ report.decisions;
        if std::env::var_os("KILN_EACH").is_some() {
            println!("{seed} {:016x} {} events, {} commits", report.decisions, report.events, report.commits);
        }
    }
    println!("seeds {first} to {last}: {all:016x}");
}
