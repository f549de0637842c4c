//! `kiln bundle`.

use std::path::PathBuf;

use clap::Args;

use super::ExtrasArgs;

#[derive(Debug, Args)]
#[command(after_long_help = "\
Your files are not changed: paths are remapped in the copies of the .blend and of its libraries, so that they lead to \
the files in the bundle. Files beside or below the .blend keep their places, all others go to _external. Compressed \
.blend files are decompressed. `kiln inspect` prints what a .blend needs.

Examples:
  kiln bundle shot.blend --out shot-bundle
  kiln bundle shot.blend --out shot.zip
  kiln bundle shot.blend --out shot.zip --dry-run
  kiln bundle shot.blend --out shot.zip --json | jq .renamed")]
pub struct BundleArgs {
    /// The .blend.
    pub file: PathBuf,
    /// The folder to write, or the zip if the name ends in .zip.
    #[arg(long, short, value_name = "DIR|ZIP")]
    pub out: PathBuf,
    /// Replace a zip, or a folder that `kiln bundle` made.
    #[arg(long)]
    pub force: bool,
    /// Continue even if textures, libraries or other files are missing.
    #[arg(long)]
    pub allow_missing: bool,
    /// Only print what the bundle would hold.
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub extras: ExtrasArgs,
}
