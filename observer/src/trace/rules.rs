//! What is left out on purpose and what is shown beside: the Python agent's options, of the observer or of a target.
use regex_lite::Regex;
use serde::Deserialize;
use serde::Serialize;

use super::ant::Ant;
use super::params::Redaction;
use crate::clock::KernelTime;
use crate::identity::Facts;
use crate::identity::framework::Framework;
use crate::stats::Omission;

/// The agent's own default.
const SUFFIXES: &str = ".jpg,.jpeg,.js,.css,.png,.bmp,.gif,.ico,.mp3,.mp4,.html,.svg";
/// The agent's own default, in characters.
const PARAMS_LENGTH: i64 = 1_024;
/// The agent's own default.
const CORRELATION_ELEMENTS: i64 = 3;
/// How long one count of samples lasts, in nanoseconds.
const WINDOW: u64 = 3_000_000_000;

/// What the command line says; it goes before what a target's environment says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Chosen {
    /// `--ignore-suffix`
    pub suffixes: Option<String>,
    /// `--ignore-path`
    pub paths: Option<String>,
    /// `--ignore-method`
    pub methods: Option<String>,
    /// `--disable-plugins`
    pub plugins: Option<String>,
    /// `--sample-n-per-3-secs`
    pub samples: Option<u32>,
    /// `--http-params`
    pub params: bool,
    /// `--http-params-length`
    pub params_length: Option<i64>,
    /// `--redact`
    pub redaction: String,
    /// `--w3c-trace-id`
    pub w3c: bool,
    /// `--tags agent`
    pub only_agents_tags: bool,
}

/// The rules for the workers of one master.
#[derive(Clone, Debug)]
pub struct Rules {
    suffixes: Vec<String>,
    paths: Vec<Ant>,
    methods: Vec<String>,
    /// Whose requests are not reported.
    disabled: Vec<Framework>,
    /// Segments in three seconds; without a limit where it is nothing.
    samples: Option<u32>,
    /// Whose parameters are shown.
    params: Vec<Framework>,
    /// To how many characters.
    pub params_length: Option<usize>,
    /// Which of them are not.
    pub redaction: Redaction,
    /// How many elements of `sw8-correlation` are handed on.
    pub correlation_elements: usize,
    /// Whether a span has the agent's tags and no others.
    pub only_agents_tags: bool,
}

/// Segments of one process since a moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sampled {
    since: Option<KernelTime>,
    count: u32,
}

/// Frameworks whose parameters the agent shows when the variable is true.
const COLLECTING: [(Framework, &str); 5] = [
    (Framework::Flask, "SW_PLUGIN_FLASK_COLLECT_HTTP_PARAMS"),
    (Framework::Sanic, "SW_PLUGIN_SANIC_COLLECT_HTTP_PARAMS"),
    (Framework::Django, "SW_PLUGIN_DJANGO_COLLECT_HTTP_PARAMS"),
    (Framework::FastApi, "SW_PLUGIN_FASTAPI_COLLECT_HTTP_PARAMS"),
    (Framework::Bottle, "SW_PLUGIN_BOTTLE_COLLECT_HTTP_PARAMS"),
];

/// Every framework, with the agent's plugin for it.
const EVERY: [(Framework, Option<&str>); 10] = [
    (Framework::Aiohttp, Some("sw_aiohttp")),
    (Framework::Bottle, Some("sw_bottle")),
    (Framework::Django, Some("sw_django")),
    (Framework::Falcon, Some("sw_falcon")),
    (Framework::FastApi, Some("sw_fastapi")),
    (Framework::Flask, Some("sw_flask")),
    (Framework::Pyramid, Some("sw_pyramid")),
    (Framework::Python, None),
    (Framework::Sanic, Some("sw_sanic")),
    (Framework::Tornado, Some("sw_tornado")),
];

