//! `kiln bundle`.

use std::path::PathBuf;

use clap::Args;

use super::ExtrasArgs;

#[derive(Debug, Args)]
#[command(after_long_help = "\
Nothing of yours is changed: the copies of the .blend and of its libraries get names that lead to their files within \
the bundle. Files beside or below the .blend keep their places, others go to _external. Packed .blend files are \
unpacked. `kiln inspect` tells what a .blend needs.

Examples:
  kiln bundle shot.blend --out shot-bundle
  kiln bundle shot.blend --out shot.zip
  kiln bundle shot.blend --out shot.zip --dry-run
  kiln bundle shot.blend --out shot.zip --json | jq .renamed")]
pub struct BundleArgs {
    /// The .blend.
    pub file: PathBuf,
    /// The folder, or the zip where the name ends in .zip.
    #[arg(long, short, value_name = "DIR|ZIP")]
    pub out: PathBuf,
    /// Replace a zip, or a folder that `kiln bundle` made.
    #[arg(long)]
    pub force: bool,
    /// Go on although textures, libraries or other files are missing.
    #[arg(long)]
    pub allow_missing: bool,
    /// Only tell what the bundle would hold.
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub extras: ExtrasArgs,
}
