//! Python objects in another process's memory: dictionaries, strings, classes. What makes no sense is nothing.
use super::memory::Memory;

/// Entries of a dictionary that are looked at; one with more is not read.
const ENTRIES: u64 = 1 << 15;
/// Classes above one that are looked at.
const CLASSES: u64 = 32;
/// Bytes of a string that are read; a longer one is none that is searched for.
const TEXT: usize = 96;
/// In an object: its type. In a module: its dictionary (`Objects/moduleobject.c`).
const TYPE: u64 = 8;
const MODULE_DICT: u64 = 16;
/// In a type (`Include/cpython/object.h`): its dictionary, and the tuple of the classes that it is made of.
const TYPE_DICT: u64 = 264;
const TYPE_MRO: u64 = 344;

/// The memory of an interpreter of a release.
#[derive(Clone, Copy, Debug)]
pub struct Objects<'a> {
    memory: &'a Memory,
    /// `3.minor`.
    minor: u8,
}

impl<'a> Objects<'a> {
    pub fn new(memory: &'a Memory, minor: u8) -> Objects<'a> {
        Objects { memory, minor }
    }

    /// Key and value of every entry of a dictionary; a key of 0 is an entry that was taken out. Nothing when it was changed
    /// meanwhile.
    pub fn entries(self, dict: u64) -> Option<Vec<(u64, u64)>> {
        let [_, _, _, _, keys, values] = self.memory.words(dict)?;
        if values != 0 {
            return None; // of an instance: values stand elsewhere
        }
        let (at, count, words) = self.table(keys)?;
        let mut bytes = vec![0u8; usize::try_from(count).ok()?.checked_mul(words)?.checked_mul(8)?];
        self.memory.fill(at, &mut bytes)?;
        let (all, _) = bytes.as_chunks::<8>();
        // Tables whose keys may be other than strings have a hash before each.
        let entry = |entry: &[[u8; 8]]| {
            let (value, rest) = entry.split_last()?;
            Some((u64::from_ne_bytes(*rest.last()?), u64::from_ne_bytes(*value)))
        };
        let entries = all.chunks_exact(words).map(entry).collect::<Option<_>>()?;
        (self.memory.word(dict.wrapping_add(32))? == keys).then_some(entries)
    }

    /// Where the entries of a table of keys begin, how many there are, and how many words each has.
    fn table(self, keys: u64) -> Option<(u64, u64, usize)> {
        let (index_bytes, head, count, words) = if self.minor < 11 {
            let [_, size, _, _, count] = self.memory.words(keys)?;
            let width = match size {
                0..0x100 => 1,
                0x100..0x1_0000 => 2,
                _ => 4,
            };
            let is_size = size.is_power_of_two() && count <= size;
            (is_size.then(|| size.saturating_mul(width))?, 40, count, 3)
        } else {
            let [_, sizes, _, count] = self.memory.words(keys)?;
            let [log2_size, log2_index_bytes, kind, ..] = sizes.to_ne_bytes();
            let is_size = log2_size < 32 && log2_index_bytes < 40 && kind < 2 && count <= 1 << log2_size;
            (is_size.then(|| 1 << log2_index_bytes)?, 32, count, if kind == 0 { 3 } else { 2 })
        };
        (count <= ENTRIES).then_some((keys.wrapping_add(head).wrapping_add(index_bytes), count, words))
    }

    /// An ASCII string without control characters, of at most [`TEXT`] bytes.
    pub fn text(self, object: u64) -> Option<String> {
        // From 3.12 on a string has no second representation (`Include/cpython/unicodeobject.h`).
        let begin = if self.minor < 12 { 48 } else { 40 };
        let mut bytes = [0u8; 48 + TEXT];
        let whole = self.memory.fill(object, &mut bytes);
        let length = match whole {
            Some(()) => u64::from_ne_bytes(*bytes.get(16..)?.first_chunk()?),
            None => self.memory.word(object.wrapping_add(16))?,
        };
        let length = usize::try_from(length).ok().filter(|length| *length < TEXT)?;
        let text = bytes.get_mut(begin..=begin + length)?;
        if whole.is_none() {
            self.memory.fill(object.wrapping_add(begin as u64), text)?; // at the end of what is mapped
        }
        let (end, text) = text.split_last()?;
        let is_text = *end == 0 && text.iter().all(|byte| matches!(byte, b' '..=b'~'));
        is_text.then(|| String::from_utf8_lossy(text).into_owned())
    }

    /// What a name stands for in the dictionary of a module.
    pub fn in_module(self, module: u64, name: &str) -> Option<u64> {
        let dict = self.memory.word(module.wrapping_add(MODULE_DICT))?;
        let (_, value) = self.find(dict, name)?;
        (value != 0).then_some(value)
    }

    fn find(self, dict: u64, name: &str) -> Option<(u64, u64)> {
        let mut entries = self.entries(dict)?.into_iter().filter(|(key, _)| *key != 0);
        entries.find(|(key, _)| self.text(*key).as_deref() == Some(name))
    }

    /// The modules in which the classes that an object is made of were defined, its own class first; built-in ones have
    /// none.
    pub fn defined_in(self, object: u64) -> Option<Vec<String>> {
        let class = self.memory.word(object.wrapping_add(TYPE))?;
        let order = self.memory.word(class.wrapping_add(TYPE_MRO))?;
        let count = self.memory.word(order.wrapping_add(16)).filter(|count| (1..=CLASSES).contains(count))?;
        // From 3.14 on a tuple keeps its hash before its items.
        let items = order.wrapping_add(if self.minor < 14 { 24 } else { 32 });
        let classes = (0..count).map(|at| self.memory.word(items.wrapping_add(at * 8)));
        let classes = classes.collect::<Option<Vec<u64>>>().filter(|all| all.first() == Some(&class))?;
        Some(classes.into_iter().filter_map(|class| self.module_of(class)).collect())
    }

    fn module_of(self, class: u64) -> Option<String> {
        let dict = self.memory.word(class.wrapping_add(TYPE_DICT)).filter(|dict| *dict != 0)?;
        let (key, value) = self.find(dict, "__module__")?;
        // Of built-in classes it is a descriptor and not a string.
        let type_of = |object: u64| self.memory.word(object.wrapping_add(TYPE));
        (type_of(key)? == type_of(value)?).then(|| self.text(value))?
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Objects in this process's own memory, as an interpreter lays them out.
    pub(in crate::python) struct Heap {
        minor: u8,
        kept: Vec<Box<[u64]>>,
    }

    impl Heap {
        pub(in crate::python) fn new(minor: u8) -> Heap {
            Heap { minor, kept: Vec::new() }
        }

        pub(in crate::python) fn keep(&mut self, words: Vec<u64>) -> u64 {
            let words = words.into_boxed_slice();
            let at = words.as_ptr() as u64;
            self.kept.push(words);
            at
        }

        pub(in crate::python) fn text(&mut self, text: &str) -> u64 {
            let begin = if self.minor < 12 { 48 } else { 40 };
            let mut bytes = vec![0u8; begin];
            bytes[8] = 1;
            bytes[16..24].copy_from_slice(&(text.len() as u64).to_ne_bytes());
            bytes.extend(text.bytes());
            bytes.resize(bytes.len() / 8 * 8 + 8, 0);
            let words = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word)).collect();
            self.keep(words)
        }

        /// A dictionary; `is_plain` has a hash before each key where the release knows tables without.
        pub(in crate::python) fn dict(&mut self, entries: &[(u64, u64)], is_plain: bool) -> u64 {
            let count = entries.len() as u64;
            let mut keys = if self.minor < 11 {
                vec![1, 8, 0, 0, count, 0]
            } else {
                vec![1, u64::from_ne_bytes([3, 3, u8::from(!is_plain), 0, 0, 0, 0, 0]), 0, count, 0]
            };
            for (key, value) in entries {
                keys.extend((self.minor < 11 || is_plain).then_some(7));
                keys.extend([*key, *value]);
            }
            let keys = self.keep(keys);
            self.keep(vec![1, 2, count, 0, keys, 0])
        }

        pub(in crate::python) fn module(&mut self, dict: u64) -> u64 {
            self.keep(vec![1, 3, dict])
        }

        /// An object whose class and the classes above it are of these modules.
        pub(in crate::python) fn object(&mut self, modules: &[&str]) -> u64 {
            let mut classes = Vec::new();
            for module in modules {
                let (key, value) = (self.text("__module__"), self.text(module));
                let dict = self.dict(&[(0, 0), (key, value)], false);
                let mut class = vec![0; 44];
                class[33] = dict;
                classes.push(self.keep(class));
            }
            let mut order = vec![1, 4, classes.len() as u64];
            order.extend((self.minor >= 14).then_some(u64::MAX));
            order.extend(&classes);
            let order = self.keep(order);
            let at = self.kept.iter().position(|kept| kept.as_ptr() as u64 == classes[0]).unwrap();
            self.kept[at][43] = order;
            self.keep(vec![1, classes[0]])
        }

        pub(in crate::python) fn memory() -> Memory {
            Memory::open(std::process::id()).unwrap()
        }
    }

