//! OpenSSL's functions in a file that does not name them: found from Python's module `_ssl`, which is in the same file.
//!
//! The tables of methods in `_ssl` say which of its functions handshakes, reads and writes, and which makes a session
//! (`Modules/_ssl.c`). Of what those call, OpenSSL 3's functions are known by their own names: they pass them on with each
//! error that they raise (`OPENSSL_FUNC`). Some raise none and are known by what they alone do between others. Whatever is
//! not found once and only once makes the file unknown.
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::rc::Rc;

use iced_x86::Code as Opcode;
use iced_x86::Decoder;
use iced_x86::DecoderOptions;
use iced_x86::OpKind;
use object::Object;
use object::ObjectSection as _;
use object::RelocationFlags;
use object::SectionKind;
use object::elf::R_X86_64_RELATIVE;

use super::code::ADDRESSES;
use super::code::Body;
use super::code::Code;
use super::code::Part;
use super::code::addresses_of;
use super::code::is_placed;
use super::openssl::Functions;

/// Bytes of a pointer, and of an entry of a table of methods: name, function, flags, help.
const POINTER: u64 = 8;
const METHOD: usize = 32;
/// The first methods of `_ssl._SSLSocket` and of `_ssl._SSLContext`.
const SOCKET: [&str; 3] = ["do_handshake", "write", "read"];
const CONTEXT: [&str; 2] = ["_wrap_socket", "_wrap_bio"];
/// Of each name as many places are looked at; one is used, and none is another's end often.
const PLACES: usize = 8;
/// Bytes of functions that are followed at most, whatever a file has; some 300 KiB are for a real one.
const FOLLOWED: u64 = 16 << 20;

/// Addresses of the functions; nothing if there is no OpenSSL below `_ssl` here.
pub(super) fn functions<'a>(
    elf: &impl Object<'a>,
    code: &Code<'_>,
) -> Option<Result<Functions, &'static str>> {
    let handshake = Name::of(elf, code, "SSL_do_handshake");
    if handshake.parts.is_empty() {
        return None;
    }
    let data = Data::of(elf);
    let [handshakes, writes, reads] = data.methods(elf, SOCKET)?;
    let [socket, bio] = data.methods(elf, CONTEXT)?;
    let mut search = Search { code, known: BTreeMap::new(), left: FOLLOWED };
    let name = |name| Name::of(elf, code, name);
    let mut all = || {
        let handshake = handshake.function(code)?;
        search.near(handshakes).iter().any(|near| near.contains(&handshake)).then_some(())?;
        let (read, read_ex) = search.mover(reads, &name("ssl_read_internal"), &name("SSL_read"))?;
        let (write, write_ex) = search.mover(writes, &name("ssl_write_internal"), &name("SSL_write"))?;
        let set_fd = name("SSL_set_fd").function(code)?;
        let makes = search.only_near(socket, |body| body.calls.contains(&set_fd))?;
        search.near(bio).iter().any(|near| near.contains(&makes)).then_some(())?;
        let (makes, set_fd) = (search.body(makes)?, search.body(set_fd)?);
        let made = only(makes.calls.intersection(&set_fd.calls).copied())?;
        let accepts = search.accepts(&makes)?;
        // Without `SSL_free`: the next session at its address passes `SSL_set_bio`, which forgets the last one.
        Some([write, write_ex, read, read_ex, None, Some(handshake), Some(accepts), Some(made)])
    };
    Some(all().ok_or("it does not name its functions, and they are not certain without"))
}

/// Where a name stands, the first few places.
fn places<'a>(elf: &impl Object<'a>, name: &str) -> Vec<u64> {
    let mut places = addresses_of(elf, &[name.as_bytes(), b"\0"].concat());
    places.truncate(PLACES);
    places
}

/// What is there, if there is just one.
fn only<T>(mut all: impl Iterator<Item = T>) -> Option<T> {
    let first = all.next()?;
    all.next().is_none().then_some(first)
}

/// The name of a function, where that itself uses it.
struct Name {
    parts: BTreeSet<Part>,
}

