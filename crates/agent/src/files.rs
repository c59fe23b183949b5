//! Writing files so that a crash leaves the old or the new text, never half of it.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Writes `text` for root alone (0600), creating the directories above it.
///
/// # Errors
/// The file system's.
pub fn write_private(path: &Path, text: &[u8]) -> io::Result<()> {
    write(path, text, 0o600)
}

/// Writes `text` for everyone to read (0644), creating the directories above it.
///
/// # Errors
/// The file system's.
pub fn write_public(path: &Path, text: &[u8]) -> io::Result<()> {
    write(path, text, 0o644)
}

/// The text of a file that may be absent.
///
/// # Errors
/// The file system's, but for "not found".
pub fn find(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Creates a directory that only root may enter.
///
/// # Errors
/// The file system's.
pub fn ensure_private_dir(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o700))
}

fn write(path: &Path, text: &[u8], mode: u32) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = path.with_file_name(name);
    drop_file(&fresh)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}

/// Removes a file that may be absent.
///
/// # Errors
/// The file system's, but for "not found".
pub fn drop_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
