//! Times the search for dependencies, for bench/inspect: `search RUNS FILE` prints one object of JSON.

use std::{collections::BTreeSet, path::Path, time::Instant};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(runs), Some(file)) = (arguments.next(), arguments.next()) else {
        return Err("search RUNS FILE".into());
    };
    let runs: u32 = runs.to_string_lossy().parse()?;
    let mut seconds = Vec::new();
    let mut places = BTreeSet::new();
    for _ in 0..runs {
        let begun = Instant::now();
        let found = kiln_blend::find_dependencies(Path::new(&file))?;
        seconds.push(begun.elapsed().as_secs_f64());
        places.extend(found.items.into_iter().flat_map(|item| item.files.into_iter().chain([item.place])));
    }
    println!("{}", serde_json::json!({ "seconds": seconds, "places": places }));
    Ok(())
}
