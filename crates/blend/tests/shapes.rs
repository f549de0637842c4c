//! Files made by hand: every pointer size, byte order and block head that Blender ever wrote, and lies.

#![allow(clippy::unwrap_used)]

use std::io::Cursor;

use kiln_blend::{
    BlendFault, ExternalFile, Inspection, ReadLimits, RewriteFault, inspect_reader, rewrite_reader,
};

#[derive(Clone, Copy)]
struct FileEncoding {
    header: &'static str,
    pointer: usize,
    big: bool,
    large: bool,
}

const SHAPES: &[FileEncoding] = &[
    FileEncoding { header: "BLENDER_v250", pointer: 4, big: false, large: false },
    FileEncoding { header: "BLENDER_V263", pointer: 4, big: true, large: false },
    FileEncoding { header: "BLENDER-v279", pointer: 8, big: false, large: false },
    FileEncoding { header: "BLENDER-V405", pointer: 8, big: true, large: false },
    FileEncoding { header: "BLENDER17-01v0500", pointer: 8, big: false, large: true },
];

impl FileEncoding {
    fn number(&self, number: u64, size: usize) -> Vec<u8> {
        if self.big {
            number.to_be_bytes()[8 - size..].to_vec()
        } else {
            number.to_le_bytes()[..size].to_vec()
        }
    }

    fn block(&self, code: &[u8; 4], sdna: u64, old: u64, payload: &[u8]) -> Vec<u8> {
        let (sdna, len) = (self.number(sdna, 4), payload.len() as u64);
        let old = self.number(old, self.pointer);
        let head = if self.large {
            [&code[..], &sdna, &old, &self.number(len, 8), &self.number(1, 8)].concat()
        } else {
            [&code[..], &self.number(len, 4), &old, &sdna, &self.number(1, 4)].concat()
        };
        [&head[..], payload].concat()
    }

    /// Types: int, char, ID, RenderData, Scene, FileGlobal, Object, Image, Text.
    fn dna(&self) -> Vec<u8> {
        let names = [
            "name[66]",
            "sfra",
            "efra",
            "xsch",
            "ysch",
            "size",
            "id",
            "r",
            "*camera",
            "*curscene",
            "type",
            "name[24]",
            "*name",
        ];
        let types = ["int", "char", "ID", "RenderData", "Scene", "FileGlobal", "Object", "Image", "Text"];
        let (p, id) = (self.pointer, 66);
        let sizes = [4, 1, id, 20, id + 20 + p, p, id + 4, id + 24, id + p];
        // Struct: type, then fields as (type, name).
        let structs: &[(u64, &[(u64, u64)])] = &[
            (2, &[(1, 0)]),
            (3, &[(0, 1), (0, 2), (0, 3), (0, 4), (0, 5)]),
            (4, &[(2, 6), (3, 7), (6, 8)]),
            (5, &[(4, 9)]),
            (6, &[(2, 6), (0, 10)]),
            (7, &[(2, 6), (1, 11)]),
            (8, &[(2, 6), (1, 12)]),
        ];
        let mut out = b"SDNANAME".to_vec();
        let texts = |out: &mut Vec<u8>, texts: &[&str]| {
            out.extend(self.number(texts.len() as u64, 4));
            texts.iter().for_each(|text| out.extend([text.as_bytes(), b"\0"].concat()));
            out.resize(out.len().next_multiple_of(4), 0);
        };
        texts(&mut out, &names);
        out.extend(b"TYPE");
        texts(&mut out, &types);
        out.extend(b"TLEN");
        sizes.iter().for_each(|size| out.extend(self.number(*size as u64, 2)));
        out.resize(out.len().next_multiple_of(4), 0);
        out.extend(b"STRC");
        out.extend(self.number(structs.len() as u64, 4));
        for (kind, fields) in structs {
            out.extend(self.number(*kind, 2));
            out.extend(self.number(fields.len() as u64, 2));
            fields.iter().for_each(|(t, n)| out.extend([self.number(*t, 2), self.number(*n, 2)].concat()));
        }
        out
    }

    fn id(name: &str) -> Vec<u8> {
        let mut id = name.as_bytes().to_vec();
        id.resize(66, 0);
        id
    }

    fn scene(&self, name: &str, end: u64, camera: u64) -> Vec<u8> {
        let mut bytes = Self::id(name);
        for number in [1, end, 320, 180, 50] {
            bytes.extend(self.number(number, 4));
        }
        bytes.extend(self.number(camera, self.pointer));
        bytes
    }

    fn blocks(&self) -> Vec<Vec<u8>> {
        self.blocks_with("//a.png", "//t")
    }

