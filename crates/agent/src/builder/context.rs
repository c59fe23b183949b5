//! Paths of a build: they stay inside the checkout, also through symbolic links.

use std::path::{Component, Path, PathBuf};

use stagely_domain::failure::Code;

use crate::fault::Fault;

/// `path` inside `root`, with all links followed.
///
/// # Errors
/// `build_failed` if it does not exist or leads outside.
pub fn inside(root: &Path, path: &str, what: &str) -> Result<PathBuf, Fault> {
    let refuse = |why: &str| {
        let message = format!("the build's {what} {path:?} {why}");
        Fault::new(Code::BuildFailed, "build", message)
    };
    let plain = Path::new(path).components().all(|part| !matches!(part, Component::RootDir | Component::Prefix(_)));
    if !plain {
        return Err(refuse("is not relative to the repository"));
    }
    let root = root.canonicalize().map_err(|_| refuse("cannot be found"))?;
    let full = root.join(path).canonicalize().map_err(|_| refuse("does not exist in the repository"))?;
    if full.starts_with(&root) { Ok(full) } else { Err(refuse("leads out of the repository")) }
}

#[cfg(test)]
mod tests {
    use super::inside;

    #[test]
    fn a_context_stays_inside_the_repository() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("repository");
        std::fs::create_dir_all(root.join("api/src")).unwrap();
        std::os::unix::fs::symlink("/etc", root.join("out")).unwrap();
        std::os::unix::fs::symlink("api", root.join("in")).unwrap();
        for good in [".", "./api", "api/../api/src", "in", ""] {
            assert!(inside(&root, good, "context").is_ok(), "{good}");
        }
        for bad in ["..", "/etc", "out", "out/ssh", "missing", "api/../.."] {
            assert!(inside(&root, bad, "context").is_err(), "{bad}");
        }
    }
}
