//! What is wrong with a file, in the words of the person who wrote it.

use std::fmt;

use crate::yaml::Position;

/// One mistake and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file, as the repository names it.
    pub file: String,
    /// Where.
    pub at: Position,
    /// The offending key as a path, such as `preview.size`; empty for the whole file.
    pub key: String,
    /// What is wrong, and what was expected.
    pub message: String,
    /// The nearest thing that would have been valid.
    pub suggestion: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.at.line, self.at.column)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, " (did you mean `{suggestion}`?)"),
            None => Ok(()),
        }
    }
}

/// The candidate nearest to `given`, if one is near enough to have been meant.
pub(super) fn nearest<'c>(given: &str, candidates: &[&'c str]) -> Option<&'c str> {
    let lower = given.to_lowercase();
    candidates
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(&lower, candidate), *candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
