//! Container, pod and systemd unit, as the names of a process's cgroups tell them.

/// Where a process runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// The path in the unified hierarchy, else in systemd's, else the longest.
    pub(super) cgroup: String,
    /// Id of the innermost container, 64 hexadecimal digits.
    pub(super) container: Option<String>,
    /// With dashes, whatever the runtime writes.
    pub(super) pod_uid: Option<String>,
    /// The innermost service of systemd, unless a container lies inside it.
    pub(super) unit: Option<String>,
}

/// Reads `/proc/<pid>/cgroup` (cgroups(7)): lines of `number:controllers:path`.
pub(super) fn place(text: &str) -> Place {
    let lines = || text.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    let of = |name: &str| lines().find(|(controllers, path)| *controllers == name && *path != "/");
    let longest = || lines().max_by_key(|(_, path)| path.len());
    let (_, cgroup) = of("").or_else(|| of("name=systemd")).or_else(longest).unwrap_or_default();
    let paths = || lines().map(|(_, path)| path);
    Place {
        cgroup: cgroup.to_owned(),
        container: paths().find_map(|path| path.rsplit('/').find_map(container)).map(str::to_owned),
        pod_uid: paths().find_map(|path| path.rsplit('/').find_map(pod_uid)),
        unit: paths().find_map(unit).map(str::to_owned),
    }
}

/// The id in `docker-<id>.scope`, `cri-containerd-<id>.scope`, `crio-<id>`, `libpod-<id>.scope`, `…:cri-containerd:<id>`
/// or `<id>`; a monitor (`conmon`) is no container.
fn container(segment: &str) -> Option<&str> {
    let name = segment.strip_suffix(".scope").unwrap_or(segment);
    let id = name.rsplit(['-', ':']).next()?;
    let is_id = id.len() == 64 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (is_id && !name.contains("conmon")).then_some(id)
}

/// The uid in `pod<uid>` or `kubepods-burstable-pod<uid>.slice`, where systemd's driver has `_` for `-`. A static pod's
/// is 32 digits without either.
fn pod_uid(segment: &str) -> Option<String> {
    let (_, uid) = segment.split(':').next()?.rsplit_once("pod")?;
    let uid = uid.strip_suffix(".slice").unwrap_or(uid).replace('_', "-");
    let digits = uid.bytes().filter(u8::is_ascii_hexdigit).count();
    let dashes = uid.bytes().filter(|byte| *byte == b'-').count();
    (digits == 32 && matches!(dashes, 0 | 4) && digits + dashes == uid.len()).then_some(uid)
}

fn unit(path: &str) -> Option<&str> {
    let inside = path.rsplit('/').take_while(|segment| container(segment).is_none());
    let mut services = inside.filter(|segment| segment.ends_with(".service"));
    services.next().filter(|unit| !unit.starts_with("user@"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const UID: &str = "3f6d1f2a-98b1-4f4e-8c3c-0a1b2c3d4e5f";

    #[test]
    fn containers_and_pods_are_read_from_every_runtimes_path() {
        let under = UID.replace('-', "_");
        let cases = [
            (format!("0::/system.slice/docker-{ID}.scope"), true, false),
            (format!("12:memory:/docker/{ID}\n0::/"), true, false),
            (format!("0::/kubepods.slice/kubepods-pod{under}.slice/cri-containerd-{ID}.scope"), true, true),
            (format!("0::/../../kubepods-burstable-pod{under}.slice/crio-{ID}.scope/x"), true, true),
            (format!("4:pids:/kubepods/besteffort/pod{UID}/{ID}"), true, true),
            (format!("0::/system.slice/kubepods-pod{under}.slice:cri-containerd:{ID}"), true, true),
            (format!("0::/kubepods/pod{}/{ID}", UID.replace('-', "")), true, true),
            (format!("0::/machine.slice/libpod-{ID}.scope/container"), true, false),
            (format!("0::/machine.slice/libpod-conmon-{ID}.scope"), false, false),
            (format!("0::/docker/{}", &ID[1..]), false, false),
            ("0::/user.slice/user-0.slice/session-1.scope".to_owned(), false, false),
            (String::new(), false, false),
        ];
        for (text, in_container, in_pod) in cases {
            let place = place(&text);
            assert_eq!(place.container.as_deref(), in_container.then_some(ID), "{text}");
            let uid = place.pod_uid.map(|uid| uid.replace('-', ""));
            assert_eq!(uid, in_pod.then(|| UID.replace('-', "")), "{text}");
        }
    }

    #[test]
    fn the_unit_is_the_applications_not_its_runtimes() {
        let cases = [
            ("0::/system.slice/shop.service".to_owned(), Some("shop.service")),
            ("0::/system.slice/system-api.slice/api@9052.service".to_owned(), Some("api@9052.service")),
            ("3:cpu:/x\n1:name=systemd:/system.slice/shop.service".to_owned(), Some("shop.service")),
            ("0::/user.slice/user@7.service/app.slice/shop.service".to_owned(), Some("shop.service")),
            ("0::/user.slice/user@7.service/app.slice/vte.scope".to_owned(), None),
            ("0::/user.slice/user-0.slice/session-1.scope".to_owned(), None),
            (format!("0::/system.slice/containerd.service/{ID}"), None),
            (format!("0::/docker/{ID}/system.slice/shop.service"), Some("shop.service")),
        ];
        for (text, unit) in cases {
            assert_eq!(place(&text).unit.as_deref(), unit, "{text}");
        }
    }

    #[test]
    fn the_unified_path_goes_first() {
        assert_eq!(place("2:cpu:/much/longer\n0::/a").cgroup, "/a");
        assert_eq!(place("2:cpu:/much/longer\n1:name=systemd:/b\n0::/").cgroup, "/b");
        assert_eq!(place("2:cpu:/longer\n3:pids:/c\n0::/").cgroup, "/longer");
        assert_eq!(place("0::/").cgroup, "/");
    }
}
