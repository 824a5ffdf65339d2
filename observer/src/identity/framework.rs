//! Which web framework a worker runs, from what its interpreter has imported.
use serde::Deserialize;
use serde::Serialize;

use std::collections::BTreeSet;

use crate::clock::KernelTime;
use crate::identity::ProcessKey;

/// Between two looks at an interpreter in which no framework was found, in nanoseconds: the first, and the longest; each is
/// twice the one before.
const FIRST_WAIT: u64 = 1_000_000_000;
const LONGEST_WAIT: u64 = 600 * FIRST_WAIT;
/// Workers that are looked at in one wait because the one before had ended.
const TRIED: usize = 64;

/// A framework that the Python agent has a plugin for, or none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Framework {
    /// aiohttp's server.
    Aiohttp,
    /// Bottle.
    Bottle,
    /// Django.
    Django,
    /// Falcon, and Hug, which is made of it.
    Falcon,
    /// FastAPI, and what it is made of, Starlette.
    FastApi,
    /// Flask.
    Flask,
    /// Pyramid.
    Pyramid,
    /// None of the others.
    Python,
    /// Sanic.
    Sanic,
    /// Tornado.
    Tornado,
}

/// By the names that `--target` takes.
const NAMES: [(&str, Framework); 11] = [
    ("aiohttp", Framework::Aiohttp),
    ("bottle", Framework::Bottle),
    ("django", Framework::Django),
    ("falcon", Framework::Falcon),
    ("fastapi", Framework::FastApi),
    ("flask", Framework::Flask),
    ("pyramid", Framework::Pyramid),
    ("python", Framework::Python),
    ("sanic", Framework::Sanic),
    ("starlette", Framework::FastApi),
    ("tornado", Framework::Tornado),
];

/// Modules whose classes applications are of. Quart is made of Flask's and is not it.
const CLASSES: [(&str, Framework); 14] = [
    ("quart.app", Framework::Python),
    ("django.core.handlers.wsgi", Framework::Django),
    ("django.core.handlers.asgi", Framework::Django),
    ("flask.app", Framework::Flask),
    ("starlette.applications", Framework::FastApi),
    ("starlette.routing", Framework::FastApi),
    ("sanic.app", Framework::Sanic),
    ("pyramid.router", Framework::Pyramid),
    ("falcon.app", Framework::Falcon),
    ("falcon.api", Framework::Falcon),
    ("falcon.asgi.app", Framework::Falcon),
    ("bottle", Framework::Bottle),
    ("aiohttp.web_app", Framework::Aiohttp),
    ("tornado.web", Framework::Tornado),
];

/// Modules that are imported to serve, not to call others: where the application does not tell, the first that is there.
/// Gunicorn's worker for Tornado serves WSGI too and imports Tornado by itself, so that goes last.
const IMPORTED: [(&str, Framework); 11] = [
    ("django.core.handlers.base", Framework::Django),
    ("flask.app", Framework::Flask),
    ("starlette.applications", Framework::FastApi),
    ("sanic.app", Framework::Sanic),
    ("pyramid.router", Framework::Pyramid),
    ("falcon.app", Framework::Falcon),
    ("falcon.api", Framework::Falcon),
    ("falcon.asgi.app", Framework::Falcon),
    ("bottle", Framework::Bottle),
    ("aiohttp.worker", Framework::Aiohttp),
    ("gunicorn.workers.gtornado", Framework::Tornado),
];

/// The modules that are searched for.
pub const SEARCHED: [&str; IMPORTED.len()] = {
    let mut names = [""; IMPORTED.len()];
    let mut at = 0;
    #[expect(clippy::indexing_slicing, reason = "a constant: out of bounds would not compile")]
    while at < names.len() {
        names[at] = IMPORTED[at].0;
        at += 1;
    }
    names
};

/// Where an application is: its module, and its name in that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Application {
    /// `shop.wsgi`.
    pub module: String,
    /// `application`.
    pub name: String,
}

/// What an interpreter has imported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Imports {
    /// Those of [`SEARCHED`] that it has.
    pub modules: Vec<String>,
    /// The modules that define the classes of its application, its own class first; `None` where that was not found.
    pub application: Option<Vec<String>>,
}

