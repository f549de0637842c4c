//! The load of `bench/farm`: simulated workers and a client against a server that runs.
//!
//!     farm URL KEY PID workers WORKERS SECONDS
//!     farm URL KEY PID separate WORKERS SECONDS
//!     farm URL KEY PID lifecycles WORKERS SECONDS
//!     farm URL KEY PID small WORKERS SECONDS
//!     farm URL KEY PID million WORKERS SECONDS
//!
//! `PID` is the server's process: its memory and processor time are read from `/proc`.

mod load;

use std::{error::Error, time::Duration};

use kiln_client::Client;
use load::{Measured, Nature, Stores, Target};

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [url, key, pid, what, workers, seconds] = &words[..] else {
        return Err(
            "usage: farm URL KEY PID workers|separate|lifecycles|small|million WORKERS SECONDS".into()
        );
    };
    let target = Target::prepare(Client::new(url, key)?, pid.parse()?).await?;
    let (workers, seconds) = (workers.parse()?, Duration::from_secs(seconds.parse()?));
    let measured: Measured = match &what[..] {
        "workers" | "separate" => {
            let is_separate = what == "separate";
            let stores = if is_separate { Stores::Mixed } else { Stores::Nothing };
            let nature = Nature { frame_ms: 1000..=10_000, stores, is_separate };
            load::workers(&target, workers, &nature, seconds).await?
        }
        "lifecycles" => load::lifecycles(&target, workers, seconds, Stores::Nothing).await?,
        "small" => load::lifecycles(&target, workers, seconds, Stores::Small).await?,
        "million" => load::million(&target, workers, seconds).await?,
        other => return Err(format!("there is no load named {other}").into()),
    };
    print!("{measured}");
    Ok(())
}
