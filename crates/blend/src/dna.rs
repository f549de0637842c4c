//! The DNA: a .blend's own description of its structs, and typed access to fields by name.

use std::{cell::OnceCell, collections::HashMap, ops::Range};

use crate::{fault::BlendFault, file::Shape};

struct Field {
    type_index: usize,
    pointer: bool,
    offset: usize,
    /// Of one element.
    size: usize,
    /// Elements of an array; 1 for a single value.
    count: usize,
}

struct Struct {
    type_index: usize,
    /// Where its fields are described: pairs of a type and a name.
    described: Range<usize>,
    /// Of a thousand structs a few dozen are looked into.
    fields: OnceCell<HashMap<Box<str>, Field>>,
}

pub(crate) struct Dna {
    shape: Shape,
    bytes: Vec<u8>,
    /// Where the texts are.
    names: Vec<Range<usize>>,
    types: Vec<Range<usize>>,
    sizes: Vec<usize>,
    structs: Vec<Struct>,
    /// Type index to struct index.
    by_type: Vec<Option<usize>>,
}

/// Reads the parts of the DNA block one after another.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    shape: Shape,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], BlendFault> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| BlendFault::dna("the description of its fields ends too early"))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn number(&mut self, size: usize) -> Result<usize, BlendFault> {
        let shape = self.shape;
        let number = shape.u64(self.take(size)?);
        usize::try_from(number).map_err(|_| BlendFault::dna("the description of its fields makes no sense"))
    }

    /// Each part begins on a multiple of four with its name.
    fn tag(&mut self, tag: &[u8; 4]) -> Result<(), BlendFault> {
        self.at = self.at.next_multiple_of(4);
        if self.take(4)? != tag {
            let tag = String::from_utf8_lossy(tag);
            return Err(BlendFault::dna(format!("the description of its fields has no part {tag}")));
        }
        Ok(())
    }

    fn texts(&mut self) -> Result<Vec<Range<usize>>, BlendFault> {
        let count = self.number(4)?;
        // Each takes a byte at least.
        if count > self.bytes.len() {
            return Err(BlendFault::dna("the description of its fields makes no sense"));
        }
        let mut texts = Vec::new();
        for _ in 0..count {
            let rest = &self.bytes[self.at..];
            let end = rest.iter().position(|byte| *byte == 0);
            let end = end.ok_or_else(|| BlendFault::dna("the description of its fields ends too early"))?;
            texts.push(self.at..self.at + end);
            self.at += end + 1;
        }
        Ok(texts)
    }
}

/// `*next`, `mat[4][4]`, `(*call)()`: name without decoration, whether a pointer, number of elements.
fn parse_name(name: &str) -> (Box<str>, bool, usize) {
    let pointer = name.starts_with('*') || name.starts_with("(*");
    let bare = name.trim_start_matches(['*', '(']);
    let end = bare.find(['[', ')']).unwrap_or(bare.len());
    let mut count = 1_usize;
    for dimension in bare[end..].split('[').skip(1) {
        let digits = dimension.split(']').next().unwrap_or_default();
        count = count.saturating_mul(digits.parse().unwrap_or(1));
    }
    (bare[..end].into(), pointer, count)
}

impl Dna {
    pub fn parse(bytes: Vec<u8>, shape: Shape) -> Result<Self, BlendFault> {
        let mut cursor = Cursor { bytes: &bytes, at: 0, shape };
        let bad = || BlendFault::dna("the description of its fields makes no sense");
        cursor.tag(b"SDNA")?;
        cursor.tag(b"NAME")?;
        let names = cursor.texts()?;
        cursor.tag(b"TYPE")?;
        let types = cursor.texts()?;
        cursor.tag(b"TLEN")?;
        let sizes = (0..types.len()).map(|_| cursor.number(2)).collect::<Result<Vec<_>, _>>()?;
        cursor.tag(b"STRC")?;
        let count = cursor.number(4)?;
        let mut structs = Vec::new();
        let mut by_type = vec![None; types.len()];
        for index in 0..count {
            let type_index = cursor.number(2)?;
            *by_type.get_mut(type_index).ok_or_else(bad)? = Some(index);
            let count = cursor.number(2)?;
            let begin = cursor.at;
            for pair in cursor.take(4 * count)?.chunks_exact(4) {
                let (kind, name) = (shape.u64(&pair[..2]) as usize, shape.u64(&pair[2..]) as usize);
                if kind >= types.len() || name >= names.len() {
                    return Err(bad());
                }
            }
            let described = begin..cursor.at;
            structs.push(Struct { type_index, described, fields: OnceCell::new() });
        }
        Ok(Self { shape, bytes, names, types, sizes, structs, by_type })
    }

    fn text(&self, texts: &[Range<usize>], index: usize) -> &str {
        let bytes = texts.get(index).and_then(|range| self.bytes.get(range.clone()));
        // A name that is no text is nobody's name.
        bytes.and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or("")
    }

    fn type_name(&self, index: usize) -> &str {
        self.text(&self.types, index)
    }

