//! The DNA: a .blend's own description of its structs, and typed access to fields by name.

use std::{cell::RefCell, ops::Range, rc::Rc};

use foldhash::HashMap;

use crate::{fault::BlendFault, file::FileEncoding};

/// Fields whose places are remembered.
const MAX_FOUND: usize = 1 << 16;

/// Pointers of one struct that are followed. Blender's own have fewer than a hundred.
const MAX_POINTERS: usize = 512;
/// Structs whose pointers are looked for. Blender has about a thousand.
const MAX_REMEMBERED: usize = 4096;
/// Structs within structs.
const MAX_NESTED: usize = 16;
/// Datablocks that are not followed to: a scene shows what is its own, and no picture is drawn by the others.
const LEADS_NOWHERE: [&[u8]; 9] = [
    b"Scene",
    b"Library",
    b"Text",
    b"Brush",
    b"Palette",
    b"PaintCurve",
    b"bScreen",
    b"WorkSpace",
    b"wmWindowManager",
];

#[derive(Clone, Copy)]
enum Number {
    U8,
    I8,
    I16,
    U16,
    I32,
    U32,
    I64,
    F32,
    F64,
}

#[derive(Clone, Copy)]
struct Field {
    type_index: usize,
    pointer: bool,
    offset: usize,
    /// Of one element.
    size: usize,
    /// Elements of an array; 1 for a single value.
    count: usize,
    /// `None` for what is no number.
    number: Option<Number>,
}

impl Field {
    /// `None` for what would lie beyond all memory.
    fn end(&self) -> Option<usize> {
        self.size.checked_mul(self.count)?.checked_add(self.offset)
    }
}

struct Struct {
    type_index: usize,
    /// The bytes that describe its fields: pairs of a type and a name.
    described: Range<usize>,
}

pub(crate) struct Dna {
    shape: FileEncoding,
    bytes: Vec<u8>,
    /// The offsets of the texts. Each ends with a NUL.
    names: Vec<u32>,
    types: Vec<u32>,
    sizes: Vec<usize>,
    structs: Vec<Struct>,
    /// Type index to struct index.
    by_type: Vec<Option<usize>>,
    /// The fields that were looked up: a few hundred of all, and those for every block. The key is the struct and the
    /// address of the path, which is quicker to compare than its text.
    found: RefCell<HashMap<(usize, *const str), Option<Field>>>,
    /// By struct.
    pointers: RefCell<HashMap<usize, Rc<Pointers>>>,
}

/// The offsets of a struct's pointers to datablocks, of whatever name.
#[derive(Default)]
pub(crate) struct Pointers {
    one: Vec<usize>,
    /// To lists of such pointers.
    many: Vec<usize>,
    /// The end of the last of them.
    pub end: usize,
}

impl Pointers {
    pub fn is_empty(&self) -> bool {
        self.one.is_empty() && self.many.is_empty()
    }
}

/// Reads the parts of the DNA block one after another.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    shape: FileEncoding,
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

    fn texts(&mut self) -> Result<Vec<u32>, BlendFault> {
        let count = self.number(4)?;
        let bad = || BlendFault::dna("the description of its fields makes no sense");
        // Each takes a byte at least.
        if count > self.bytes.len() || u32::try_from(self.bytes.len()).is_err() {
            return Err(bad());
        }
        let begin = self.at;
        let mut texts = Vec::with_capacity(count);
        for end in memchr::memchr_iter(0, &self.bytes[begin..]).take(count) {
            texts.push(self.at as u32);
            self.at = begin + end + 1;
        }
        if texts.len() < count {
            return Err(BlendFault::dna("the description of its fields ends too early"));
        }
        Ok(texts)
    }
}