impl Framework {
    /// By its name; an error says which there are.
    pub fn by_name(name: &str) -> Result<Framework, String> {
        let known = NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        known.map(|(_, framework)| *framework).ok_or_else(|| {
            let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
            format!("framework={name} is not known: give one of {}", names.join(", "))
        })
    }

    /// What was found; nothing when nothing tells.
    pub fn of(imports: &Imports) -> Option<Framework> {
        let mut classes = imports.application.iter().flatten();
        let known = |class: &String| CLASSES.iter().find(|(module, _)| module == class);
        if let Some((_, framework)) = classes.find_map(known) {
            return Some(*framework);
        }
        let has = |module: &str| imports.modules.iter().any(|imported| imported == module);
        let found = IMPORTED.iter().find(|(module, _)| has(module)).map(|(_, framework)| *framework);
        // An application that is there and not Tornado's is served as WSGI.
        found.filter(|framework| *framework != Framework::Tornado || imports.application.is_none())
    }
}

impl Application {
    /// `shop.wsgi:application` as gunicorn reads it; nothing for a call, whose result has no name.
    pub fn typed(text: &str) -> Option<Application> {
        let (module, name) = text.split_once(':').unwrap_or((text, "application"));
        let is_name = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || c == '_');
        let is_application = module.split('.').all(is_name) && is_name(name);
        is_application.then(|| Application { module: module.to_owned(), name: name.to_owned() })
    }
}

/// What is known of the framework of an arbiter's workers.
#[derive(Clone, Debug, Default)]
pub struct Recognition {
    framework: Option<Framework>,
    /// Whether somebody chose it.
    is_chosen: bool,
    /// When it was looked for last, and at the earliest will be again while there is none.
    looked: Option<KernelTime>,
    next: KernelTime,
    wait: u64,
    /// The last look found nobody: that worker had ended.
    missed: bool,
    /// Workers that were looked at since the last wait.
    tried: BTreeSet<ProcessKey>,
}

impl Recognition {
    /// Whether to look at a worker now, and notes that. Once there is a framework only a worker that was forked after a
    /// reload is looked at: it may have another. Where one had ended, the next one's turn comes at once.
    pub fn due(
        &mut self,
        now: KernelTime,
        worker: ProcessKey,
        reloaded: Option<KernelTime>,
        forked: Option<KernelTime>,
    ) -> bool {
        let is_new = reloaded.is_some() && self.looked < reloaded && reloaded < forked;
        let is_time = now >= self.next;
        let is_next = self.missed && self.tried.len() < TRIED && !self.tried.contains(&worker);
        let is_due = self.framework.is_none() && (is_time || is_next);
        if self.is_chosen || !is_new && !is_due {
            return false;
        }
        self.missed = false;
        if is_time {
            self.tried.clear();
        }
        self.tried.insert(worker);
        if is_next {
            return true;
        }
        self.wait = self.wait.saturating_mul(2).clamp(FIRST_WAIT, LONGEST_WAIT);
        self.next = KernelTime(now.0.saturating_add(self.wait));
        self.looked = Some(now);
        true
    }

    /// A look found nobody, or an interpreter that cannot be read.
    pub fn miss(&mut self) {
        self.missed = true;
    }

    /// What a look found; a look that found nothing changes nothing.
    pub fn learn(&mut self, framework: Option<Framework>) {
        self.framework = framework.or(self.framework);
    }

    /// Somebody chose it: nothing is looked at.
    pub fn choose(&mut self, framework: Framework) {
        *self = Recognition { framework: Some(framework), is_chosen: true, ..Recognition::default() };
    }

