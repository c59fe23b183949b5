//! Names of log streams, as an agent may choose them.

use stagely_domain::id::BuildJobId;

/// No service name is longer.
const MAX_SERVICE: usize = 128;

/// A stream that an agent may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamName {
    /// `build/<job id>`.
    Build(BuildJobId),
    /// `compose`, `agent`, `hook/<n>` or `service/<name>`.
    Machine,
}

/// Reads a name; `None` when it is outside the grammar.
#[must_use]
pub fn parse(name: &str) -> Option<StreamName> {
    match name.split_once('/') {
        None => matches!(name, "compose" | "agent").then_some(StreamName::Machine),
        Some(("build", job)) => {
            let id: BuildJobId = job.parse().ok()?;
            // One spelling only, or a job would have several streams.
            (id.to_string() == job).then_some(StreamName::Build(id))
        }
        Some(("hook", number)) => {
            let plain = number == "0" || !number.starts_with('0');
            let digits = (1..=3).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
            (plain && digits).then_some(StreamName::Machine)
        }
        Some(("service", service)) => {
            let fits = (1..=MAX_SERVICE).contains(&service.len());
            let known = service.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
            (fits && known).then_some(StreamName::Machine)
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{StreamName, parse};
    use stagely_domain::id::BuildJobId;

    #[test]
    fn names_of_the_grammar_are_read_and_all_others_refused() {
        let job = BuildJobId::generate();
        assert_eq!(parse(&format!("build/{job}")), Some(StreamName::Build(job)));
        for good in ["compose", "agent", "hook/0", "hook/12", "service/web", "service/my_db.1-x"] {
            assert_eq!(parse(good), Some(StreamName::Machine), "{good}");
        }
        for bad in [
            "",
            "build",
            "build/",
            "build/x",
            "hook/",
            "hook/-1",
            "hook/01",
            "hook/1234",
            "service/",
            "service/a/b",
            "service/a b",
            "service/\u{e4}",
            "Compose",
            "compose/",
            "other/x",
            "../agent",
            &format!("build/{}", job.label()),
            &format!("service/{}", "a".repeat(129)),
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
