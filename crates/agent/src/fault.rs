//! Why work ended early: it was called off, or it failed in a way that a person should read about.

use stagely_domain::failure::Code;
use stagely_proto::agent;

use crate::process;

/// Why work ended early.
#[derive(Debug)]
pub enum Stop {
    /// A newer wish took over.
    Cancelled,
    /// It failed.
    Failed(Box<Fault>),
}

/// A failure with all that is known of it. Texts are masked when it is reported.
#[derive(Debug, Clone)]
pub struct Fault {
    /// The kind.
    pub code: Code,
    /// The step that failed.
    pub phase: &'static str,
    /// The service it is about.
    pub service: String,
    /// The exit code of what failed, or 0.
    pub exit_code: i32,
    /// One or more sentences.
    pub message: String,
    /// The last lines of the log, oldest first.
    pub log_tail: String,
}

impl Fault {
    /// A failure of `phase`.
    #[must_use]
    pub fn new(code: Code, phase: &'static str, message: impl Into<String>) -> Self {
        Self { code, phase, service: String::new(), exit_code: 0, message: message.into(), log_tail: String::new() }
    }

    /// It is about `service`.
    #[must_use]
    pub fn of_service(mut self, service: impl Into<String>) -> Self {
        self.service = service.into();
        self
    }

    /// A process ended with `code`.
    #[must_use]
    pub fn exit(mut self, code: i32) -> Self {
        self.exit_code = code;
        self
    }

    /// The last lines of the log.
    #[must_use]
    pub fn tail(mut self, text: impl Into<String>) -> Self {
        self.log_tail = text.into();
        self
    }

    /// As it is sent, with secrets hidden.
    #[must_use]
    pub fn report(&self, logs: &crate::logs::LogBook) -> agent::Failure {
        agent::Failure {
            code: self.code.as_str().to_owned(),
            phase: self.phase.to_owned(),
            service: self.service.clone(),
            exit_code: self.exit_code,
            message: last_chars(&logs.mask(&self.message), 4_000),
            log_tail: last_chars(&logs.mask(&self.log_tail), 16_000),
        }
    }
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Failed(Box::new(fault))
    }
}

/// What becomes of an error of a process in `phase`.
#[must_use]
pub fn of_process(error: process::Error, code: Code, phase: &'static str) -> Stop {
    match error {
        process::Error::Cancelled => Stop::Cancelled,
        process::Error::TimedOut { ref tail, .. } => {
            Fault::new(Code::TimedOut, phase, error.to_string()).tail(tail.clone()).into()
        }
        process::Error::Start { ref source, .. } => Fault::new(code, phase, format!("{error}: {source}")).into(),
    }
}

/// The end of `text`, at most `count` characters.
fn last_chars(text: &str, count: usize) -> String {
    let skip = text.chars().count().saturating_sub(count);
    text.chars().skip(skip).collect()
}
