//! Failures of runs, as people read them.

use stagely_domain::failure::{Code, Failure};
use stagely_domain::spec::Diagnostic;

/// A failure that is about no single service.
pub fn failure(code: Code, phase: &str, message: impl Into<String>) -> Failure {
    Failure {
        code,
        phase: phase.to_owned(),
        service: None,
        exit_code: None,
        message: message.into(),
        log_tail: String::new(),
    }
}

/// Every mistake of the files at once.
pub fn mistakes(code: Code, diagnostics: &[Diagnostic]) -> Failure {
    let lines: Vec<String> = diagnostics.iter().take(50).map(ToString::to_string).collect();
    let message = match lines.len() {
        1 => "one mistake:".to_owned(),
        count => format!("{count} mistakes:"),
    };
    Failure { log_tail: lines.join("\n"), ..failure(code, "read", message) }
}
