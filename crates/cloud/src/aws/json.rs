//! Calls of services that speak JSON 1.1, signed by ourselves: the few that are asked one thing each.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use reqwest::{Client, Response};
use serde_json::Value;
use stagely_domain::clock::Clock;

use crate::aws::actions::Action;
use crate::aws::{Config, refusal};
use crate::{CloudError, ErrorKind, Result};

const TYPE: &str = "application/x-amz-json-1.1";
/// No answer is longer that we ask for.
const LONGEST: usize = 16 * 1024 * 1024;

/// One service in one region.
pub(super) struct Json {
    client: Client,
    url: String,
    region: String,
    service: &'static str,
    clock: Arc<dyn Clock>,
}

impl Json {
    /// The service at `url`, unless the account's settings send everything elsewhere.
    pub(super) fn new(
        config: &Config,
        service: &'static str,
        region: &str,
        url: &str,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let client = Client::builder()
            .user_agent("stagely")
            .connect_timeout(config.timing.request.min(Duration::from_secs(5)))
            .timeout(config.timing.request)
            // A signature must not follow a redirect to another host.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| CloudError::new(ErrorKind::Invalid, "set up the client", error.to_string()))?;
        let url = config.endpoint.as_deref().unwrap_or(url).trim_end_matches('/');
        Ok(Self { client, url: format!("{url}/"), region: region.to_owned(), service, clock })
    }

    /// The answer to one request.
    pub(super) async fn call(
        &self,
        doing: &'static str,
        action: &Action,
        target: &str,
        credentials: Credentials,
        body: &Value,
    ) -> Result<Value> {
        let body = body.to_string();
        let unsigned = |_| CloudError::new(ErrorKind::Invalid, doing, "the request could not be signed");
        let headers = self.signed(credentials, target, &body).map_err(unsigned)?;
        let mut request = self.client.post(&self.url).header("content-type", TYPE).header("x-amz-target", target);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let broken = |error: reqwest::Error| {
            let kind = if error.is_timeout() { ErrorKind::Timeout } else { ErrorKind::Unavailable };
            CloudError::new(kind, doing, format!("{}: no answer", action.permission))
        };
        let response = request.body(body).send().await.map_err(broken)?;
        let status = response.status();
        let answer: Value = match read(response).await.map_err(broken)? {
            Some(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
            None => Value::Null,
        };
        if !status.is_success() {
            // `com.amazonaws.ssm#InternalServerError`, or the part after the hash alone.
            let code = answer["__type"].as_str().and_then(|code| code.rsplit('#').next());
            let message = answer["message"].as_str().or(answer["Message"].as_str());
            return Err(refusal::told(doing, action, status.as_u16(), code, message));
        }
        if answer.is_object() { Ok(answer) } else { Err(garbled(doing, action)) }
    }

    fn signed(
        &self,
        credentials: Credentials,
        target: &str,
        body: &str,
    ) -> std::result::Result<Vec<(String, String)>, String> {
        let identity = credentials.into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(self.service)
            .time(SystemTime::from(self.clock.now()))
            .settings(SigningSettings::default())
            .build()
            .map_err(|error| error.to_string())?
            .into();
        let headers = [("content-type", TYPE), ("x-amz-target", target)];
        let request =
            SignableRequest::new("POST", &*self.url, headers.into_iter(), SignableBody::Bytes(body.as_bytes()))
                .map_err(|error| error.to_string())?;
        let (instructions, _) = sign(request, &parameters).map_err(|error| error.to_string())?.into_parts();
        Ok(instructions.headers().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}

/// What an answer is that none of ours can be.
pub(super) fn garbled(doing: &'static str, action: &Action) -> CloudError {
    CloudError::new(ErrorKind::Protocol, doing, format!("{}: an answer that is none", action.permission))
}

/// The whole body; none when it is longer than any should be.
async fn read(mut response: Response) -> std::result::Result<Option<Vec<u8>>, reqwest::Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if bytes.len() + chunk.len() > LONGEST {
            return Ok(None);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Some(bytes))
}
