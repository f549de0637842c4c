//! Recognises a format by its first bytes; names are not looked at.

use std::io::Read;

use kiln_types::FileFormat;

use crate::{fault::ImageFault, picture::Decode, source::PictureSource};

/// The first bytes of each format. Single and multi-layer OpenEXR are told apart by their channels.
const KNOWN: &[(&[u8], FileFormat, Decode)] = &[
    (b"\x89PNG\r\n\x1a\n", FileFormat::Png, crate::png::decode),
    (b"\xff\xd8\xff", FileFormat::Jpeg, crate::jpeg::decode),
    (b"\x76\x2f\x31\x01", FileFormat::OpenExr, crate::exr::decode),
    (b"II*\0", FileFormat::Tiff, crate::tiff::decode),
    (b"MM\0*", FileFormat::Tiff, crate::tiff::decode),
    (b"II+\0", FileFormat::Tiff, crate::tiff::decode),
    (b"MM\0+", FileFormat::Tiff, crate::tiff::decode),
    (b"BM", FileFormat::Bmp, crate::bmp::decode),
    (b"#?RADIANCE", FileFormat::Hdr, crate::hdr::decode),
    (b"#?RGBE", FileFormat::Hdr, crate::hdr::decode),
    // Raw or in runs, of one or two bytes a sample.
    (b"\x01\xda\0\x01", FileFormat::Iris, crate::iris::decode),
    (b"\x01\xda\0\x02", FileFormat::Iris, crate::iris::decode),
    (b"\x01\xda\x01\x01", FileFormat::Iris, crate::iris::decode),
    (b"\x01\xda\x01\x02", FileFormat::Iris, crate::iris::decode),
    (b"SDPX", FileFormat::Dpx, crate::dpx::decode),
    (b"XPDS", FileFormat::Dpx, crate::dpx::decode),
    (b"\x80\x2a\x5f\xd7", FileFormat::Cineon, crate::cineon::decode),
    (b"\xd7\x5f\x2a\x80", FileFormat::Cineon, crate::cineon::decode),
    (b"\0\0\0\x0cjP  \r\n\x87\n", FileFormat::Jp2, crate::jpeg2000::decode),
    (b"\xff\x4f\xff\x51", FileFormat::J2c, crate::jpeg2000::decode),
];

/// Returns whether these first bytes of a file are too few to tell its format, and fit the beginning of one.
pub(crate) fn may_begin(head: &[u8]) -> bool {
    // Its size is between its two words.
    let mut webp = *b"RIFF----WEBP";
    for (to, from) in webp[4..8].iter_mut().zip(head.get(4..).unwrap_or(&[])) {
        *to = *from;
    }
    KNOWN.iter().map(|(magic, ..)| *magic).chain([&webp[..]]).any(|magic| magic.starts_with(head))
}

/// The decoder for what the file seems to be. Leaves the source at its beginning.
pub(crate) fn recognise(source: &mut PictureSource<'_>) -> Result<(FileFormat, Decode), ImageFault> {
    let mut head = Vec::with_capacity(32);
    source.reader.by_ref().take(32).read_to_end(&mut head).map_err(ImageFault::Unreadable)?;
    source.rewind()?;
    for (magic, format, decode) in KNOWN {
        if head.starts_with(magic) {
            return Ok((*format, *decode));
        }
    }
    if head.starts_with(b"RIFF") && head.get(8..12) == Some(b"WEBP") {
        return Ok((FileFormat::Webp, crate::webp::decode));
    }
    // Targa has no magic: a header that makes sense must do.
    if crate::tga::Header::parse(&head).is_some() {
        return Ok((FileFormat::Targa, crate::tga::decode));
    }
    Err(ImageFault::NotAnImage)
}

/// Returns whether a file of format `found` is what was asked for. Blender keeps some grey pictures raw where it was
/// asked for a compressed Targa, so the two are one.
pub(crate) fn matches(expected: FileFormat, found: FileFormat) -> bool {
    let kind = |format| if format == FileFormat::TargaRaw { FileFormat::Targa } else { format };
    kind(expected) == kind(found)
}
