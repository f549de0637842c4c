//! DPX (SMPTE 268M): grey, RGB and RGBA in one piece, 8 to 16 bits, in either byte order.

use kiln_types::FileFormat;

use crate::{
    fault::ImageFault,
    picture::{Black, Head, Sink},
    raster::{Bits, Fields, Packing, Raster},
    source::PictureSource,
};

/// The channels of a pixel, and for each of its samples the channel that it is.
fn channels(descriptor: u8) -> Result<(&'static str, &'static [usize]), ImageFault> {
    match descriptor {
        6 => Ok(("Y", &[0])),
        50 => Ok(("RGB", &[0, 1, 2])),
        51 => Ok(("RGBA", &[0, 1, 2, 3])),
        52 => Ok(("RGBA", &[3, 2, 1, 0])),
        other => Err(ImageFault::unsupported(format!("a DPX with pixels of the kind {other}"))),
    }
}

/// Reads the header.
pub(crate) fn raster(source: &mut PictureSource<'_>) -> Result<Raster, ImageFault> {
    let bytes = source.array::<2048>()?;
    let header = Fields { bytes: &bytes, big_endian: bytes.starts_with(b"SDPX") };
    let (width, height) = (header.u32(772), header.u32(776));
    if width == 0 || height == 0 {
        return Err(ImageFault::damaged("its header makes no sense"));
    }
    if header.u16(768) != 0 {
        return Err(ImageFault::unsupported("a DPX that is mirrored or turned"));
    }
    if header.u16(770) != 1 {
        return Err(ImageFault::unsupported("a DPX with its channels apart"));
    }
    if header.u32(780) != 0 || header.u16(806) != 0 {
        return Err(ImageFault::unsupported("a DPX with signed or compressed samples"));
    }
    let (names, order) = channels(header.u8(800))?;
    let bits = Bits::new(header.u8(803))?;
    let packing = match header.u16(804) {
        0 => Packing::Tight,
        1 => Packing::Upper,
        2 => Packing::Lower,
        other => return Err(ImageFault::unsupported(format!("a DPX with samples packed by method {other}"))),
    };
    // Some programs set only one of the two.
    let offset = header.defined(808).filter(|offset| *offset != 0).unwrap_or(header.u32(4));
    if offset < 1408 {
        return Err(ImageFault::damaged("its pixels lie in its header"));
    }
    let (printing_density, logarithmic) = (1, 3);
    let is_log = [printing_density, logarithmic].contains(&header.u8(801));
    let mut head = Head::simple(FileFormat::Dpx, (width, height), bits.depth(), names);
    // Blender dithers 8 bits. From 4.2 it writes the other byte order and light itself, of which a little is much.
    let level = if bits == Bits::Eight && header.big_endian { 3.0 } else { 0.0 };
    head.black = Black { level, densities: is_log.then(|| bits.log_black()) };
    Ok(Raster {
        head,
        offset: u64::from(offset),
        bits,
        packing,
        big_endian: header.big_endian,
        from_low: order.len() == 1,
        order,
        row_padding: u64::from(header.defined(812).unwrap_or(0)),
        file_size: header.defined(16).filter(|size| *size != 0),
    })
}

pub(crate) fn decode(mut source: PictureSource<'_>, sink: &mut dyn Sink) -> Result<(), ImageFault> {
    raster(&mut source)?.decode(source, sink)
}
