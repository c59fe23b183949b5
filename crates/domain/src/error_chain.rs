//! How a log line tells an error. No error of ours repeats its cause in its own text, so printing the error alone would
//! lose it.

use std::error::Error;

/// The error and all its causes on one line: `read a file: permission denied`.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