impl Name {
    fn of<'a>(elf: &impl Object<'a>, code: &Code<'_>, name: &str) -> Name {
        let parts = places(elf, name).into_iter().flat_map(|place| code.parts_that_refer_to(place));
        Name { parts: parts.flatten().collect() }
    }

    /// The function, if all that use it are parts of one.
    fn function(&self, code: &Code<'_>) -> Option<u64> {
        let functions = self.parts.iter().map(|part| Some(code.function_of(*part)?.0));
        only(functions.collect::<Option<BTreeSet<u64>>>()?.into_iter())
    }

    fn is_used_in(&self, body: &Body) -> bool {
        body.parts.iter().any(|part| self.parts.contains(part))
    }
}

/// Follows calls.
struct Search<'a> {
    code: &'a Code<'a>,
    known: BTreeMap<u64, Option<Rc<Body>>>,
    /// Bytes that may still be followed.
    left: u64,
}

impl Search<'_> {
    fn body(&mut self, function: u64) -> Option<Rc<Body>> {
        if let Some(known) = self.known.get(&function) {
            return known.clone();
        }
        let body = self.code.body(function).map(Rc::new);
        let bytes = body.iter().flat_map(|body| &body.parts).map(|(begin, end)| end.saturating_sub(*begin));
        self.left = self.left.checked_sub(bytes.sum())?;
        self.known.insert(function, body.clone());
        body
    }

    /// A function, what it calls, what that calls.
    fn near(&mut self, function: u64) -> [BTreeSet<u64>; 3] {
        let mut next = |from: &BTreeSet<u64>| -> BTreeSet<u64> {
            from.iter()
                .filter_map(|function| self.body(*function))
                .flat_map(|body| body.calls.clone())
                .collect()
        };
        let own = BTreeSet::from([function]);
        let first = next(&own);
        let second = next(&first);
        [own, first, second]
    }

    /// The only such function that is as near as that.
    fn only_near(&mut self, function: u64, is_one: impl Fn(&Body) -> bool) -> Option<u64> {
        for near in self.near(function) {
            let mut found =
                near.into_iter().filter(|function| self.body(*function).is_some_and(|body| is_one(&body)));
            if let Some(first) = found.next() {
                return found.next().is_none().then_some(first);
            }
        }
        None
    }

    /// `SSL_read`, or else `SSL_read_ex`, whichever the method calls: both call what is named here first, and the former
    /// names itself, too.
    fn mover(&mut self, method: u64, internal: &Name, plain: &Name) -> Option<(Option<u64>, Option<u64>)> {
        let internal = internal.function(self.code)?;
        let mover = self.only_near(method, |body| body.calls.contains(&internal))?;
        let callers: BTreeSet<Part> = self.code.callers(internal).collect();
        let mut bodies = callers.into_iter().filter_map(|part| self.body(part.0));
        bodies.any(|body| plain.is_used_in(&body)).then_some(())?;
        let is_plain = plain.is_used_in(&*self.body(mover)?);
        Some(if is_plain { (Some(mover), None) } else { (None, Some(mover)) })
    }

    /// `SSL_set_accept_state`. What makes sessions calls it or `SSL_set_connect_state`, the only two that do the same but for
    /// one number, `server`: it is 1 after the one and 0 after the other.
    fn accepts(&mut self, makes: &Body) -> Option<u64> {
        let called = makes.calls.iter().filter_map(|call| Some((*call, self.body(*call)?, self.sets(*call))));
        let called: Vec<(u64, Rc<Body>, Sets)> = called.collect();
        let pairs = called.iter().flat_map(|one| called.iter().map(move |other| (one, other)));
        let servers = pairs.filter(|((_, body, sets), (_, other_body, other_sets))| {
            let (ones, zeros) = (only(sets.difference(other_sets)), only(other_sets.difference(sets)));
            let differ = ones.zip(zeros).is_some_and(|(one, zero)| one.1 == 1 && *zero == (one.0, 0));
            differ && !body.calls.is_disjoint(&other_body.calls)
        });
        only(servers.map(|((server, ..), _)| *server))
    }

    /// Which numbers of four bytes a function puts where behind a pointer.
    fn sets(&mut self, function: u64) -> Sets {
        let Some(body) = self.body(function) else { return Sets::new() };
        let bytes =
            body.parts.iter().filter_map(|(begin, end)| Some((self.code.bytes(*begin, *end)?, *begin)));
        let found = bytes.flat_map(|(bytes, begin)| {
            let instructions = Decoder::with_ip(64, bytes, begin, DecoderOptions::NONE).into_iter();
            let moves = instructions.filter(|instruction| instruction.code() == Opcode::Mov_rm32_imm32);
            let moves = moves.filter(|instruction| instruction.op0_kind() == OpKind::Memory);
            moves
                .map(|instruction| (instruction.memory_displacement64(), instruction.immediate32()))
                .collect::<Vec<_>>()
        });
        found.collect()
    }
}

