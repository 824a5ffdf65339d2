//! The release of gunicorn that a process runs, from what pip writes beside it.
use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// The version in the name of gunicorn's metadata below the prefixes that the command line names: `<prefix>/bin/gunicorn`,
/// `<prefix>/bin/python`. A bare `python` says nothing of a virtual environment, so its prefix stays unknown.
pub(super) fn of(pid: u32, argv: &[String], environment: Option<&str>) -> Option<String> {
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    let prefixes =
        argv.iter().take(2).rev().filter_map(|word| prefix(word)).chain(environment.map(Path::new));
    prefixes.filter(|prefix| prefix.is_absolute()).find_map(|prefix| {
        let lib = root.join(prefix.strip_prefix("/").ok()?).join("lib");
        let pythons = names(&lib).into_iter().filter(|name| name.starts_with("python3"));
        let mut sites = pythons
            .flat_map(|python| ["site-packages", "dist-packages"].map(|site| lib.join(&python).join(site)));
        sites.find_map(|site| names(&site).iter().find_map(|name| version(name)))
    })
}

/// `/v` of `/v/bin/gunicorn`.
fn prefix(word: &str) -> Option<&Path> {
    Path::new(word).parent().filter(|folder| folder.ends_with("bin"))?.parent()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// `23.0.0` of `gunicorn-23.0.0.dist-info`.
fn version(name: &str) -> Option<String> {
    let rest = name.strip_prefix("gunicorn-")?;
    let version = rest.strip_suffix(".dist-info").or_else(|| rest.strip_suffix(".egg-info"))?;
    version.starts_with(|c: char| c.is_ascii_digit()).then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_in_a_name_below_the_prefix() {
        let folder = std::env::temp_dir().join(format!("sw-observe-release-{}", std::process::id()));
        fs::create_dir_all(folder.join("lib/python3.11/site-packages/gunicorn-23.0.0.dist-info")).unwrap();
        let argv = |words: &[&str]| {
            words.iter().map(|word| folder.join(word).display().to_string()).collect::<Vec<_>>()
        };
        let found = |argv: &[String], environment| of(std::process::id(), argv, environment);
        assert_eq!(found(&argv(&["bin/python", "bin/gunicorn"]), None).as_deref(), Some("23.0.0"));
        assert_eq!(found(&["python".to_owned()], folder.to_str()).as_deref(), Some("23.0.0"));
        assert_eq!(found(&["python".to_owned(), "-m".to_owned()], None), None);
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(version("gunicorn-20.1.0.egg-info").as_deref(), Some("20.1.0"));
        assert_eq!(version("gunicorn-color-1.dist-info"), None);
    }
}
