//! Makes .blend files from descriptions of structs, in every shape that Blender ever wrote.

// Each test uses a part of it.
#![allow(dead_code)]

/// A struct: its name, and its fields as type and decorated name.
pub type Struct = (&'static str, &'static [(&'static str, &'static str)]);

pub struct Maker {
    pub header: &'static str,
    pub structs: &'static [Struct],
}

#[derive(Clone, Copy)]
pub enum Value<'a> {
    /// Also a pointer.
    Int(i64),
    Float(f32),
    Text(&'a str),
}

impl Maker {
    fn pointer(&self) -> usize {
        if self.header.as_bytes()[7] == b'_' { 4 } else { 8 }
    }

    fn number(&self, number: u64, size: usize) -> Vec<u8> {
        if self.header.contains('V') {
            number.to_be_bytes()[8 - size..].to_vec()
        } else {
            number.to_le_bytes()[..size].to_vec()
        }
    }

    fn index(&self, name: &str) -> Option<usize> {
        self.structs.iter().position(|(own, _)| *own == name)
    }

    fn size_of_type(&self, name: &str) -> usize {
        match name {
            "char" => 1,
            "short" => 2,
            "int" | "float" => 4,
            _ => self.index(name).map_or(0, |index| {
                let fields = self.structs[index].1.iter();
                fields.map(|(kind, name)| self.size_of_field(kind, name)).sum()
            }),
        }
    }

    fn size_of_field(&self, kind: &str, name: &str) -> usize {
        if name.starts_with('*') {
            return self.pointer();
        }
        let count = name.split_once('[').map_or(1, |(_, rest)| rest.trim_end_matches(']').parse().unwrap());
        count * self.size_of_type(kind)
    }

    /// The offset of a field, through structs within structs, and its length.
    fn place(&self, strukt: &str, path: &str) -> (usize, usize) {
        let (wanted, rest) = path.split_once('.').unwrap_or((path, ""));
        let mut offset = 0;
        for (kind, name) in self.structs[self.index(strukt).unwrap()].1 {
            let size = self.size_of_field(kind, name);
            if name.trim_start_matches('*').split('[').next() == Some(wanted) {
                let (inner, size) = if rest.is_empty() { (0, size) } else { self.place(kind, rest) };
                return (offset + inner, size);
            }
            offset += size;
        }
        panic!("{strukt} has no field {path}")
    }

