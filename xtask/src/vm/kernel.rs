//! Kernels from Debian's archive: the newest of a version.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use crate::archive::Archive;
use crate::archive::Suite;
use crate::shell;
use crate::shell::Failure;
use crate::shell::Outcome;
use crate::shell::While;
use crate::workspace;

/// Suites that together have every version in the matrix.
const SUITES: [Suite; 3] = [
    Suite { name: "bullseye-security", is_security: true },
    Suite { name: "bookworm-security", is_security: true },
    Suite { name: "trixie-backports", is_security: false },
];

/// A version as asked for, and its image or why there is none.
pub type Fetched = (String, Outcome<PathBuf>);

/// One image for each version. One version that cannot be had is no reason to leave out the others.
pub fn fetch(versions: &[String]) -> Outcome<Vec<Fetched>> {
    let folder = workspace::cache().join("vm/kernels");
    fs::create_dir_all(&folder).doing(format!("create {}", folder.display()))?;
    let archive = Kernels::open(&workspace::cache().join("vm/apt"));
    if let Err(failure) = &archive {
        shell::say(format!("{failure}; kernels fetched earlier are used"));
    }
    let image = |version: &String| {
        let kept = newest_kept(&folder, version);
        match archive.as_ref().map(|archive| archive.newest(version)) {
            Ok(Ok(package)) if kept.as_ref().is_none_or(|(name, _)| *name != package) => {
                archive.as_ref().map_or_else(
                    |_| Err(Failure::new("the archive is gone")),
                    |archive| archive.unpack(&package, &folder),
                )
            }
            other => kept.map(|(_, image)| image).ok_or_else(|| match other {
                Ok(Err(failure)) => failure,
                _ => Failure::new(format!("no kernel {version} here, and the archive cannot be reached")),
            }),
        }
    };
    Ok(versions.iter().map(|version| (version.clone(), image(version))).collect())
}

/// The newest image of this version that is here already, with the name of its package.
fn newest_kept(folder: &Path, version: &str) -> Option<(String, PathBuf)> {
    let names = fs::read_dir(folder).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let name = newest(names, version)?;
    let image = folder.join(&name).join("vmlinuz");
    image.is_file().then_some((name, image))
}

/// The suites that have kernels, and what of them there is.
struct Kernels {
    archive: Archive,
    names: Vec<String>,
}

impl Kernels {
    fn open(folder: &Path) -> Outcome<Self> {
        let archive = Archive::open(folder, &SUITES)?;
        let names = archive.names("linux-")?;
        Ok(Self { archive, names })
    }

    fn newest(&self, version: &str) -> Outcome<String> {
        newest(self.names.iter().cloned(), version)
            .ok_or_else(|| Failure::new(format!("Debian's archive has no kernel {version} for clouds")))
    }

    /// Downloads a package and keeps its image.
    fn unpack(&self, package: &str, folder: &Path) -> Outcome<PathBuf> {
        let scratch = folder.join(".unpacked");
        self.archive.unpack(&[package], &scratch)?;
        let image = find_image(&scratch)
            .ok_or_else(|| Failure::new(format!("{package} has no vmlinuz: it is packed in a new way")))?;
        let home = folder.join(package);
        fs::create_dir_all(&home).doing(format!("create {}", home.display()))?;
        let kept = home.join("vmlinuz");
        fs::rename(&image, &kept).doing(format!("keep {}", image.display()))?;
        fs::remove_dir_all(&scratch).doing(format!("empty {}", scratch.display()))?;
        Ok(kept)
    }
}

/// Of these packages, the newest kernel of this version (`6.12`, or `7` for any 7.x) for clouds: the smallest one,
/// with what a virtual machine needs.
fn newest(names: impl Iterator<Item = String>, version: &str) -> Option<String> {
    names.filter_map(|name| Some((release(&name, version)?, name))).max().map(|(_, name)| name)
}

/// The numbers of a package's version, when it is a kernel of the version asked for.
fn release(name: &str, version: &str) -> Option<Vec<u64>> {
    // Newer packaging keeps the image in linux-binary; linux-image then only depends on it.
    let (split, rest) = match name.strip_prefix("linux-binary-") {
        Some(rest) => (1, rest),
        None => (0, name.strip_prefix("linux-image-")?),
    };
    let full = rest.strip_suffix("-cloud-amd64")?;
    let tail = full.strip_prefix(version)?;
    if !tail.starts_with('.') && !tail.starts_with('-') && !tail.starts_with('+') {
        return None;
    }
    // A release candidate is not a release.
    if full.contains("~rc") || full.contains("-rc") {
        return None;
    }
    let numbers = full.split(|sign: char| !sign.is_ascii_digit()).filter_map(|digits| digits.parse().ok());
    Some(numbers.chain([split]).collect())
}

fn find_image(folder: &Path) -> Option<PathBuf> {
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).ok()?.flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(path);
            } else if entry.file_name().to_string_lossy().starts_with("vmlinuz") {
                return Some(path);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::newest;

    fn choose(version: &str) -> Option<String> {
        let names = [
            "linux-image-5.10.0-9-cloud-amd64",
            "linux-image-5.10.0-35-cloud-amd64",
            "linux-image-5.10.0-35-amd64",
            "linux-image-6.1.0-40-cloud-amd64",
            "linux-image-6.12.48+deb12-cloud-amd64",
            "linux-image-6.12.9+deb12-cloud-amd64",
            "linux-image-6.12.48+deb12-cloud-amd64-dbg",
            "linux-image-7.2.1+deb13-cloud-amd64",
            "linux-image-7.3.2+deb13-cloud-amd64",
            "linux-binary-7.3.2+deb13-cloud-amd64",
        ];
        newest(names.map(str::to_owned).into_iter(), version)
    }

    #[test]
    fn the_newest_is_by_number_not_by_letter() {
        assert_eq!(choose("5.10").as_deref(), Some("linux-image-5.10.0-35-cloud-amd64"));
        assert_eq!(choose("6.12").as_deref(), Some("linux-image-6.12.48+deb12-cloud-amd64"));
    }

    #[test]
    fn a_version_is_not_a_prefix_of_another() {
        assert_eq!(choose("6.1").as_deref(), Some("linux-image-6.1.0-40-cloud-amd64"));
        assert_eq!(choose("6"), choose("6.12"));
        assert_eq!(choose("8"), None);
    }

    #[test]
    fn of_a_split_kernel_the_package_with_the_image() {
        assert_eq!(choose("7").as_deref(), Some("linux-binary-7.3.2+deb13-cloud-amd64"));
    }
}
