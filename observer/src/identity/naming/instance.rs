//! Instance names in the Python agent's forms, within OAP's limit.
use super::Given;
use super::InstanceFormat;
use super::marked;
use super::shorten;
use crate::identity::Facts;

/// OAP cuts instance names silently at this many characters (`SW_INSTANCE_NAME_MAX_LENGTH`).
const LIMIT: usize = 70;

/// A master: `<base>-master(<pid>)`. All pids are those of the process's own pid namespace.
pub fn master(given: &Given, master: &Facts) -> String {
    with_suffix(&base(given, master), &of_master(master))
}

/// A worker: `<base>-master(<pid>)-child(<pid>)`, in the manual format `<base>-child(<pid>)`.
pub fn worker(given: &Given, master: &Facts, inner_pid: u32) -> String {
    below(given, master, &[inner_pid])
}

/// A dirty worker: `<name of its arbiter>-child(<pid>)`.
pub fn dirty_worker(given: &Given, master: &Facts, arbiter_pid: u32, inner_pid: u32) -> String {
    below(given, master, &[arbiter_pid, inner_pid])
}

/// A worker whose master was gone before it was found, from its own facts: `<base>-child(<pid>)`.
pub fn orphan(given: &Given, own: &Facts, inner_pid: u32) -> String {
    with_suffix(&base(given, own), &format!("-child({inner_pid})"))
}

/// Another name for a process whose name another living process has already: two containers with one host name have
/// the same pids. The base gets a mark, made of the pid namespace and the container. All processes of a master need
/// it when its master has it, so that they stay together.
pub fn distinct(name: &str, facts: &Facts) -> String {
    let (base, pids) = name.split_at(start_of_pids(name));
    let place = format!("{base}\0{}\0{}", facts.pidns, facts.container.as_deref().unwrap_or_default());
    format!("{}{pids}", marked(base, LIMIT.saturating_sub(pids.chars().count()), &place))
}

/// Where the `-master(…)` and `-child(…)` at the end of a name begin.
fn start_of_pids(name: &str) -> usize {
    let mut end = name.len();
    loop {
        let head = name.get(..end).unwrap_or_default();
        let last = head.strip_suffix(')').and_then(|head| head.rsplit_once('('));
        let group =
            last.filter(|(_, pid)| pid.bytes().all(|byte| byte.is_ascii_digit())).map(|(head, _)| head);
        match group.and_then(|head| head.strip_suffix("-master").or_else(|| head.strip_suffix("-child"))) {
            Some(base) => end = base.len(),
            None => return end,
        }
    }
}

fn of_master(master: &Facts) -> String {
    format!("-master({})", master.inner_pid)
}

fn below(given: &Given, master: &Facts, pids: &[u32]) -> String {
    let mut suffix = match given.format {
        InstanceFormat::Agent | InstanceFormat::Random => of_master(master),
        InstanceFormat::Manual => String::new(),
    };
    suffix.extend(pids.iter().map(|pid| format!("-child({pid})")));
    with_suffix(&base(given, master), &suffix)
}

/// The part of a name that is the same for a master and all its workers.
fn base(given: &Given, master: &Facts) -> String {
    let chosen = given.instance.as_deref().or_else(|| master.variable("SW_AGENT_INSTANCE_NAME"));
    match (chosen, given.format) {
        (Some(name), _) => name.to_owned(),
        (None, InstanceFormat::Random) => random(master),
        (None, InstanceFormat::Agent | InstanceFormat::Manual) => master.hostname.clone(),
    }
}

/// 32 hexadecimal digits such as the agent makes up at each start of a master; the same for as long as this master
/// lives, for every observer.
fn random(master: &Facts) -> String {
    let text = format!("{} {} {} {}", master.key.pid, master.key.start, master.pidns, master.hostname);
    // FNV-1a, 128 bits.
    let digest = text.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128, |digest, byte| {
        (digest ^ u128::from(byte)).wrapping_mul(0x0100_0000_0000_0000_0000_013b)
    });
    // Version and variant of a random UUID (RFC 9562, section 5.4).
    let uuid = digest & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    format!("{uuid:032x}")
}

