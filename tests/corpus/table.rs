//! The corpus as written down: cases, their steps, and the environments that they run in.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use harness::stage::must;
use harness::stage::package;
use serde::Deserialize;

/// Files of the table, in the order in which they run.
const FILES: [&str; 7] = ["launch", "prefix", "product", "life", "death", "app", "matrix"];

/// How many of each role are alive.
pub type Counts = BTreeMap<String, usize>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    case: Vec<Case>,
}

/// One launch and what is done to it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Number in the research that the corpus comes from; cases of our own have none.
    #[expect(dead_code, reason = "for people who read the table")]
    pub number: Option<u32>,
    /// Names it in the output and in `SW_CORPUS`.
    pub name: String,
    /// Name of an environment of `environments.toml`.
    #[serde(default = "newest")]
    pub python: String,
    /// The command. `{B}`: two workers on the case's port, `{port}`, `{dir}`: the case's folder, `{apps}`,
    /// `{python}`: the environment's interpreter, and the names in `vary`.
    #[serde(default)]
    pub run: String,
    /// More environment; an empty value takes a variable away.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Files in the case's folder besides `app.py`.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// Placeholder to values: one case for each combination. `python` varies the environment.
    #[serde(default)]
    pub vary: BTreeMap<String, Vec<String>>,
    /// Programs that have to be there.
    #[serde(default)]
    pub needs: Vec<String>,
    /// Runs only where `SW_TEST_PRODUCTS` names it, or is `all`.
    pub large: Option<String>,
    /// Limit of the memory of the whole tree, in MiB.
    pub memory: Option<u64>,
    /// The user who must be able to read environment and applications.
    pub user: Option<u32>,
    /// How many of each role there are in the steady state.
    #[serde(default)]
    pub expect: Counts,
    /// Names (`comm`) of every other living process of the tree in the steady state; unsaid, there may be any.
    pub others: Option<Vec<String>>,
    /// Roles that processes that are not gunicorn's may have for a moment.
    #[serde(default)]
    pub fleeting: Vec<String>,
    /// Who ended on the way there; as in [`Step::exits`].
    #[serde(default)]
    pub exits: Vec<String>,
    /// What else was reported on the way there; as in [`Step::events`]. What goes on and is reported by an observer
    /// that comes late, too, ends in `+`.
    #[serde(default)]
    pub events: Vec<String>,
    /// Role to what every observer says instead, and is right.
    #[serde(default)]
    pub said: BTreeMap<String, String>,
    /// Role to the one that an observer who comes late gives instead.
    #[serde(default)]
    pub late: BTreeMap<String, String>,
    /// Workers die again and again, of this cause: reported as one `CrashLoop`.
    pub looping: Option<String>,
    /// Seconds to the steady state.
    #[serde(default = "patience")]
    pub within: u64,
    /// Who ends when the case does, as in [`Step::exits`]; unsaid, everybody, of `shutdown`.
    pub ends: Option<Vec<String>>,
    /// What is done then.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// Why it does not run.
    pub cannot: Option<String>,
    /// The other test that has it.
    pub r#in: Option<String>,
}

/// One action and what must be true soon after.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Sends this signal, `KILL` for one.
    pub signal: Option<String>,
    /// To whom: `launch`, `master`, `masters`, `upgrade`, `worker[0]`, `workers`, … or the name of another process.
    pub to: Option<String>,
    /// Sends a request: an action of the application.
    pub request: Option<String>,
    /// Without waiting for an answer.
    #[serde(default)]
    pub background: bool,
    /// So many of them.
    pub count: Option<usize>,
    /// Runs a command of the environment to its end.
    pub run: Option<String>,
    /// Writes this file of the case's folder.
    pub write: Option<String>,
    /// What is written.
    #[serde(default)]
    pub text: String,
    /// Waits so many seconds.
    pub sleep: Option<f64>,
    /// The late observer comes here and not at the steady state.
    #[serde(default)]
    pub hold: bool,
    /// How many of each role there are then; unsaid, as before.
    pub expect: Option<Counts>,
    /// As in [`Case::others`].
    pub others: Option<Vec<String>>,
    /// Who ended in this step and of what cause: `2 worker reload`, `1+ worker boot-failure` for at least one.
    /// Causes that are both true are separated by `|`; `none` was no instance and has no exit of its own.
    #[serde(default)]
    pub exits: Vec<String>,
    /// What else was reported in this step: `Reload`, `Upgrade promoted`, `Stuck heartbeat`.
    #[serde(default)]
    pub events: Vec<String>,
    /// Seconds that this may take.
    #[serde(default = "patience")]
    pub within: u64,
}

fn newest() -> String {
    "newest".into()
}

fn patience() -> u64 {
    15
}

/// Every case, those that vary once for each combination.
pub fn cases() -> Vec<Case> {
    let folder = package().join("corpus/cases");
    let mut all = Vec::new();
    for name in FILES {
        let path = folder.join(name).with_extension("toml");
        if !path.exists() {
            continue;
        }
        let file: File = parse(&path);
        all.extend(file.case.iter().flat_map(varied));
    }
    all
}

/// Environment to what pip installs in it.
pub fn environments() -> BTreeMap<String, Environment> {
    parse(&package().join("corpus/environments.toml"))
}

/// What pip installs, and by which interpreter.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// As in a requirements file.
    pub packages: Vec<String>,
    /// `3.7` for one; unsaid, the interpreter of the other tests.
    pub version: Option<String>,
}

fn parse<T: for<'a> Deserialize<'a>>(path: &Path) -> T {
    let text = must(fs::read_to_string(path), format_args!("read {}", path.display()));
    must(toml::from_str(&text), format_args!("read {}", path.display()))
}

fn varied(case: &Case) -> Vec<Case> {
    let mut all = vec![case.clone()];
    for (key, values) in &case.vary {
        let one = |case: &Case, value: &String| {
            let mut case = case.clone();
            let word = value.split(' ').next().unwrap_or(value).rsplit('/').next().unwrap_or(value);
            let word = if key == "class" { value.rsplit([' ', '.']).next().unwrap_or(word) } else { word };
            case.name = format!("{}-{word:.24}", case.name);
            case.substitute(&format!("{{{key}}}"), value);
            if key == "python" {
                case.python.clone_from(value);
            }
            case
        };
        all = all.iter().flat_map(|case| values.iter().map(move |value| one(case, value))).collect();
    }
    all
}

impl Case {
    /// The service that its gunicorn is to have.
    pub fn service(&self) -> String {
        self.env.get("SW_AGENT_NAME").cloned().unwrap_or_else(|| format!("corpus-{}", self.name))
    }

    /// Puts a value where a placeholder is.
    pub fn substitute(&mut self, placeholder: &str, value: &str) {
        let put = |text: &mut String| *text = text.replace(placeholder, value);
        put(&mut self.run);
        self.looping.as_mut().map(put);
        self.env.values_mut().for_each(put);
        self.files.values_mut().for_each(put);
        for step in &mut self.steps {
            step.run.as_mut().map(put);
            step.signal.as_mut().map(put);
            step.request.as_mut().map(put);
            step.exits.iter_mut().for_each(put);
            put(&mut step.text);
        }
    }
}

/// The words of a command; single quotes keep some together.
pub fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (at, part) in command.split('\'').enumerate() {
        if at % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}
