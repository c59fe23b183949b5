//! What a client asks for, and how much of it a credential allows.

use serde::Serialize;
use stagely_runtime::registry_credential::{Access, Claims};

/// More scopes than any client asks for at once.
const MAX_SCOPES: usize = 32;

/// One entry of a token's `access`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Grant {
    /// Always `repository`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The repository.
    pub name: String,
    /// `pull`, `push`, `delete`.
    pub actions: Vec<&'static str>,
}

/// The part of `asked` (texts like `repository:prj-…/web:pull,push`, several to a text when separated by
/// spaces) that `claims` allow. What is not allowed is left out without a word, as the specification says.
#[must_use]
pub fn grants(asked: &[String], claims: &Claims) -> Vec<Grant> {
    asked
        .iter()
        .flat_map(|scopes| scopes.split(' '))
        .filter(|scope| !scope.is_empty())
        .take(MAX_SCOPES)
        .filter_map(|scope| grant(scope, claims))
        .collect()
}

fn grant(scope: &str, claims: &Claims) -> Option<Grant> {
    let (kind, rest) = scope.split_once(':')?;
    let (name, asked) = rest.rsplit_once(':')?;
    let inside = name.strip_prefix(&claims.project.label())?.strip_prefix('/')?;
    if kind != "repository" || !inside.split('/').all(is_component) {
        return None;
    }
    let allowed: &[&'static str] = match claims.access {
        Access::Pull => &["pull"],
        Access::Push => &["pull", "push"],
        Access::Full => &["pull", "push", "delete"],
    };
    let actions: Vec<_> =
        allowed.iter().copied().filter(|action| asked.split(',').any(|asked| asked == *action)).collect();
    (!actions.is_empty()).then(|| Grant { kind: "repository", name: name.to_owned(), actions })
}

/// A path component as the distribution specification allows it.
fn is_component(part: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    part.bytes().next().is_some_and(inner)
        && part.bytes().next_back().is_some_and(inner)
        && part.bytes().all(|byte| inner(byte) || matches!(byte, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::{Grant, grants};
    use chrono::DateTime;
    use stagely_domain::id::ProjectId;
    use stagely_runtime::registry_credential::{Access, Claims};

    #[test]
    fn a_credential_reaches_its_own_project_and_no_further() {
        let project = ProjectId::generate();
        let own = project.label();
        let claims = |access| Claims { project, holder: String::new(), access, expires_at: DateTime::UNIX_EPOCH };
        let got = |scope: &str, access| grants(&[scope.to_owned()], &claims(access));
        let grant = |name: &str, actions: &[&'static str]| {
            vec![Grant { kind: "repository", name: format!("{own}/{name}"), actions: actions.to_vec() }]
        };

        assert_eq!(got(&format!("repository:{own}/web:pull,push"), Access::Push), grant("web", &["pull", "push"]));
        assert_eq!(got(&format!("repository:{own}/web:pull,push"), Access::Pull), grant("web", &["pull"]));
        assert_eq!(got(&format!("repository:{own}/web/cache:pull,push,delete"), Access::Full).len(), 1);
        let refused = [
            format!("repository:{own}/web:push"),
            format!("repository:{own}/web:*"),
            format!("repository:{own}:pull"),
            format!("repository:{own}/:pull"),
            format!("repository:{own}/../other/web:pull"),
            format!("repository:{own}x/web:pull"),
            format!("repository:{}/web:pull", ProjectId::generate().label()),
            format!("repository(plugin):{own}/web:pull"),
            "registry:catalog:*".to_owned(),
            "repository:*:pull".to_owned(),
            "repository".to_owned(),
            String::new(),
        ];
        for scope in &refused {
            assert_eq!(got(scope, Access::Pull), [], "{scope}");
        }
    }

    #[test]
    fn several_scopes_may_stand_in_one_text() {
        let project = ProjectId::generate();
        let own = project.label();
        let claims = Claims { project, holder: String::new(), access: Access::Push, expires_at: DateTime::UNIX_EPOCH };
        let asked =
            [format!("repository:{own}/a:pull repository:{own}/b:pull,push"), format!("repository:{own}/c:pull")];
        assert_eq!(grants(&asked, &claims).len(), 3);
    }
}
