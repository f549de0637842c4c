//! `scripts/fidelity`: renders every feature, compares, and writes docs/fidelity.md.

use std::{fs, path::PathBuf};

use anyhow::Result;
use clap::Parser;
use kiln_fidelity::{Options, Verdict, run, table};
use kiln_testkit::all_blenders;

/// Renders every feature of Blender by Kiln, compares each with a cold render, and writes the table.
#[derive(Parser)]
struct Arguments {
    /// The program.
    #[arg(long)]
    kiln: PathBuf,
    /// The folder of scenes, cold renders and results.
    #[arg(long)]
    cache: PathBuf,
    /// The page to write.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Only these versions, such as 3.4,5.0.
    #[arg(long, value_delimiter = ',')]
    versions: Vec<String>,
    /// Takes good results of another Kiln.
    #[arg(long)]
    keep: bool,
    /// Renders the second frame of each row in a completely new process too.
    #[arg(long)]
    check: bool,
    /// Compares pixels alone, not the texts inside PNGs.
    #[arg(long)]
    no_texts: bool,
    /// Renders nothing: takes what is known.
    #[arg(long)]
    known: bool,
    /// The folder of build.py.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fidelity"))]
    scripts: PathBuf,
    /// Only these rows.
    ids: Vec<String>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut blenders = all_blenders();
    if !arguments.versions.is_empty() {
        let mut wanted = Vec::new();
        for blender in blenders {
            let version =
                kiln_host::inspect(blender.program()).map_err(anyhow::Error::msg)?.version.to_string();
            if arguments.versions.iter().any(|v| version.starts_with(v.as_str())) {
                wanted.push(blender);
            }
        }
        blenders = wanted;
    }
    let options = Options {
        kiln: arguments.kiln.canonicalize()?,
        scripts: arguments.scripts.canonicalize()?,
        cache: arguments.cache,
        blenders,
        only: arguments.ids,
        keep: arguments.keep,
        known: arguments.known,
        check: arguments.check,
        texts: !arguments.no_texts,
        threads: std::thread::available_parallelism().map_or(2, usize::from),
    };
    let results = run(&options)?;
    let bad = results.iter().filter(|k| !k.verdict.is_good() && k.verdict != Verdict::NotRun).count();
    println!("{} results, {bad} to be fixed", results.len());
    if let Some(out) = arguments.out {
        fs::write(out, table(&results, &jiff::Zoned::now().strftime("%Y-%m-%d").to_string()))?;
    }
    Ok(())
}