    /// The framework, if there is one.
    pub fn framework(&self) -> Option<Framework> {
        self.framework
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Modules that are imported, those of the application's classes, and what follows.
    type Case = (&'static [&'static str], Option<&'static [&'static str]>, Option<Framework>);

    fn imports(modules: &[&str], application: Option<&[&str]>) -> Imports {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Imports { modules: owned(modules), application: application.map(owned) }
    }

    #[test]
    fn the_application_goes_before_what_is_imported() {
        const BOTH: &[&str] = &["django.core.handlers.base", "flask.app"];
        let cases: &[Case] = &[
            (BOTH, Some(&["shop.web", "flask.app", "flask.sansio.app"]), Some(Framework::Flask)),
            (
                BOTH,
                Some(&["django.core.handlers.wsgi", "django.core.handlers.base"]),
                Some(Framework::Django),
            ),
            (&["flask.app"], Some(&["quart.app", "flask.sansio.app"]), Some(Framework::Python)),
            (
                &["starlette.applications"],
                Some(&["fastapi.applications", "starlette.applications"]),
                Some(Framework::FastApi),
            ),
            (&["gunicorn.workers.gtornado"], Some(&["tornado.web"]), Some(Framework::Tornado)),
            (&["aiohttp.worker"], Some(&["aiohttp.web_app"]), Some(Framework::Aiohttp)),
        ];
        for (modules, application, framework) in cases {
            assert_eq!(Framework::of(&imports(modules, *application)), *framework, "{application:?}");
        }
    }

    #[test]
    fn where_it_does_not_tell_the_order_does() {
        let cases: &[Case] = &[
            (&["bottle", "flask.app"], None, Some(Framework::Flask)),
            (&["flask.app"], Some(&["werkzeug.middleware.proxy_fix"]), Some(Framework::Flask)),
            (&["aiohttp.worker"], Some(&[]), Some(Framework::Aiohttp)),
            (&["gunicorn.workers.gtornado", "flask.app"], None, Some(Framework::Flask)),
            (&["gunicorn.workers.gtornado"], None, Some(Framework::Tornado)),
            (&["gunicorn.workers.gtornado"], Some(&[]), None),
            (&[], None, None),
            (&[], Some(&["shop.web"]), None),
        ];
        for (modules, application, framework) in cases {
            assert_eq!(Framework::of(&imports(modules, *application)), *framework, "{modules:?}");
        }
    }

    #[test]
    fn an_application_is_a_module_and_a_name() {
        let typed = |text| Application::typed(text).map(|found| format!("{}:{}", found.module, found.name));
        assert_eq!(typed("shop.wsgi").as_deref(), Some("shop.wsgi:application"));
        assert_eq!(typed("shop.wsgi:app").as_deref(), Some("shop.wsgi:app"));
        for text in ["shop:create_app()", "shop:make('x')", "shop.ini#main", "", ":app", "shop:", "a..b:c"] {
            assert_eq!(typed(text), None, "{text}");
        }
    }

    #[test]
    fn names_are_those_of_the_list() {
        assert_eq!(Framework::by_name("Starlette"), Ok(Framework::FastApi));
        assert!(Framework::by_name("rails").unwrap_err().contains("aiohttp, bottle, django"));
    }

    #[test]
    fn it_is_looked_for_less_and_less_until_it_is_found() {
        const S: u64 = 1_000_000_000;
        let mut recognition = Recognition::default();
        let at = |s: u64| KernelTime(s * S);
        let one = ProcessKey { pid: 1, start: 1 };
        let looks: Vec<u64> = (0..20).filter(|s| recognition.due(at(*s), one, None, None)).collect();
        assert_eq!(looks, [0, 1, 3, 7, 15]);
        recognition.learn(None);
        recognition.learn(Some(Framework::Flask));
        recognition.learn(None);
        assert_eq!(recognition.framework(), Some(Framework::Flask));
        assert!(!recognition.due(at(5_000), one, None, Some(at(4_000))));
        let mut after = |forked: u64| recognition.due(at(6_002), one, Some(at(6_000)), Some(at(forked)));
        assert_eq!((after(5_999), after(6_001), after(6_002)), (false, true, false));
    }

    #[test]
    fn where_one_had_ended_the_next_is_looked_at() {
        let mut recognition = Recognition::default();
        let worker = |pid| ProcessKey { pid, start: 1 };
        let mut look = |pid| {
            let is_due = recognition.due(KernelTime(5), worker(pid), None, None);
            if is_due {
                recognition.miss();
            }
            is_due
        };
        assert_eq!([1, 1, 2, 1, 2, 3].map(&mut look), [true, false, true, false, false, true]);
        assert_eq!((4..1_000).filter(|pid| look(*pid)).count(), TRIED - 3);
    }
}