    #[test]
    fn strings_are_read_and_what_is_none_is_not() {
        let memory = Heap::memory();
        for minor in 8..=15 {
            let mut heap = Heap::new(minor);
            let objects = Objects::new(&memory, minor);
            let (text, long, odd) = (heap.text("flask.app"), heap.text(&"x".repeat(TEXT)), heap.text("a\nb"));
            assert_eq!(objects.text(text).as_deref(), Some("flask.app"), "3.{minor}");
            assert_eq!((objects.text(long), objects.text(odd), objects.text(8)), (None, None, None));
        }
    }

    #[test]
    fn both_kinds_of_tables_are_read() {
        let memory = Heap::memory();
        for (minor, is_plain) in [(8, true), (10, true), (11, true), (11, false), (15, false)] {
            let mut heap = Heap::new(minor);
            let dict = heap.dict(&[(16, 24), (0, 0), (32, 40)], is_plain);
            let entries = Objects::new(&memory, minor).entries(dict);
            assert_eq!(entries, Some(vec![(16, 24), (0, 0), (32, 40)]), "3.{minor}");
        }
    }

    #[test]
    fn what_is_no_dictionary_has_no_entries() {
        let memory = Heap::memory();
        for minor in 8..=15 {
            let mut heap = Heap::new(minor);
            for word in [0, 1, 1 << 40, u64::MAX] {
                let (keys, zeros) = (heap.keep(vec![word; 16]), heap.keep(vec![word; 16]));
                let dict = heap.keep(vec![1, 2, 3, 0, keys, 0]);
                let objects = Objects::new(&memory, minor);
                let entries = (objects.entries(dict).unwrap_or_default(), objects.entries(zeros));
                assert!(
                    entries.0.len() <= 1 && entries.1.unwrap_or_default().is_empty(),
                    "3.{minor} {word:x}"
                );
            }
        }
    }

    #[test]
    fn an_object_is_of_the_modules_of_its_classes() {
        let memory = Heap::memory();
        for minor in [8, 12, 14] {
            let mut heap = Heap::new(minor);
            let object = heap.object(&["shop.web", "flask.app", "flask.sansio.app"]);
            let modules = Objects::new(&memory, minor).defined_in(object);
            let wanted = ["shop.web", "flask.app", "flask.sansio.app"].map(str::to_owned);
            assert_eq!(modules.as_deref(), Some(&wanted[..]), "3.{minor}");
            let nobody = heap.keep(vec![1, 8]);
            assert_eq!(Objects::new(&memory, minor).defined_in(nobody), None);
        }
    }
}