    fn field(&self, index: usize, name: &str) -> Option<&Field> {
        let one = self.structs.get(index)?;
        one.fields.get_or_init(|| self.fields(one)).get(name)
    }

    /// Up to the first that would lie beyond all memory.
    fn fields(&self, one: &Struct) -> HashMap<Box<str>, Field> {
        let mut fields = HashMap::new();
        let mut offset = 0_usize;
        for pair in self.bytes[one.described.clone()].chunks_exact(4) {
            let type_index = self.shape.u64(&pair[..2]) as usize;
            let (name, pointer, count) =
                parse_name(self.text(&self.names, self.shape.u64(&pair[2..]) as usize));
            let size =
                if pointer { self.shape.pointer } else { self.sizes.get(type_index).copied().unwrap_or(0) };
            let Some(end) = size.checked_mul(count).and_then(|all| all.checked_add(offset)) else { break };
            fields.insert(name, Field { type_index, pointer, offset, size, count });
            offset = end;
        }
        fields
    }

    /// Bytes of one struct.
    pub fn size(&self, index: usize) -> usize {
        self.structs.get(index).and_then(|s| self.sizes.get(s.type_index)).copied().unwrap_or(0)
    }

    /// Number of structs.
    pub fn len(&self) -> usize {
        self.structs.len()
    }

    /// Indices of the structs by their names.
    pub fn by_name(&self) -> HashMap<&str, usize> {
        // Of two of one name the first counts.
        (0..self.len()).rev().map(|index| (self.name(index), index)).collect()
    }

    pub fn name(&self, index: usize) -> &str {
        self.structs.get(index).map_or("", |one| self.type_name(one.type_index))
    }

    pub fn has_field(&self, index: usize, field: &str) -> bool {
        self.field(index, field).is_some()
    }

    pub fn view<'a>(&'a self, index: usize, bytes: &'a [u8]) -> View<'a> {
        View { dna: self, index, bytes }
    }
}

/// A struct's bytes. Every access is `None` where the DNA has no such field, or the bytes end before it.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    dna: &'a Dna,
    index: usize,
    bytes: &'a [u8],
}

impl<'a> View<'a> {
    pub fn struct_name(&self) -> &'a str {
        self.dna.name(self.index)
    }

    /// `r.im_format.imtype`: through structs that lie within each other.
    fn find(&self, path: &str) -> Option<(&'a Field, &'a [u8])> {
        let mut bytes = self.bytes;
        let mut index = self.index;
        let mut parts = path.split('.').peekable();
        loop {
            let field = self.dna.field(index, parts.next()?)?;
            let end = field.size.checked_mul(field.count)?.checked_add(field.offset)?;
            bytes = bytes.get(field.offset..end)?;
            if parts.peek().is_none() {
                return Some((field, bytes));
            }
            if field.pointer {
                return None;
            }
            index = (*self.dna.by_type.get(field.type_index)?)?;
        }
    }

    pub fn int(&self, path: &str) -> Option<i64> {
        let (field, bytes) = self.find(path)?;
        let bytes = bytes.get(..field.size)?;
        let raw = self.dna.shape.u64(bytes);
        Some(match self.dna.type_name(field.type_index) {
            "char" | "uchar" => i64::from(raw as u8),
            "int8_t" => i64::from(raw as u8 as i8),
            "short" => i64::from(raw as u16 as i16),
            "ushort" => i64::from(raw as u16),
            "int" => i64::from(raw as u32 as i32),
            "uint" => i64::from(raw as u32),
            "int64_t" | "uint64_t" => raw.cast_signed(),
            "float" => f32::from_bits(raw as u32) as i64,
            _ => return None,
        })
    }

    pub fn float(&self, path: &str) -> Option<f64> {
        let (field, bytes) = self.find(path)?;
        let raw = self.dna.shape.u64(bytes.get(..field.size)?);
        match self.dna.type_name(field.type_index) {
            "float" => Some(f64::from(f32::from_bits(raw as u32))),
            "double" => Some(f64::from_bits(raw)),
            _ => self.int(path).map(|int| int as f64),
        }
    }

    /// A pointer as it was in Blender's memory; `None` also for the null pointer.
    pub fn pointer(&self, path: &str) -> Option<u64> {
        let (field, bytes) = self.find(path)?;
        let raw = self.dna.shape.u64(bytes.get(..field.size)?);
        (field.pointer && raw != 0).then_some(raw)
    }

    /// A text in a field of characters, to its first NUL.
    pub fn bytes(&self, path: &str) -> Option<&'a [u8]> {
        let (field, bytes) = self.find(path)?;
        if field.pointer || field.size != 1 {
            return None;
        }
        bytes.split(|byte| *byte == 0).next()
    }

    /// Which of the struct's bytes a field takes.
    pub fn place(&self, path: &str) -> Option<std::ops::Range<usize>> {
        let (_, bytes) = self.find(path)?;
        let start = bytes.as_ptr().addr().checked_sub(self.bytes.as_ptr().addr())?;
        Some(start..start + bytes.len())
    }

    pub fn text(&self, path: &str) -> Option<String> {
        self.bytes(path).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }
}
