//! The bundled sample application (`deploy/sample/`) as the content of a repository.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;

/// A row that the sample's migration inserts: a page that shows it has been to the database.
pub const FIRST_ITEM: &str = "Hello from the database";

/// Where the version is that the page shows.
const VERSION: &str = "frontend/public/version.txt";

/// A repository's files by path.
pub type Files = BTreeMap<String, Vec<u8>>;

/// The files of the first commit. `workspace` is the root of our own repository.
///
/// # Errors
/// When they cannot be read.
pub fn files(workspace: &Path) -> anyhow::Result<Files> {
    let root = workspace.join("deploy/sample");
    let mut files = Files::new();
    let mut open = vec![root.clone()];
    while let Some(directory) = open.pop() {
        let entries = std::fs::read_dir(&directory).with_context(|| format!("read {}", directory.display()))?;
        for entry in entries {
            let path = entry.with_context(|| format!("read {}", directory.display()))?.path();
            if path.is_dir() {
                // What Python leaves when somebody ran the sample where it is.
                if !path.ends_with("__pycache__") {
                    open.push(path);
                }
                continue;
            }
            let content = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
            let name = path.strip_prefix(&root).unwrap_or(&path).display().to_string();
            files.insert(name, content);
        }
    }
    Ok(files)
}

/// The files that differ in a commit that is to show `version`: only the last layer of one image changes.
#[must_use]
pub fn with_version(version: &str) -> Files {
    Files::from([(VERSION.to_owned(), format!("{version}\n").into_bytes())])
}

/// Files as a git host takes them.
#[must_use]
pub fn borrow(files: &Files) -> Vec<(&str, &[u8])> {
    files.iter().map(|(name, content)| (name.as_str(), content.as_slice())).collect()
}

/// Whether a page is the sample's, at `version`.
#[must_use]
pub fn shows_version(page: &str, version: &str) -> bool {
    let shown = page.split_once("id=\"version\">").and_then(|(_, rest)| rest.split_once('<'));
    shown.is_some_and(|(shown, _)| shown.trim() == version)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use stagely_domain::{compose, spec};

    use super::{FIRST_ITEM, borrow, files, shows_version, with_version};

    fn workspace() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
    }

    #[test]
    fn the_sample_is_what_stagely_takes_with_and_without_its_file() {
        let files = files(workspace()).unwrap();
        let text = |name: &str| std::str::from_utf8(&files[name]).unwrap();
        let file = spec::RepoPath::parse("docker-compose.yml").unwrap();
        let mut compose = compose::Files::default();
        compose.add(&file, Some(text("docker-compose.yml")));
        let written = spec::resolve(spec::read(text(spec::FILE), spec::FILE), &compose).unwrap();
        let derived = spec::resolve(spec::Reading::default(), &compose).unwrap();
        assert_eq!(written.services, ["frontend", "api", "db"]);
        assert_eq!((&written.targets, &written.exposures), (&derived.targets, &derived.exposures));
        for target in &written.targets {
            assert!(files.contains_key(&format!("{}/{}", target.context, target.dockerfile)), "{}", target.name);
        }
        assert_eq!(borrow(&files).len(), files.len());
    }

    #[test]
    fn what_checks_look_for_is_in_the_sample() {
        let files = files(workspace()).unwrap();
        let text = |name: &str| std::str::from_utf8(&files[name]).unwrap();
        assert!(text("api/migrations/002_first_items.sql").contains(FIRST_ITEM));
        assert!(text("frontend/public/index.html").contains("id=\"version\"><!--# include file=\"version.txt\" -->"));
        assert!(with_version("2").keys().all(|name| files.contains_key(name)));
        assert!(shows_version("<strong id=\"version\">2.0\n</strong>", "2.0"));
        assert!(!shows_version("<strong id=\"version\">1.0\n</strong>", "2.0") && !shows_version("", "2.0"));
    }
}
