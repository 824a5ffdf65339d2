//! The Kubernetes workload behind a pod's name.

/// Letters of the random ends that Kubernetes makes (`apimachinery/pkg/util/rand`): no vowels, no 0, 1 and 3.
const RANDOM: &str = "bcdfghjklmnpqrstvwxz2456789";
/// The ten of them that a `pod-template-hash` is made of: the digits of a number, each replaced by a letter.
const HASH: &str = "456789bcdf";
/// Characters of the random end.
const RANDOM_LENGTH: usize = 5;
/// A host name is no longer (`HOST_NAME_MAX` and DNS): what is that long may have lost its end.
const HOST_NAME_LIMIT: usize = 63;

/// The name of the Deployment, StatefulSet, DaemonSet, Job or CronJob that a pod belongs to; the pod's own name when
/// nothing made it.
pub(super) fn of(pod: &str) -> &str {
    if pod.len() >= HOST_NAME_LIMIT {
        return pod;
    }
    let Some((owner, end)) = split(pod) else { return pod };
    if is_number(end) && (end == "0" || !end.starts_with('0')) {
        // StatefulSet: `<name>-<n>`. Random ends of digits alone are five long.
        if end.len() != RANDOM_LENGTH || !end.chars().all(|c| RANDOM.contains(c)) {
            return owner;
        }
    } else if end.len() != RANDOM_LENGTH || !end.chars().all(|c| RANDOM.contains(c)) {
        return pod;
    }
    match split(owner) {
        // Deployment: `<name>-<hash>-<random>`.
        Some((name, hash)) if (6..=10).contains(&hash.len()) && hash.chars().all(|c| HASH.contains(c)) => {
            name
        }
        // CronJob: `<name>-<minutes>-<random>`, seconds before 1.21.
        Some((name, time)) if [8, 10].contains(&time.len()) && is_number(time) => name,
        // DaemonSet, ReplicaSet, Job: `<name>-<random>`.
        _ => owner,
    }
}

fn split(name: &str) -> Option<(&str, &str)> {
    name.rsplit_once('-').filter(|(start, end)| !start.is_empty() && !end.is_empty())
}

fn is_number(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ends_that_kubernetes_made_are_taken_off() {
        let cases = [
            ("shop-6d4b75cb6d-hx7vq", "shop"),
            ("shop-api-7f89c5cd64-2zkqw", "shop-api"),
            ("shop-v2-5b8d7f6c9-x4vbn", "shop-v2"),
            ("shop-0", "shop"),
            ("shop-db-12", "shop-db"),
            ("node-agent-hx7vq", "node-agent"),
            ("report-28391040-9kztw", "report"),
            ("report-1700000000-9kztw", "report"),
            ("import-hx7vq", "import"),
            ("shop-007", "shop-007"),
            ("shop", "shop"),
            ("shop-api", "shop-api"),
            ("shop-admin", "shop-admin"),               // vowels
            ("shop-hx7v", "shop-hx7v"),                 // four letters
            ("shop-aaaaaaaaa-hx7vq", "shop-aaaaaaaaa"), // not a hash
            ("-0", "-0"),
            ("", ""),
        ];
        for (pod, name) in cases {
            assert_eq!(of(pod), name, "{pod}");
        }
        let cut = format!("{}-6d4b75cb6d-hx7vq", "x".repeat(46));
        assert_eq!((cut.len(), of(&cut)), (63, cut.as_str()));
    }
}