impl Rules {
    /// What was chosen, else what the master's environment says, else the agent's defaults. A number that is none is as
    /// good as none.
    pub fn new(chosen: &Chosen, master: &Facts) -> Rules {
        // An empty list of suffixes is one: nothing is ignored.
        let variable = |name: &str| {
            let found = master.environ.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.as_str())
        };
        let list = |chosen: &Option<String>, name: &str, default: &str| {
            items(chosen.as_deref().or_else(|| variable(name)).unwrap_or(default))
        };
        let is_on = |name| variable(name).is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let number = |name| variable(name).and_then(|value| value.trim().parse::<i64>().ok());
        let samples = chosen.samples.map(i64::from).or_else(|| number("SW_SAMPLE_N_PER_3_SECS"));
        let length = chosen.params_length.or_else(|| number("SW_PLUGIN_HTTP_HTTP_PARAMS_LENGTH_THRESHOLD"));
        let elements = number("SW_CORRELATION_ELEMENT_MAX_NUMBER").unwrap_or(CORRELATION_ELEMENTS);
        let collecting = COLLECTING.iter().filter(|(_, name)| is_on(name)).map(|(framework, _)| *framework);
        Rules {
            suffixes: list(&chosen.suffixes, "SW_AGENT_IGNORE_SUFFIX", SUFFIXES),
            paths: {
                let paths = list(&chosen.paths, "SW_AGENT_TRACE_IGNORE_PATH", "");
                paths.iter().map(|path| Ant::new(path)).collect()
            },
            methods: list(&chosen.methods, "SW_PLUGIN_HTTP_IGNORE_METHOD", ""),
            disabled: disabled(&list(&chosen.plugins, "SW_AGENT_DISABLE_PLUGINS", "")),
            samples: samples.and_then(|samples| u32::try_from(samples).ok()).filter(|samples| *samples > 0),
            params: if chosen.params {
                EVERY.iter().map(|(framework, _)| *framework).collect()
            } else {
                collecting.collect()
            },
            params_length: usize::try_from(length.unwrap_or(PARAMS_LENGTH)).ok(),
            // The agent compares before it adds, so that it keeps one more than it says.
            correlation_elements: usize::try_from(elements.saturating_add(1)).unwrap_or(0),
            redaction: Redaction::new(&chosen.redaction),
            only_agents_tags: chosen.only_agents_tags,
        }
    }

    /// Why a request is not reported, if it is not.
    pub fn ignores(&self, method: &str, operation: &str, framework: Framework) -> Option<Omission> {
        let last = operation.bytes().last();
        let ends = |suffix: &String| {
            suffix.bytes().last() == last
                && operation.len() > suffix.len()
                && operation.ends_with(suffix.as_str())
        };
        if self.methods.iter().any(|ignored| ignored.eq_ignore_ascii_case(method)) {
            Some(Omission::IgnoredMethod)
        } else if self.suffixes.iter().any(ends) {
            Some(Omission::IgnoredSuffix)
        } else {
            let is_ignored = self.paths.iter().any(|path| path.matches(operation));
            let disabled = || self.disabled.contains(&framework).then_some(Omission::DisabledPlugin);
            is_ignored.then_some(Omission::IgnoredPath).or_else(disabled)
        }
    }

    /// Whether one more segment that begins `at` is within the limit of its process; counts it there if so.
    pub fn takes<'a>(&self, at: KernelTime, sampled: impl FnOnce() -> &'a mut Sampled) -> bool {
        let Some(limit) = self.samples else { return true };
        let sampled = sampled();
        if sampled.since.is_none_or(|since| at.since(since) >= WINDOW) {
            *sampled = Sampled { since: Some(at), count: 0 };
        }
        let is_taken = sampled.count < limit;
        sampled.count += u32::from(is_taken);
        is_taken
    }

    /// Whether parameters are shown.
    pub fn shows_params(&self, framework: Framework) -> bool {
        self.params.contains(&framework)
    }
}

/// Frameworks whose plugin's name begins like one of these expressions. One that is none disables nothing; it would end
/// the agent.
fn disabled(expressions: &[String]) -> Vec<Framework> {
    let expressions = expressions.iter().filter_map(|text| Regex::new(&format!("^(?:{text})")).ok());
    let expressions: Vec<Regex> = expressions.collect();
    let is_disabled = |plugin: &str| expressions.iter().any(|expression| expression.is_match(plugin));
    let disabled = EVERY.iter().filter(|(_, plugin)| plugin.is_some_and(is_disabled));
    disabled.map(|(framework, _)| *framework).collect()
}

