//! Cineon: grey or RGB, coded as the density of a film negative.

use kiln_types::FileFormat;

use crate::{
    fault::ImageFault,
    picture::{Head, Sink},
    raster::{Bits, Fields, Packing, Raster},
    source::PictureSource,
};

/// Reads the header.
pub(crate) fn raster(source: &mut PictureSource<'_>) -> Result<Raster, ImageFault> {
    let bytes = source.array::<2048>()?;
    let header = Fields { bytes: &bytes, big_endian: bytes.starts_with(&[0x80]) };
    // The size and the bits of the first channel.
    let (width, height) = (header.u32(200), header.u32(204));
    if width == 0 || height == 0 {
        return Err(ImageFault::damaged("its header makes no sense"));
    }
    if header.u8(192) != 0 {
        return Err(ImageFault::unsupported("a Cineon that is mirrored or turned"));
    }
    let (names, order): (_, &'static [usize]) = match header.u8(193) {
        1 => ("Y", &[0]),
        3 => ("RGB", &[0, 1, 2]),
        other => return Err(ImageFault::unsupported(format!("a Cineon with {other} channels"))),
    };
    let bits = Bits::new(header.u8(198))?;
    let (interleave, sign, sense) = (header.u8(680), header.u8(682), header.u8(683));
    if (interleave, sign, sense) != (0, 0, 0) {
        return Err(ImageFault::unsupported("a Cineon with its channels apart, signed or negative"));
    }
    let packing = match header.u8(681) {
        0 => Packing::Tight,
        5 => Packing::Upper,
        6 => Packing::Lower,
        other => {
            return Err(ImageFault::unsupported(format!("a Cineon with samples packed by method {other}")));
        }
    };
    let offset = header.u32(4);
    if offset < 712 {
        return Err(ImageFault::damaged("its pixels lie in its header"));
    }
    let mut head = Head::simple(FileFormat::Cineon, (width, height), bits.depth(), names);
    head.black.densities = Some(bits.log_black());
    Ok(Raster {
        head,
        offset: u64::from(offset),
        bits,
        packing,
        big_endian: header.big_endian,
        from_low: false,
        order,
        row_padding: u64::from(header.defined(684).unwrap_or(0)),
        file_size: header.defined(20).filter(|size| *size != 0),
    })
}

pub(crate) fn decode(mut source: PictureSource<'_>, sink: &mut dyn Sink) -> Result<(), ImageFault> {
    raster(&mut source)?.decode(source, sink)
}