/// Distances, and what is put there.
type Sets = BTreeSet<(u64, u32)>;

/// What a file's data is once it is loaded.
struct Data<'a> {
    /// Pointers that the loader makes, by where they stand.
    made: BTreeMap<u64, u64>,
    sections: Vec<(u64, &'a [u8])>,
}

impl<'a> Data<'a> {
    fn of(elf: &impl Object<'a>) -> Data<'a> {
        let relative = RelocationFlags::Elf { r_type: R_X86_64_RELATIVE };
        let made = elf.dynamic_relocations().into_iter().flatten();
        let made = made.filter(|(_, relocation)| relocation.flags() == relative);
        let made = made.filter(|(place, _)| ADDRESSES.contains(place));
        let made = made.map(|(place, relocation)| (place, relocation.addend() as u64)).collect();
        let is_data = |kind| {
            matches!(kind, SectionKind::Data | SectionKind::ReadOnlyData | SectionKind::ReadOnlyDataWithRel)
        };
        let sections = elf.sections().filter(|section| is_data(section.kind()) && is_placed(section));
        let sections =
            sections.filter_map(|section| Some((section.address(), section.data().ok()?))).collect();
        Data { made, sections }
    }

    /// The functions of the first methods of a table: the only one that has these names one after the other.
    fn methods<const N: usize>(&self, elf: &impl Object<'a>, names: [&str; N]) -> Option<[u64; N]> {
        let texts = places(elf, names.first()?);
        let made = self.made.iter().filter(|(_, value)| texts.contains(value)).map(|(place, _)| *place);
        // Some linkers leave at the place what the loader puts there all the same.
        let places: BTreeSet<u64> = made.chain(texts.iter().flat_map(|text| self.places_of(*text))).collect();
        let tables = places.into_iter().filter(|table| {
            let names = names.iter().zip((*table..).step_by(METHOD));
            names
                .into_iter()
                .all(|(name, place)| self.word(place).is_some_and(|text| self.is_text(text, name)))
        });
        let table = only(tables)?;
        let mut entries = (table..).step_by(METHOD);
        let functions = names.map(|_| self.word(entries.next()? + POINTER));
        functions.iter().all(Option::is_some).then(|| functions.map(Option::unwrap_or_default))
    }

    fn is_text(&self, place: u64, text: &str) -> bool {
        let rest = self.at(place).and_then(|bytes| bytes.strip_prefix(text.as_bytes()));
        rest.is_some_and(|rest| rest.first() == Some(&0))
    }

    /// What stands in the file from a place on, to the end of its section.
    fn at(&self, place: u64) -> Option<&'a [u8]> {
        self.sections.iter().find_map(|(address, bytes)| {
            let at = usize::try_from(place.checked_sub(*address)?).ok()?;
            bytes.get(at..).filter(|rest| !rest.is_empty())
        })
    }

    /// Where a pointer stands in a file that is always loaded to one place, or whose loader adds to what stands there.
    fn places_of(&self, value: u64) -> Vec<u64> {
        let word = value.to_le_bytes();
        let places = self.sections.iter().flat_map(|(address, bytes)| {
            memchr::memmem::find_iter(bytes, &word).map(move |at| address + at as u64).collect::<Vec<_>>()
        });
        places.filter(|place| place % POINTER == 0).collect()
    }

    fn word(&self, place: u64) -> Option<u64> {
        let fixed = || Some(u64::from_le_bytes(*self.at(place)?.first_chunk()?));
        self.made.get(&place).copied().or_else(fixed)
    }
}
