//! The running kernel's type information (BTF): structure members, enumerators and functions.
//!
//! Format: `Documentation/bpf/btf.rst` of Linux 5.10 and later. Only what offsets need is read; the library
//! that loads the probes keeps its own reader to itself.
use std::collections::HashMap;

const KIND_INT: u32 = 1;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_FUNC: u32 = 12;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_ENUM64: u32 = 19;
const MAX_DEPTH: u32 = 16;

/// BTF as bytes with an index of its types.
#[derive(Debug)]
pub struct Btf {
    bytes: Vec<u8>,
    strings: usize,
    /// Where each type stands; type ids start at 1.
    types: Vec<usize>,
    structs: HashMap<String, usize>,
    enumerators: HashMap<String, u32>,
}

#[derive(Clone, Copy)]
struct Type {
    at: usize,
    name: u32,
    kind: u32,
    members: usize,
    bitfields: bool,
    size_or_type: u32,
}

impl Btf {
    /// Indexes BTF; `None` when it is not little-endian BTF or ends early.
    pub fn parse(bytes: Vec<u8>) -> Option<Btf> {
        const MAGIC: u16 = 0xeb9f;
        if u16::from_le_bytes(bytes.get(..2)?.try_into().ok()?) != MAGIC {
            return None;
        }
        let header = word(&bytes, 4)? as usize;
        let types_at = header.checked_add(word(&bytes, 8)? as usize)?;
        let types_len = word(&bytes, 12)? as usize;
        let strings = header.checked_add(word(&bytes, 16)? as usize)?;
        let mut btf =
            Btf { bytes, strings, types: Vec::new(), structs: HashMap::new(), enumerators: HashMap::new() };
        let end = types_at.checked_add(types_len)?;
        let mut at = types_at;
        while at < end {
            let ty = btf.type_at(at)?;
            btf.types.push(at);
            if matches!(ty.kind, KIND_STRUCT | KIND_UNION) && ty.name != 0 {
                let name = btf.string(ty.name)?.to_owned();
                btf.structs.entry(name).or_insert(at);
            }
            if ty.kind == KIND_ENUM {
                for n in 0..ty.members {
                    let entry = at + 12 + n * 8;
                    let name = btf.string(word(&btf.bytes, entry)?)?;
                    if name.starts_with("ITER_") {
                        let name = name.to_owned();
                        btf.enumerators.insert(name, word(&btf.bytes, entry + 4)?);
                    }
                }
            }
            at = at.checked_add(12 + payload(ty))?;
        }
        Some(btf)
    }

    /// Byte offset of `structure.member.member…`; members of anonymous structures are found too.
    pub fn offset(&self, path: &str) -> Option<u32> {
        let (structure, members) = path.split_once('.')?;
        let mut at = *self.structs.get(structure)?;
        let mut offset = 0;
        let mut members = members.split('.').peekable();
        while let Some(member) = members.next() {
            let (bits, ty) = self.member(at, member, 0)?;
            offset += bits / 8;
            if members.peek().is_some() {
                at = self.resolve(ty)?.at;
            }
        }
        Some(offset)
    }

    /// Whether the kernel has a function of this name.
    pub fn has_function(&self, name: &str) -> bool {
        let functions =
            self.types.iter().filter_map(|at| self.type_at(*at)).filter(|ty| ty.kind == KIND_FUNC);
        functions.into_iter().any(|ty| self.string(ty.name) == Some(name))
    }

    /// Size of a structure in bytes.
    pub fn size(&self, structure: &str) -> Option<u32> {
        Some(self.type_at(*self.structs.get(structure)?)?.size_or_type)
    }

    /// Value of an enumerator whose name starts with `ITER_` (others are not kept).
    pub fn enumerator(&self, name: &str) -> Option<u32> {
        self.enumerators.get(name).copied()
    }

    fn member(&self, at: usize, wanted: &str, depth: u32) -> Option<(u32, u32)> {
        let ty = self.type_at(at)?;
        if !matches!(ty.kind, KIND_STRUCT | KIND_UNION) || depth > MAX_DEPTH {
            return None;
        }
        for n in 0..ty.members {
            let entry = at + 12 + n * 12;
            let name = word(&self.bytes, entry)?;
            let member = word(&self.bytes, entry + 4)?;
            let raw = word(&self.bytes, entry + 8)?;
            let bits = if ty.bitfields { raw & 0x00ff_ffff } else { raw };
            if name == 0 {
                let inner = self.resolve(member).and_then(|ty| self.member(ty.at, wanted, depth + 1));
                if let Some((more, found)) = inner {
                    return Some((bits + more, found));
                }
            } else if self.string(name)? == wanted {
                return Some((bits, member));
            }
        }
        None
    }

    /// Follows typedefs and qualifiers.
    fn resolve(&self, mut id: u32) -> Option<Type> {
        const KIND_TYPEDEF: u32 = 8;
        const KIND_RESTRICT: u32 = 11;
        const KIND_TYPE_TAG: u32 = 18;
        for _ in 0..MAX_DEPTH {
            let ty = self.type_at(*self.types.get((id as usize).checked_sub(1)?)?)?;
            match ty.kind {
                KIND_TYPEDEF..=KIND_RESTRICT | KIND_TYPE_TAG => id = ty.size_or_type,
                _ => return Some(ty),
            }
        }
        None
    }

    fn type_at(&self, at: usize) -> Option<Type> {
        let info = word(&self.bytes, at + 4)?;
        Some(Type {
            at,
            name: word(&self.bytes, at)?,
            kind: info >> 24 & 0x1f,
            members: (info & 0xffff) as usize,
            bitfields: info >> 31 == 1,
            size_or_type: word(&self.bytes, at + 8)?,
        })
    }

    fn string(&self, offset: u32) -> Option<&str> {
        let rest = self.bytes.get(self.strings.checked_add(offset as usize)?..)?;
        let end = rest.iter().position(|byte| *byte == 0)?;
        std::str::from_utf8(rest.get(..end)?).ok()
    }
}

/// Bytes behind a type's fixed part.
fn payload(ty: Type) -> usize {
    match ty.kind {
        KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
        KIND_ARRAY => 12,
        KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => ty.members * 12,
        KIND_ENUM | KIND_FUNC_PROTO => ty.members * 8,
        _ => 0,
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}