/// Shortens the base, never the pids: what OAP cuts off by itself would merge workers.
fn with_suffix(base: &str, suffix: &str) -> String {
    format!("{}{suffix}", shorten(base, LIMIT.saturating_sub(suffix.chars().count())))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::identity::ProcessKey;

    fn facts(hostname: &str) -> Facts {
        Facts {
            key: ProcessKey { pid: 4711, start: 1 },
            inner_pid: 7,
            hostname: hostname.to_owned(),
            ..Facts::default()
        }
    }

    fn given(format: InstanceFormat) -> Given {
        Given { format, ..Given::default() }
    }

    #[test]
    fn names_have_the_agents_forms() {
        let (agent, manual) = (given(InstanceFormat::Agent), given(InstanceFormat::Manual));
        let web = facts("web-1");
        let cases = [
            (master(&agent, &web), "web-1-master(7)"),
            (worker(&agent, &web, 9), "web-1-master(7)-child(9)"),
            (dirty_worker(&agent, &web, 10, 11), "web-1-master(7)-child(10)-child(11)"),
            (orphan(&agent, &web, 9), "web-1-child(9)"),
            (master(&manual, &web), "web-1-master(7)"),
            (worker(&manual, &web, 9), "web-1-child(9)"),
            (dirty_worker(&manual, &web, 10, 11), "web-1-child(10)-child(11)"),
        ];
        for (name, expected) in cases {
            assert_eq!(name, expected);
        }
        let named = Facts { environ: vec![("SW_AGENT_INSTANCE_NAME".into(), "inst1".into())], ..web.clone() };
        assert_eq!(worker(&agent, &named, 9), "inst1-master(7)-child(9)");
        let given = Given { instance: Some("one".to_owned()), ..agent };
        assert_eq!(master(&given, &named), "one-master(7)");
    }

    #[test]
    fn a_random_base_is_a_uuid_of_this_master() {
        let random = given(InstanceFormat::Random);
        let (one, other) = (facts("a"), Facts { key: ProcessKey { pid: 4711, start: 2 }, ..facts("a") });
        let (name, again) = (worker(&random, &one, 9), worker(&random, &one, 9));
        let (base, pids) = name.split_at(32);
        assert_eq!((pids, name.clone()), ("-master(7)-child(9)", again));
        assert!(base.chars().all(|c| "0123456789abcdef".contains(c)), "{base}");
        assert_eq!(base.chars().nth(12), Some('4'), "{base}");
        assert!("89ab".contains(base.chars().nth(16).unwrap()), "{base}");
        assert_ne!(base, worker(&random, &other, 9).split_at(32).0);
        assert_eq!(master(&random, &one).split_at(32).0, base);
    }

    #[test]
    fn containers_with_one_host_name_stay_apart() {
        let agent = given(InstanceFormat::Agent);
        let one = Facts { pidns: 1, ..facts(&"x".repeat(80)) };
        let other = Facts { pidns: 2, ..one.clone() };
        let name = worker(&agent, &one, 9);
        assert_eq!(name, worker(&agent, &other, 9));
        let names = BTreeSet::from([distinct(&name, &one), distinct(&name, &other), name]);
        assert_eq!(names.len(), 3, "{names:?}");
        assert!(names.iter().all(|name| name.ends_with("-master(7)-child(9)") && name.chars().count() == 70));
        for (base, pids) in
            [("web", "-master(7)"), ("web", "-child(7)-child(8)"), ("a-child(x)", "-child(8)")]
        {
            let marked = distinct(&format!("{base}{pids}"), &one);
            assert!(marked.starts_with(&format!("{base}~")) && marked.ends_with(pids), "{marked}");
        }
    }

    proptest! {
        #[test]
        fn names_fit_and_never_merge(
            bases in prop::collection::btree_set("[a-z.é-]{0,5}[xy]{0,80}", 2..6),
            pids in prop::collection::btree_set(1..=4_194_304_u32, 2..6),
            format in prop::sample::select(vec![InstanceFormat::Agent, InstanceFormat::Manual]),
        ) {
            let mut names = BTreeSet::new();
            let mut count = 0;
            for base in &bases {
                let master = Facts { inner_pid: 4_194_304, ..facts(base) };
                for pid in &pids {
                    let name = worker(&given(format), &master, *pid);
                    let dirty = dirty_worker(&given(format), &master, 4_194_303, *pid);
                    let (marked, pid) = (distinct(&dirty, &master), format!("-child({pid})"));
                    prop_assert!(name.ends_with(&pid) && dirty.ends_with(&pid) && marked.ends_with(&pid));
                    names.extend([name, dirty, marked]);
                    count += 3;
                }
            }
            prop_assert!(names.iter().all(|name| name.chars().count() <= LIMIT), "{:?}", names);
            prop_assert_eq!(names.len(), count);
        }
    }
}