    pub fn bytes(&self, strukt: &str, values: &[(&str, Value<'_>)]) -> Vec<u8> {
        let mut bytes = vec![0; self.size_of_type(strukt)];
        for (path, value) in values {
            let (at, size) = self.place(strukt, path);
            let new = match value {
                Value::Int(number) => self.number(number.cast_unsigned(), size),
                Value::Float(number) => self.number(u64::from(number.to_bits()), size),
                Value::Text(text) => text.as_bytes().to_vec(),
            };
            bytes[at..at + new.len()].copy_from_slice(&new);
        }
        bytes
    }

    pub fn block(&self, code: &[u8; 4], strukt: &str, old: u64, values: &[(&str, Value<'_>)]) -> Vec<u8> {
        self.raw_block(code, self.index(strukt).unwrap(), old, &self.bytes(strukt, values))
    }

    fn raw_block(&self, code: &[u8; 4], sdna: usize, old: u64, payload: &[u8]) -> Vec<u8> {
        let (sdna, len) = (self.number(sdna as u64, 4), payload.len() as u64);
        let old = self.number(old, self.pointer());
        let head = if self.header.len() == 17 {
            [&code[..], &sdna, &old, &self.number(len, 8), &self.number(1, 8)].concat()
        } else {
            [&code[..], &self.number(len, 4), &old, &sdna, &self.number(1, 4)].concat()
        };
        [&head[..], payload].concat()
    }

    fn dna(&self) -> Vec<u8> {
        let mut types = vec!["char", "short", "int", "float"];
        let mut names: Vec<&str> = Vec::new();
        types.extend(self.structs.iter().map(|(name, _)| *name));
        for (kind, name) in self.structs.iter().flat_map(|(_, fields)| *fields) {
            if !types.contains(kind) {
                types.push(kind);
            }
            if !names.contains(name) {
                names.push(name);
            }
        }
        let index = |all: &[&str], one: &str| all.iter().position(|other| *other == one).unwrap() as u64;
        let aligned = |out: &mut Vec<u8>| out.resize(out.len().next_multiple_of(4), 0);
        let mut out = b"SDNA".to_vec();
        for (tag, texts) in [(b"NAME", &names), (b"TYPE", &types)] {
            out.extend(tag);
            out.extend(self.number(texts.len() as u64, 4));
            texts.iter().for_each(|text| out.extend([text.as_bytes(), b"\0"].concat()));
            aligned(&mut out);
        }
        out.extend(b"TLEN");
        types.iter().for_each(|kind| out.extend(self.number(self.size_of_type(kind) as u64, 2)));
        aligned(&mut out);
        out.extend(b"STRC");
        out.extend(self.number(self.structs.len() as u64, 4));
        for (name, fields) in self.structs {
            out.extend([self.number(index(&types, name), 2), self.number(fields.len() as u64, 2)].concat());
            for (kind, name) in *fields {
                out.extend(
                    [self.number(index(&types, kind), 2), self.number(index(&names, name), 2)].concat(),
                );
            }
        }
        out
    }

    pub fn file(&self, blocks: &[Vec<u8>]) -> Vec<u8> {
        let dna = self.raw_block(b"DNA1", 0, 0, &self.dna());
        let end = self.raw_block(b"ENDB", 0, 0, &[]);
        [self.header.as_bytes(), &blocks.concat(), &dna, &end].concat()
    }
}

/// As in files of Blender 2.5 to 2.79, and the collections of those after.
pub const STRUCTS: &[Struct] = &[
    ("ListBase", &[("void", "*first"), ("void", "*last")]),
    (
        "ID",
        &[
            ("void", "*next"),
            ("void", "*prev"),
            ("Library", "*lib"),
            ("char", "name[66]"),
            ("short", "flag"),
            ("IDProperty", "*properties"),
        ],
    ),
    ("FileGlobal", &[("short", "subversion"), ("Scene", "*curscene")]),
    ("ImageFormatData", &[("char", "imtype"), ("char", "depth"), ("char", "planes"), ("char", "flag")]),
    (
        "RenderData",
        &[
            ("ImageFormatData", "im_format"),
            ("int", "cfra"),
            ("int", "sfra"),
            ("int", "efra"),
            ("short", "size"),
            ("int", "xsch"),
            ("int", "ysch"),
            ("int", "frame_step"),
            ("ListBase", "layers"),
            ("short", "frs_sec"),
            ("float", "frs_sec_base"),
            ("char", "pic[1024]"),
            ("char", "engine[32]"),
        ],
    ),
    (
        "Scene",
        &[
            ("ID", "id"),
            ("Object", "*camera"),
            ("ListBase", "base"),
            ("RenderData", "r"),
            ("ListBase", "markers"),
            ("Collection", "*master_collection"),
        ],
    ),
    (
        "SceneRenderLayer",
        &[
            ("SceneRenderLayer", "*next"),
            ("SceneRenderLayer", "*prev"),
            ("char", "name[64]"),
            ("int", "lay"),
            ("int", "layflag"),
        ],
    ),
    (
        "TimeMarker",
        &[
            ("TimeMarker", "*next"),
            ("TimeMarker", "*prev"),
            ("int", "frame"),
            ("char", "name[64]"),
            ("Object", "*camera"),
        ],
    ),
    ("Base", &[("Base", "*next"), ("Base", "*prev"), ("int", "lay"), ("Object", "*object")]),
    ("Object", &[("ID", "id"), ("short", "type"), ("ListBase", "modifiers"), ("char", "restrictflag")]),
    (
        "ModifierData",
        &[
            ("ModifierData", "*next"),
            ("ModifierData", "*prev"),
            ("int", "type"),
            ("int", "mode"),
            ("char", "name[64]"),
        ],
    ),
    ("ClothModifierData", &[("ModifierData", "modifier"), ("PointCache", "*point_cache")]),
    (
        "PointCache",
        &[("PointCache", "*next"), ("PointCache", "*prev"), ("int", "flag"), ("char", "path[1024]")],
    ),
    ("Image", &[("ID", "id"), ("char", "name[1024]"), ("short", "source"), ("PackedFile", "*packedfile")]),
    ("Library", &[("ID", "id"), ("char", "name[1024]"), ("char", "filepath[1024]")]),
    ("Collection", &[("ID", "id"), ("ListBase", "gobject"), ("ListBase", "children")]),
    ("CollectionObject", &[("CollectionObject", "*next"), ("CollectionObject", "*prev"), ("Object", "*ob")]),
    (
        "CollectionChild",
        &[("CollectionChild", "*next"), ("CollectionChild", "*prev"), ("Collection", "*collection")],
    ),
];