/// `*next`, `mat[4][4]`, `(*call)()`: name without decoration, how often a pointer, number of elements.
fn parse_name(name: &[u8]) -> (&[u8], usize, usize) {
    let pointers = name.iter().filter(|byte| **byte != b'(').take_while(|byte| **byte == b'*').count();
    let start = name.iter().position(|byte| !matches!(byte, b'*' | b'(')).unwrap_or(name.len());
    let bare = &name[start..];
    let end = bare.iter().position(|byte| matches!(byte, b'[' | b')')).unwrap_or(bare.len());
    let mut count = 1_usize;
    for dimension in bare[end..].split(|byte| *byte == b'[').skip(1) {
        let digits = dimension.split(|byte| *byte == b']').next().unwrap_or_default();
        let digits = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
        count = count.saturating_mul(digits.unwrap_or(1));
    }
    (&bare[..end], pointers, count)
}

impl Dna {
    pub fn parse(bytes: Vec<u8>, shape: FileEncoding) -> Result<Self, BlendFault> {
        let mut cursor = Cursor { bytes: &bytes, at: 0, shape };
        let bad = || BlendFault::dna("the description of its fields makes no sense");
        cursor.tag(b"SDNA")?;
        cursor.tag(b"NAME")?;
        let names = cursor.texts()?;
        cursor.tag(b"TYPE")?;
        let types = cursor.texts()?;
        cursor.tag(b"TLEN")?;
        let sizes = cursor.take(2 * types.len())?.chunks_exact(2).map(|size| shape.u16(size)).collect();
        cursor.tag(b"STRC")?;
        let count = cursor.number(4)?;
        let mut structs = Vec::new();
        let mut by_type = vec![None; types.len()];
        for index in 0..count {
            let type_index = cursor.number(2)?;
            *by_type.get_mut(type_index).ok_or_else(bad)? = Some(index);
            let count = cursor.number(2)?;
            let begin = cursor.at;
            let is_known = |pair: &[u8]| shape.u16(pair) < types.len() && shape.u16(&pair[2..]) < names.len();
            if !cursor.take(4 * count)?.chunks_exact(4).all(is_known) {
                return Err(bad());
            }
            structs.push(Struct { type_index, described: begin..cursor.at });
        }
        let (found, pointers) = Default::default();
        Ok(Self { shape, bytes, names, types, sizes, structs, by_type, found, pointers })
    }

