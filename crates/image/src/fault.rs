//! The ways in which a file is not the picture that was asked for.

use kiln_types::{ColorDepth, FileFormat};

/// The reason why a file is not the picture that was asked for. Each message completes "the file `x` cannot be used: ...".
#[derive(Debug, thiserror::Error)]
pub enum ImageFault {
    #[error("it is empty")]
    Empty,
    #[error("it cannot be read: {0}")]
    Unreadable(#[source] std::io::Error),
    #[error("it is not a picture in a format that Blender writes")]
    NotAnImage,
    #[error("it is a picture in the format {found} where {expected} was asked for")]
    WrongFormat { expected: FileFormat, found: FileFormat },
    #[error("it is {}x{} pixels where {}x{} were asked for", found.0, found.1, expected.0, expected.1)]
    WrongSize { expected: (u32, u32), found: (u32, u32) },
    #[error("it has {found} bits a channel where {expected} were asked for")]
    WrongDepth { expected: ColorDepth, found: ColorDepth },
    #[error("layer “{layer}” covers only a part of the picture")]
    Cropped { layer: String },
    /// The file ends before the picture does.
    #[error("it is cut off: {0}")]
    Truncated(String),
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// Checking it would take more memory or channels than allowed.
    #[error("it is too large to check: {0}")]
    TooLarge(String),
    #[error("it uses a form of its format that Blender does not write: {0}")]
    Unsupported(String),
    #[error("the two pictures cannot be compared: {0}")]
    NotComparable(String),
}

impl ImageFault {
    pub(crate) fn damaged(why: impl std::fmt::Display) -> Self {
        // What a decoder says may quote the file: one line of bounded length.
        Self::Damaged(
            why.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect(),
        )
    }

    pub(crate) fn unsupported(why: impl std::fmt::Display) -> Self {
        Self::Unsupported(why.to_string().chars().take(200).collect())
    }

    pub(crate) fn too_large(memory: u64) -> Self {
        Self::TooLarge(format!("a part of it needs more than {} MiB of memory", memory >> 20))
    }
}

impl From<std::io::Error> for ImageFault {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::UnexpectedEof {
            Self::Truncated("it ends before the picture does".to_owned())
        } else {
            Self::Unreadable(error)
        }
    }
}
