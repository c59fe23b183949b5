//! The registry, as far as removing what environments leave behind needs it.
//!
//! The registry answers 401 and names a token endpoint; a short-lived `Full` credential of the project is shown
//! there, and the token that comes back goes with the request.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use reqwest::{Certificate, Client, Method, Response, StatusCode, Url};
use serde::Deserialize;
use stagely_domain::id::ProjectId;
use stagely_runtime::registry_credential::{Access, Claims, Minter};

/// The longest that one request may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// The most tags deleted in one look.
const MAX_DELETED: usize = 50;

/// The media type of an index of images.
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What went wrong with the registry.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The address or the certificate in the configuration is of no use.
    #[error("set up the registry client: {0}")]
    Setup(String),
    /// It was not reached, or its answer not read.
    #[error("{doing}")]
    Http {
        /// What was being done.
        doing: &'static str,
        /// Why not.
        #[source]
        source: reqwest::Error,
    },
    /// It said no.
    #[error("{doing}: the registry answered {status}")]
    Refused {
        /// What was being done.
        doing: &'static str,
        /// Its answer.
        status: StatusCode,
    },
}

/// A client of the one registry of this installation.
pub struct RegistryClient {
    http: Client,
    base: Url,
    minter: Minter,
}

/// One request.
struct Ask<'a> {
    method: Method,
    repository: &'a str,
    path: &'a str,
    index: Option<String>,
    doing: &'static str,
}

#[derive(Deserialize)]
struct Tags {
    #[serde(default)]
    tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Token {
    token: String,
}

impl RegistryClient {
    /// A client of the registry at `base`, which shows a certificate of `ca_pem` (empty: of a public authority).
    ///
    /// # Errors
    /// [`RegistryError::Setup`].
    pub fn new(base: &str, ca_pem: &str, minter: Minter) -> Result<Self, RegistryError> {
        let setup = |error: &dyn std::fmt::Display| RegistryError::Setup(error.to_string());
        let base: Url = base.parse().map_err(|error| setup(&error))?;
        let mut builder = Client::builder().timeout(DEADLINE);
        if !ca_pem.is_empty() {
            let ca = Certificate::from_pem(ca_pem.as_bytes()).map_err(|error| setup(&error))?;
            builder = builder.add_root_certificate(ca);
        }
        Ok(Self { http: builder.build().map_err(|error| setup(&error))?, base, minter })
    }