    /// With the names of an image, in a field, and of a text, in a block of its own.
    fn blocks_with(&self, image: &str, text: &str) -> Vec<Vec<u8>> {
        let mut of_image = [&Self::id("IMwood")[..], image.as_bytes()].concat();
        of_image.resize(66 + 24, 0);
        let of_text = [Self::id("TXnotes"), self.number(0x70, self.pointer)].concat();
        let mut name = [text.as_bytes(), b"\0"].concat();
        name.resize(name.len().next_multiple_of(4), 0);
        let camera = [Self::id("OBEye"), self.number(11, 4)].concat();
        vec![
            self.block(b"GLOB", 3, 0x30, &self.number(0x20, self.pointer)),
            self.block(b"SC\0\0", 2, 0x10, &self.scene("SCOne", 9, 0)),
            self.block(b"SC\0\0", 2, 0x20, &self.scene("SCTwo", 250, 0x40)),
            self.block(b"OB\0\0", 4, 0x40, &camera),
            self.block(b"DNA1", 0, 0, &self.dna()),
            self.block(b"IM\0\0", 5, 0x50, &of_image),
            self.block(b"TX\0\0", 6, 0x60, &of_text),
            self.block(b"DATA", 0, 0x70, &name),
            self.block(b"ENDB", 0, 0, &[]),
        ]
    }

    fn file(&self, blocks: &[Vec<u8>]) -> Vec<u8> {
        [self.header.as_bytes(), &blocks.concat()].concat()
    }
}

fn inspect(bytes: &[u8]) -> Result<Inspection, BlendFault> {
    inspect_reader(Cursor::new(bytes), &ReadLimits::default())
}

fn rewrite(bytes: &[u8], rename: impl Fn(&ExternalFile) -> Option<Vec<u8>>) -> Result<Vec<u8>, RewriteFault> {
    let mut copy = Vec::new();
    rewrite_reader(Cursor::new(bytes), &ReadLimits::default(), &mut copy, rename)?;
    Ok(copy)
}

#[test]
fn names_are_rewritten_in_every_shape() {
    for shape in SHAPES {
        let file = shape.file(&shape.blocks());
        for (image, text) in [("//b/wood.png", "//longer/notes.txt"), ("//c", "//"), ("//a.png", "//123456")]
        {
            let copy = rewrite(&file, |file| Some(if file.owner == "IMwood" { image } else { text }.into()));
            assert_eq!(copy.unwrap(), shape.file(&shape.blocks_with(image, text)), "{}", shape.header);
        }
        assert_eq!(rewrite(&file, |_| None).unwrap(), file);
        // What lies behind the end mark is not Kiln's to judge.
        let longer = [&file[..], b"more"].concat();
        assert_eq!(rewrite(&longer, |_| None).unwrap(), longer);
    }
}

#[test]
fn every_shape_reads_the_same() {
    for shape in SHAPES {
        let found =
            inspect(&shape.file(&shape.blocks())).unwrap_or_else(|fault| panic!("{}: {fault}", shape.header));
        assert_eq!(found.active_scene.as_deref(), Some("Two"), "{}", shape.header);
        let scene = found.active().unwrap();
        assert_eq!((scene.frame_start, scene.frame_end), (1, 250), "{}", shape.header);
        assert_eq!((scene.width, scene.height, scene.percent), (320, 180, 50), "{}", shape.header);
        assert_eq!(scene.camera.as_deref(), Some("Eye"), "{}", shape.header);
        assert_eq!(found.cameras, ["Eye"]);
        assert_eq!(found.scenes[0].camera, None);
    }
}

#[test]
fn every_cut_and_every_flipped_bit_of_every_shape() {
    for shape in SHAPES {
        let file = shape.file(&shape.blocks());
        for cut in 0..file.len() {
            assert!(inspect(&file[..cut]).is_err(), "{} cut at {cut} passes", shape.header);
            assert!(rewrite(&file[..cut], |_| None).is_err(), "{} cut at {cut} is copied", shape.header);
        }
        for bit in 0..file.len() * 8 {
            let mut broken = file.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            let _ = inspect(&broken);
            let _ = rewrite(&broken, |_| Some(b"//new".to_vec()));
        }
    }
}

#[test]
fn lies_are_told() {
    for shape in SHAPES {
        let check = |blocks: Vec<Vec<u8>>, expected: &str| {
            let fault = inspect(&shape.file(&blocks)).unwrap_err().to_string();
            assert!(fault.contains(expected), "{}: {fault}", shape.header);
        };
        let blocks = || shape.blocks();
        let mut without = blocks();
        without.remove(4);
        check(without, "the description of its fields (DNA1) is missing");
        let mut short = blocks();
        short[4] = shape.block(b"DNA1", 0, 0, b"SDNANAME\xff\xff\xff\xff");
        check(short, "the description of its fields makes no sense");
        let mut other = blocks();
        other[4] = shape.block(b"DNA1", 0, 0, b"AND NOW FOR SOMETHING");
        check(other, "the description of its fields has no part SDNA");
        let mut long = blocks();
        let at = if shape.large { 16 } else { 4 };
        let size = if shape.large { 8 } else { 4 };
        long[1][at..at + size].copy_from_slice(&shape.number(0x7000_0000, size));
        check(long, "it is cut off: the block SC");
        let mut negative = blocks();
        negative[1][at..at + size].copy_from_slice(&shape.number(u64::MAX, size));
        check(negative, "the block SC has a negative length");
        let mut thin = blocks();
        thin[1] = shape.block(b"SC\0\0", 2, 0x10, b"SC");
        check(thin, "a scene has no name");
    }
}