/// The items of a list with commas.
fn items(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(chosen: Chosen, environ: &[(&str, &str)]) -> Rules {
        let environ = environ.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Rules::new(&chosen, &Facts { environ, ..Facts::default() })
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn the_agents_suffixes_are_ignored_unless_another_list_is_given() {
        let default = rules(Chosen::default(), &[]);
        assert_eq!(default.ignores("GET", "/a.js", Framework::Flask), Some(Omission::IgnoredSuffix));
        assert_eq!(
            (
                default.ignores("GET", ".js", Framework::Flask),
                default.ignores("GET", "/a.JS", Framework::Flask)
            ),
            (None, None)
        );
        let own = rules(Chosen::default(), &[("SW_AGENT_IGNORE_SUFFIX", " .txt , .md,")]);
        assert_eq!(
            (own.ignores("GET", "/a.js", Framework::Flask), own.ignores("GET", "/a.md", Framework::Flask)),
            (None, Some(Omission::IgnoredSuffix))
        );
        for none in [
            rules(Chosen::default(), &[("SW_AGENT_IGNORE_SUFFIX", "")]),
            rules(Chosen { suffixes: some(""), ..Chosen::default() }, &[("SW_AGENT_IGNORE_SUFFIX", ".txt")]),
        ] {
            assert_eq!(
                (
                    none.ignores("GET", "/a.js", Framework::Flask),
                    none.ignores("GET", "/a.txt", Framework::Flask)
                ),
                (None, None)
            );
        }
    }

    #[test]
    fn paths_and_methods_are_ignored_where_that_is_said() {
        let environ = [
            ("SW_AGENT_TRACE_IGNORE_PATH", "/health, /in/**"),
            ("SW_PLUGIN_HTTP_IGNORE_METHOD", "options,HEAD"),
        ];
        let said = rules(Chosen::default(), &environ);
        assert_eq!(said.ignores("GET", "/in/a/b", Framework::Flask), Some(Omission::IgnoredPath));
        assert_eq!(said.ignores("OPTIONS", "/health", Framework::Flask), Some(Omission::IgnoredMethod));
        assert_eq!(
            (
                said.ignores("GET", "/healthy", Framework::Flask),
                said.ignores("OPTION", "/", Framework::Flask)
            ),
            (None, None)
        );
        let above = Chosen { paths: some("/x"), methods: some("GET"), ..Chosen::default() };
        let above = rules(above, &environ);
        assert_eq!(above.ignores("HEAD", "/health", Framework::Flask), None);
        assert_eq!(above.ignores("head", "/x", Framework::Flask), Some(Omission::IgnoredPath));
    }

    #[test]
    fn what_a_disabled_plugin_would_report_is_not_reported() {
        let environ = [("SW_AGENT_DISABLE_PLUGINS", "sw_redis, flask, sw_(django|pyra).*, sw_[")];
        let said = rules(Chosen::default(), &environ);
        let disabled = |framework| said.ignores("GET", "/", framework) == Some(Omission::DisabledPlugin);
        assert!([Framework::Django, Framework::Pyramid].into_iter().all(disabled));
        assert!(![Framework::Flask, Framework::Python].into_iter().any(disabled), "{said:?}");
        let above = rules(Chosen { plugins: some("sw_"), ..Chosen::default() }, &environ);
        assert_eq!(above.disabled.len(), EVERY.len() - 1);
    }

    #[test]
    fn so_many_of_a_process_in_three_seconds() {
        let at = |ms: u64| KernelTime(ms * 1_000_000);
        for limited in [
            rules(Chosen { samples: Some(2), ..Chosen::default() }, &[("SW_SAMPLE_N_PER_3_SECS", "9")]),
            rules(Chosen::default(), &[("SW_SAMPLE_N_PER_3_SECS", "2")]),
        ] {
            let mut sampled = Sampled::default();
            let taken: Vec<u64> =
                (10..80).map(|at| at * 100).filter(|ms| limited.takes(at(*ms), || &mut sampled)).collect();
            assert_eq!(taken, [1_000, 1_100, 4_000, 4_100, 7_000, 7_100]);
        }
        for text in ["0", "-1", "many", ""] {
            let all = rules(Chosen::default(), &[("SW_SAMPLE_N_PER_3_SECS", text)]);
            assert!((0..9).all(|ms| all.takes(at(ms), || panic!("no limit"))), "{text}");
        }
    }

    #[test]
    fn parameters_are_shown_where_somebody_asked_for_them() {
        let flask = [
            ("SW_PLUGIN_FLASK_COLLECT_HTTP_PARAMS", "True"),
            ("SW_PLUGIN_HTTP_HTTP_PARAMS_LENGTH_THRESHOLD", "7"),
        ];
        let said = rules(Chosen::default(), &flask);
        assert!(said.shows_params(Framework::Flask) && !said.shows_params(Framework::Django));
        assert_eq!(said.params_length, Some(7));
        let all = rules(Chosen { params: true, params_length: Some(-1), ..Chosen::default() }, &flask);
        assert!(EVERY.iter().all(|(framework, _)| all.shows_params(*framework)));
        assert_eq!(all.params_length, None);
        let none = rules(Chosen::default(), &[("SW_PLUGIN_FLASK_COLLECT_HTTP_PARAMS", "1")]);
        assert!(EVERY.iter().all(|(framework, _)| !none.shows_params(*framework)));
        assert_eq!(none.params_length, Some(1_024));
    }
}
