//! Whether a pull request gets a preview.

use super::{Forks, Triggers};

/// What the conditions look at. All of it is untrusted text.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'p> {
    /// The branch that it is to be merged into.
    pub base: &'p str,
    /// Its labels.
    pub labels: &'p [String],
    /// Whether it is a draft.
    pub draft: bool,
    /// Whether its commits come from another repository.
    pub from_fork: bool,
    /// The paths that it changes; `None` when they are too many to be known.
    pub changed: Option<&'p [String]>,
}

impl Triggers {
    /// Whether [`Facts::changed`] is looked at; reading it costs calls of the git host.
    #[must_use]
    pub const fn look_at_paths(&self) -> bool {
        !self.paths.is_empty()
    }

    /// Why the pull request gets no preview; `None` when it gets one.
    #[must_use]
    pub fn refusal(&self, facts: &Facts<'_>) -> Option<String> {
        let fits = |patterns: &[String], text: &str| patterns.iter().any(|pattern| matches(pattern, text));
        if facts.from_fork && self.forks == Forks::Deny {
            return Some("triggers.forks: pull requests from forks get no preview".to_owned());
        }
        if facts.draft && !self.drafts {
            return Some("triggers.drafts: drafts get no preview until they are ready for review".to_owned());
        }
        if !fits(&self.branches, facts.base) {
            return Some(format!("triggers.branches: the base branch is not one of {}", self.branches.join(", ")));
        }
        let wanted = &self.labels.any;
        if !wanted.is_empty() && !wanted.iter().any(|label| facts.labels.contains(label)) {
            return Some(format!("triggers.labels: none of the labels {} is there", wanted.join(", ")));
        }
        let is_beside = |changed: &[String]| !changed.iter().any(|path| fits(&self.paths, path));
        if self.look_at_paths() && facts.changed.is_some_and(is_beside) {
            return Some(format!("triggers.paths: nothing below {} was changed", self.paths.join(", ")));
        }
        None
    }
}

/// Whether `pattern` covers the whole of `text`; `*` (and `**`) stands for any run of characters.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    let mut rest = rest;
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::{Facts, matches};
    use crate::spec::{Forks, Labels, Triggers};

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        for (pattern, text) in [
            ("*", ""),
            ("*", "main"),
            ("main", "main"),
            ("api/**", "api/a/b"),
            ("*.rs", "a/b.rs"),
            ("a*b*c", "a-b-b-c"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in
            [("main", "maine"), ("api/**", "web/api/a"), ("*.rs", "a.rsx"), ("a*ba", "aba-"), ("ab*b", "ab")]
        {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn every_condition_refuses_with_its_name() {
        let (labels, changed) = (vec!["bug".to_owned()], vec!["web/a".to_owned()]);
        let facts = Facts { base: "main", labels: &labels, draft: true, from_fork: true, changed: Some(&changed) };
        assert_eq!(Triggers::default().refusal(&facts), None);
        let list = |text: &str| vec![text.to_owned()];
        let cases = [
            (Triggers { forks: Forks::Deny, ..Triggers::default() }, "triggers.forks"),
            (Triggers { drafts: false, ..Triggers::default() }, "triggers.drafts"),
            (Triggers { branches: list("release/*"), ..Triggers::default() }, "triggers.branches"),
            (Triggers { labels: Labels { any: list("preview") }, ..Triggers::default() }, "triggers.labels"),
            (Triggers { paths: list("api/**"), ..Triggers::default() }, "triggers.paths"),
        ];
        for (triggers, name) in cases {
            let refusal = triggers.refusal(&facts).unwrap();
            assert!(refusal.starts_with(name), "{refusal}");
        }
        let beside = Triggers { paths: list("api/**"), ..Triggers::default() };
        assert_eq!(beside.refusal(&Facts { changed: None, ..facts }), None, "what is not known refuses nothing");
        let met = Triggers {
            branches: list("ma*"),
            labels: Labels { any: vec!["preview".to_owned(), "bug".to_owned()] },
            paths: list("web/*"),
            ..Triggers::default()
        };
        assert_eq!(met.refusal(&facts), None);
    }
}
