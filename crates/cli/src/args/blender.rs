//! `kiln blender`.

use clap::Subcommand;
use kiln_types::BlenderSeries;

use crate::settings::flags::BlenderArgs;

#[derive(Debug, Subcommand)]
pub enum BlenderCommand {
    /// List the Blenders of this machine.
    #[command(
        after_long_help = "Examples:\n  kiln blender list\n  kiln blender list --blender ~/blender-4.5/blender"
    )]
    List {
        #[command(flatten)]
        blender: BlenderArgs,
    },
    /// Install Blender as a Python module, in an environment of its own below the data folder.
    #[command(
        after_long_help = "The module is the package `bpy` of the Python package index. It needs the version of Python that \
        the package was built for.\n\nExample:\n  kiln blender install 5.0"
    )]
    Install {
        /// The series, such as 5.0.
        series: BlenderSeries,
    },
}
