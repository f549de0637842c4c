//! `kiln blender`.

use clap::Subcommand;
use kiln_types::BlenderSeries;

use crate::settings::flags::BlenderArgs;

#[derive(Debug, Subcommand)]
pub enum BlenderCommand {
    /// The Blenders that are found here.
    #[command(
        after_long_help = "Examples:\n  kiln blender list\n  kiln blender list --blender ~/blender-4.5/blender"
    )]
    List {
        #[command(flatten)]
        blender: BlenderArgs,
    },
    /// Get a Blender as a Python module, in an environment of its own below the data folder.
    #[command(
        after_long_help = "It is the `bpy` package of the Python package index, and needs the Python that the \
        package was built for.\n\nExample:\n  kiln blender install 5.0"
    )]
    Install {
        /// The series, such as 5.0.
        series: BlenderSeries,
    },
}
