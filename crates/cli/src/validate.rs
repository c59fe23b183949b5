//! `stagely validate`: the server's own reading of `stagely.yaml` and of the compose files beside it, offline.

use std::io::{ErrorKind, Write};
use std::path::Path;

use stagely_domain::{compose, spec};

use crate::{ClientError, Exit};

/// Prints what editors check the file by.
pub(crate) fn schema(out: &mut (impl Write + ?Sized)) -> Result<Exit, ClientError> {
    writeln!(out, "{:#}", spec::json_schema())?;
    Ok(Exit::Done)
}

/// Prints every mistake as `file:line:column: key: message`.
pub(crate) fn validate(
    file: &Path,
    out: &mut (impl Write + ?Sized),
    err: &mut (impl Write + ?Sized),
) -> Result<Exit, ClientError> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file)
        .map_err(|error| ClientError::NotThere(format!("{name}: {error}; give the path of a stagely.yaml")))?;
    let reading = spec::read(&text, &name);
    let mut files = compose::Files::default();
    for path in reading.compose() {
        let place = file.with_file_name(path.as_str());
        let bytes = match std::fs::read(&place) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(ClientError::NotThere(format!("{}: {error}", place.display()))),
        };
        files.add(path, bytes.as_deref().map(String::from_utf8_lossy).as_deref());
    }
    match spec::resolve(reading, &files) {
        Ok(_) => {
            writeln!(out, "{name}: valid")?;
            Ok(Exit::Done)
        }
        Err(diagnostics) => {
            for diagnostic in &diagnostics {
                writeln!(err, "{diagnostic}")?;
            }
            let count = diagnostics.len();
            writeln!(err, "{name}: {count} {}", if count == 1 { "mistake" } else { "mistakes" })?;
            Ok(Exit::Wrong)
        }
    }
}