    /// The tags of a repository; none when there is no such repository.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn list_tags(
        &self,
        project: ProjectId,
        repository: &str,
        now: DateTime<Utc>,
    ) -> Result<Vec<String>, RegistryError> {
        let doing = "list tags";
        let answer = self
            .call(project, &Ask { method: Method::GET, repository, path: "tags/list", index: None, doing }, now)
            .await?;
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(Vec::new()),
            StatusCode::OK => {
                let tags: Tags = answer.json().await.map_err(|source| RegistryError::Http { doing, source })?;
                Ok(tags.tags.unwrap_or_default())
            }
            status => Err(RegistryError::Refused { doing, status }),
        }
    }

    /// Deletes a tag and nothing else: images that other tags name are kept. One that is not there is a success.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn delete_tag(
        &self,
        project: ProjectId,
        repository: &str,
        tag: &str,
        now: DateTime<Utc>,
    ) -> Result<(), RegistryError> {
        let (doing, path) = ("delete a tag", format!("manifests/{tag}"));
        let answer = self
            .call(project, &Ask { method: Method::DELETE, repository, path: &path, index: None, doing }, now)
            .await?;
        match answer.status() {
            // Registries before distribution 3 delete by digest only.
            StatusCode::BAD_REQUEST | StatusCode::METHOD_NOT_ALLOWED => {}
            status => return done(doing, status),
        }
        // Deleting the image's digest would take every tag of the same image along. So the tag is first moved to
        // an empty index that no other tag can have.
        let index = serde_json::json!({
            "schemaVersion": 2, "mediaType": INDEX, "manifests": [], "annotations": {"dev.stagely.removed": tag}
        });
        let answer = self
            .call(
                project,
                &Ask { method: Method::PUT, repository, path: &path, index: Some(index.to_string()), doing },
                now,
            )
            .await?;
        let digest = answer.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
        let Some(digest) = digest.filter(|_| answer.status().is_success()) else {
            return Err(RegistryError::Refused { doing, status: answer.status() });
        };
        let path = format!("manifests/{digest}");
        let answer = self
            .call(project, &Ask { method: Method::DELETE, repository, path: &path, index: None, doing }, now)
            .await?;
        done(doing, answer.status())
    }

    /// Deletes the tags that begin with `hash` and a hyphen in the repositories of `images`; how many.
    pub(crate) async fn drop_images(
        &self,
        project: ProjectId,
        hash: &str,
        images: &[String],
        now: DateTime<Utc>,
    ) -> Result<usize, RegistryError> {
        // The project's own part of the registry only, whatever a row says.
        let own = format!("{}/", project.label());
        let repositories: BTreeSet<&str> = images
            .iter()
            .filter_map(|image| image.rsplit_once(':').map(|(repository, _)| repository))
            .filter(|repository| repository.starts_with(&own))
            .collect();
        let (prefix, mut deleted) = (format!("{hash}-"), 0);
        for repository in repositories {
            let tags = self.list_tags(project, repository, now).await?;
            for tag in tags.iter().filter(|tag| tag.starts_with(&prefix)) {
                if deleted == MAX_DELETED {
                    return Ok(deleted);
                }
                self.delete_tag(project, repository, tag, now).await?;
                deleted += 1;
            }
        }
        Ok(deleted)
    }

    async fn call(&self, project: ProjectId, ask: &Ask<'_>, now: DateTime<Utc>) -> Result<Response, RegistryError> {
        let doing = ask.doing;
        let http = |source| RegistryError::Http { doing, source };
        let mut url = self.base.clone();
        url.set_path(&format!("/v2/{}/{}", ask.repository, ask.path));
        let request = || {
            let request = self.http.request(ask.method.clone(), url.clone());
            match &ask.index {
                Some(index) => request.header(CONTENT_TYPE, INDEX).body(index.clone()),
                None => request,
            }
        };
        let first = request().send().await.map_err(http)?;
        if first.status() != StatusCode::UNAUTHORIZED {
            return Ok(first);
        }
        let challenge = first.headers().get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
        let refused = RegistryError::Refused { doing, status: StatusCode::UNAUTHORIZED };
        let Some((realm, service)) = challenge.and_then(challenged) else { return Err(refused) };
        let claims = Claims {
            project,
            holder: "builder-scheduler".to_owned(),
            access: Access::Full,
            expires_at: now + TimeDelta::minutes(5),
        };
        let scope = format!("repository:{}:pull,push,delete", ask.repository);
        let realm = Url::parse_with_params(&realm, [("service", service.as_str()), ("scope", scope.as_str())])
            .map_err(|error| RegistryError::Setup(error.to_string()))?;
        let password = self.minter.mint(&claims);
        let asked = self.http.get(realm).basic_auth(Minter::username(&claims), Some(password.reveal()));
        let answer = asked.send().await.map_err(http)?;
        if !answer.status().is_success() {
            return Err(RegistryError::Refused { doing: "get a registry token", status: answer.status() });
        }
        let token: Token = answer.json().await.map_err(http)?;
        request().bearer_auth(token.token).send().await.map_err(http)
    }
}

fn done(doing: &'static str, status: StatusCode) -> Result<(), RegistryError> {
    if status.is_success() || status == StatusCode::NOT_FOUND {
        Ok(())
    } else {
        Err(RegistryError::Refused { doing, status })
    }
}

/// Realm and service of `Bearer realm="…",service="…",scope="…"`.
fn challenged(header: &str) -> Option<(String, String)> {
    let rest = header.strip_prefix("Bearer ").or_else(|| header.strip_prefix("bearer "))?;
    let value = |name: &str| {
        let (_, after) = rest.split_once(&format!("{name}=\""))?;
        after.split_once('"').map(|(value, _)| value.to_owned())
    };
    Some((value("realm")?, value("service").unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::challenged;

    #[test]
    fn a_challenge_names_realm_and_service() {
        let header =
            "Bearer realm=\"https://api/registry/token\",service=\"registry\",scope=\"repository:a/b:pull,push\"";
        let expected = ("https://api/registry/token".to_owned(), "registry".to_owned());
        assert_eq!(challenged(header), Some(expected));
        assert_eq!(challenged("Basic realm=\"x\""), None);
    }
}