    /// Of the files that have it.
    pub fn shape(&self) -> FileEncoding {
        self.shape
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn text(&self, texts: &[u32], index: usize) -> &[u8] {
        let rest = texts.get(index).and_then(|start| self.bytes.get(*start as usize..)).unwrap_or_default();
        &rest[..memchr::memchr(0, rest).unwrap_or(rest.len())]
    }

    fn type_name(&self, index: usize) -> &[u8] {
        self.text(&self.types, index)
    }

    fn number(&self, type_index: usize) -> Option<Number> {
        Some(match self.type_name(type_index) {
            b"char" | b"uchar" => Number::U8,
            b"int8_t" => Number::I8,
            b"short" => Number::I16,
            b"ushort" => Number::U16,
            b"int" => Number::I32,
            b"uint" => Number::U32,
            b"int64_t" | b"uint64_t" => Number::I64,
            b"float" => Number::F32,
            b"double" => Number::F64,
            _ => return None,
        })
    }

    /// `r.im_format.imtype`: through structs that lie within each other.
    fn field(&self, index: usize, path: &'static str) -> Option<Field> {
        let asked = (index, std::ptr::from_ref(path));
        if let Some(known) = self.found.borrow().get(&asked) {
            return *known;
        }
        let field = self.look_up(index, path);
        let mut found = self.found.borrow_mut();
        // Only a file that is made to do so asks for more.
        if found.len() >= MAX_FOUND {
            found.clear();
        }
        found.insert(asked, field);
        field
    }

    fn look_up(&self, index: usize, path: &str) -> Option<Field> {
        let mut parts = path.split('.');
        let mut field = self.own_field(index, parts.next()?)?;
        for part in parts {
            let inside = self.struct_of(field.type_index).filter(|_| !field.pointer)?;
            let inner = self.own_field(inside, part)?;
            let offset = field.offset.checked_add(inner.offset)?;
            let inner = Field { offset, ..inner };
            // What lies within cannot reach beyond.
            if inner.end()? > field.end()? {
                return None;
            }
            field = inner;
        }
        Some(field)
    }

    fn own_field(&self, index: usize, wanted: &str) -> Option<Field> {
        let (.., field) = self.own_fields(index).find(|(name, ..)| *name == wanted.as_bytes())?;
        Some(Field { number: self.number(field.type_index), ..field })
    }

    /// Name, how often a pointer, and place; up to what would lie beyond all memory.
    fn own_fields(&self, index: usize) -> impl Iterator<Item = (&[u8], usize, Field)> {
        let described = self.structs.get(index).and_then(|one| self.bytes.get(one.described.clone()));
        let mut offset = 0;
        described.unwrap_or_default().chunks_exact(4).map_while(move |pair| {
            let type_index = self.shape.u16(pair);
            let (name, stars, count) = parse_name(self.text(&self.names, self.shape.u16(&pair[2..])));
            let pointer = stars > 0;
            let size = if pointer { self.shape.pointer } else { *self.sizes.get(type_index)? };
            let field = Field { type_index, pointer, offset, size, count, number: None };
            offset = field.end()?;
            Some((name, stars, field))
        })
    }

    /// The struct's pointers to datablocks, also those in structs that lie within it.
    pub fn pointers(&self, index: usize) -> Rc<Pointers> {
        self.pointers_within(index, 0)
    }

    fn pointers_within(&self, index: usize, depth: usize) -> Rc<Pointers> {
        if let Some(known) = self.pointers.borrow().get(&index) {
            return known.clone();
        }
        // Of a DNA that was made to have more, the others lead nowhere.
        if depth > MAX_NESTED || self.pointers.borrow().len() >= MAX_REMEMBERED {
            return Rc::default();
        }
        // A struct that lies within itself ends here.
        self.pointers.borrow_mut().insert(index, Rc::default());
        let mut found = self.find_pointers(index, depth);
        let last = found.one.iter().chain(&found.many).max();
        found.end = last.map_or(0, |last| last.saturating_add(self.shape.pointer)).min(self.size(index));
        let found = Rc::new(found);
        self.pointers.borrow_mut().insert(index, found.clone());
        found
    }

    fn find_pointers(&self, index: usize, depth: usize) -> Pointers {
        let mut all = Pointers::default();
        let name = self.name(index);
        // What an override was made from draws nothing. Every datablock's own head names but others like it.
        if name == b"ID" || name.starts_with(b"IDOverrideLibrary") || name == b"CollectionParent" {
            return all;
        }
        // An object's data, and properties.
        let of_any = self.is_datablock(index) || name == b"IDPropertyData";
        for (_, stars, field) in self.own_fields(index) {
            let places = (0..field.count.min(MAX_POINTERS)).map(|at| field.offset + at * field.size);
            match stars {
                0 => {
                    let Some(inside) = self.struct_of(field.type_index) else { continue };
                    let inside = self.pointers_within(inside, depth + 1);
                    if inside.is_empty() {
                        continue;
                    }
                    for place in places {
                        all.one.extend(inside.one.iter().map(|at| place.saturating_add(*at)));
                        all.many.extend(inside.many.iter().map(|at| place.saturating_add(*at)));
                        if all.one.len() + all.many.len() > MAX_POINTERS {
                            return all;
                        }
                    }
                }
                1 if self.leads_on(field.type_index, of_any) => all.one.extend(places),
                2 if self.leads_on(field.type_index, false) => all.many.extend(places),
                _ => {}
            }
            if all.one.len() + all.many.len() > MAX_POINTERS {
                return all;
            }
        }
        all
    }

    /// A value of this type may be a datablock that needs others.
    fn leads_on(&self, type_index: usize, of_any: bool) -> bool {
        let name = self.type_name(type_index);
        if name == b"void" {
            return of_any;
        }
        let is_datablock = || self.struct_of(type_index).is_some_and(|index| self.is_datablock(index));
        name == b"ID" || (!LEADS_NOWHERE.contains(&name) && is_datablock())
    }

    fn struct_of(&self, type_index: usize) -> Option<usize> {
        *self.by_type.get(type_index)?
    }

    /// Every datablock begins with an ID.
    fn is_datablock(&self, index: usize) -> bool {
        self.own_fields(index)
            .next()
            .is_some_and(|(_, stars, field)| stars == 0 && self.type_name(field.type_index) == b"ID")
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
    pub fn by_name(&self) -> HashMap<&[u8], usize> {
        // Of two of one name the first counts.
        (0..self.len()).rev().map(|index| (self.name(index), index)).collect()
    }

    pub fn name(&self, index: usize) -> &[u8] {
        self.structs.get(index).map_or(b"", |one| self.type_name(one.type_index))
    }

    pub fn has_field(&self, index: usize, field: &'static str) -> bool {
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
    pub fn struct_name(&self) -> &'a [u8] {
        self.dna.name(self.index)
    }

    fn find(&self, path: &'static str) -> Option<(Field, &'a [u8])> {
        let field = self.dna.field(self.index, path)?;
        Some((field, self.bytes.get(field.offset..field.end()?)?))
    }

    pub fn int(&self, path: &'static str) -> Option<i64> {
        let (field, bytes) = self.find(path)?;
        let raw = self.dna.shape.u64(bytes.get(..field.size)?);
        Some(match field.number? {
            Number::U8 => i64::from(raw as u8),
            Number::I8 => i64::from(raw as u8 as i8),
            Number::I16 => i64::from(raw as u16 as i16),
            Number::U16 => i64::from(raw as u16),
            Number::I32 => i64::from(raw as u32 as i32),
            Number::U32 => i64::from(raw as u32),
            Number::I64 => raw.cast_signed(),
            Number::F32 => f32::from_bits(raw as u32) as i64,
            Number::F64 => return None,
        })
    }

    pub fn float(&self, path: &'static str) -> Option<f64> {
        let (field, bytes) = self.find(path)?;
        let raw = self.dna.shape.u64(bytes.get(..field.size)?);
        match field.number? {
            Number::F32 => Some(f64::from(f32::from_bits(raw as u32))),
            Number::F64 => Some(f64::from_bits(raw)),
            _ => self.int(path).map(|int| int as f64),
        }
    }

    /// A pointer as it was in Blender's memory; `None` also for the null pointer.
    pub fn pointer(&self, path: &'static str) -> Option<u64> {
        let (field, bytes) = self.find(path)?;
        let raw = self.dna.shape.u64(bytes.get(..field.size)?);
        (field.pointer && raw != 0).then_some(raw)
    }

    /// The values of the struct's pointers to datablocks; null pointers are left out.
    pub fn pointers_to_one(&self, pointers: &Pointers) -> impl Iterator<Item = u64> {
        pointers.one.iter().filter_map(|place| self.pointer_at(*place))
    }

    /// The same of those to lists of such pointers.
    pub fn pointers_to_many(&self, pointers: &Pointers) -> impl Iterator<Item = u64> {
        pointers.many.iter().filter_map(|place| self.pointer_at(*place))
    }

    fn pointer_at(&self, place: usize) -> Option<u64> {
        let raw = self.bytes.get(place..place.checked_add(self.dna.shape.pointer)?)?;
        Some(self.dna.shape.u64(raw)).filter(|old| *old != 0)
    }

    /// A text in a field of characters, to its first NUL.
    pub fn bytes(&self, path: &'static str) -> Option<&'a [u8]> {
        let (field, bytes) = self.find(path)?;
        if field.pointer || field.size != 1 {
            return None;
        }
        Some(&bytes[..memchr::memchr(0, bytes).unwrap_or(bytes.len())])
    }

    /// The range of a field in the struct's bytes.
    pub fn place(&self, path: &'static str) -> Option<std::ops::Range<usize>> {
        let (field, bytes) = self.find(path)?;
        Some(field.offset..field.offset + bytes.len())
    }

    /// The bytes of a field.
    pub fn raw(&self, path: &'static str) -> Option<&'a [u8]> {
        Some(self.find(path)?.1)
    }

    pub fn text(&self, path: &'static str) -> Option<String> {
        self.bytes(path).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }
}
