//! What an interpreter has imported, and of which modules its application is.
use super::objects::Objects;
use super::runtime::Runtime;

/// How often the modules are read again when they changed meanwhile.
const ATTEMPTS: usize = 3;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Modules {
    /// Of the names that were searched for, those that are imported, in the order in which they were.
    pub imported: Vec<String>,
    /// The modules that define the classes of the application, its own class first; `None` where there is no such object.
    pub application: Option<Vec<String>>,
}

/// Searches the modules of an interpreter for `names`, and the module of an application, `(module, name in it)`, for what
/// that is. Nothing when its memory makes no sense.
pub fn read(runtime: &Runtime, names: &[&str], application: Option<(&str, &str)>) -> Option<Modules> {
    let look = || {
        let (memory, dict) = runtime.modules()?;
        find(Objects::new(memory, runtime.placed().image.minor), dict, names, application)
    };
    (0..ATTEMPTS).find_map(|_| look())
}

fn find(
    objects: Objects<'_>,
    dict: u64,
    names: &[&str],
    application: Option<(&str, &str)>,
) -> Option<Modules> {
    let mut found = Modules::default();
    let mut count = 0;
    for (key, value) in objects.entries(dict)?.into_iter().filter(|(key, _)| *key != 0) {
        let Some(name) = objects.text(key) else { continue };
        count += 1;
        if let Some((_, attribute)) = application.filter(|(module, _)| *module == name) {
            let object = objects.in_module(value, attribute);
            found.application = object.and_then(|object| objects.defined_in(object));
        }
        if names.contains(&name.as_str()) {
            found.imported.push(name);
        }
    }
    (count > 0).then_some(found) // every interpreter has imported something
}

#[cfg(test)]
mod tests {
    use super::super::objects::tests::Heap;
    use super::*;

    #[test]
    fn names_and_the_application_are_found() {
        let memory = Heap::memory();
        for (minor, is_plain) in [(8, true), (10, true), (11, false), (13, true), (15, false)] {
            let mut heap = Heap::new(minor);
            let (app, object) = (heap.text("application"), heap.object(&["flask.app"]));
            let inner = heap.dict(&[(app, object)], false);
            let wsgi = heap.module(inner);
            let names = ["sys", "flask.app", "shop.wsgi"].map(|name| heap.text(name));
            let dict = heap.dict(&[(names[0], 8), (0, 0), (names[1], 8), (names[2], wsgi)], is_plain);
            let objects = Objects::new(&memory, minor);
            let look = |application| find(objects, dict, &["flask.app", "bottle"], application).unwrap();
            let imported = vec!["flask.app".to_owned()];
            let told = Some(imported.clone());
            assert_eq!(
                look(Some(("shop.wsgi", "application"))),
                Modules { imported: imported.clone(), application: told },
                "3.{minor}"
            );
            for missing in [None, Some(("shop.wsgi", "app")), Some(("shop", "application"))] {
                assert_eq!(look(missing), Modules { imported: imported.clone(), application: None });
            }
        }
    }

    #[test]
    fn without_any_module_it_is_no_interpreter() {
        let memory = Heap::memory();
        let mut heap = Heap::new(12);
        let dict = heap.dict(&[(8, 8)], false);
        assert_eq!(find(Objects::new(&memory, 12), dict, &[], None), None);
    }
}
