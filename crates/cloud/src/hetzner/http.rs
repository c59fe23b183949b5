//! Requests: the credential, deadlines, the allowance, bounded answers, pages, and actions to their end.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Client, Method, Response, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use stagely_domain::clock::Clock;
use stagely_domain::secret::Secret;
use tokio::time::{Instant, sleep};

use crate::hetzner::budget::{Budget, Need};
use crate::hetzner::wire::{Action, Refusal};
use crate::hetzner::{Config, Timing, refusal};
use crate::{CloudError, ErrorKind, Result};

const MAX_ANSWER: usize = 8 * 1024 * 1024;
/// The most that the provider gives at once.
const PER_PAGE: &str = "50";
/// More pages than an account can fill: a list that never ends is an error.
const MAX_PAGES: u32 = 400;
/// The longest wait that a refusal for haste asks for: the reset that it names is when *all* requests are back, while
/// the first is back after a second.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// The wait when the refusal says nothing.
const PAUSE: Duration = Duration::from_secs(10);

pub(super) struct Http {
    client: Client,
    base: String,
    token: Secret,
    clock: Arc<dyn Clock>,
    budget: Budget,
    timing: Timing,
}

/// A request beyond its path.
#[derive(Default, Clone, Copy)]
pub(super) struct Ask<'a> {
    query: &'a [(&'a str, &'a str)],
    body: Option<&'a Value>,
}

/// How an action ended, if it did.
#[derive(Debug)]
pub(super) enum Progress {
    Done,
    /// It still goes on, or nothing is known of it: look again later.
    Going,
    /// It ended without its effect, for this reason.
    Failed(CloudError),
}

#[derive(Deserialize)]
struct ErrorBody {
    #[serde(default)]
    error: Option<Refusal>,
}

impl Http {
    pub(super) fn new(config: &Config, clock: Arc<dyn Clock>) -> Result<Self> {
        let client = Client::builder()
            .user_agent("stagely")
            .connect_timeout(config.timing.request.min(Duration::from_secs(5)))
            .timeout(config.timing.request)
            // The token must not follow a redirect to another host.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| CloudError::new(ErrorKind::Invalid, "set up the client", error.to_string()))?;
        let (token, timing) = (config.token.clone(), config.timing);
        Ok(Self { client, base: checked_base(&config.api_url)?, token, clock, budget: Budget::new(), timing })
    }

    /// One resource, or anything that is read.
    pub(super) async fn get(&self, doing: &'static str, path: &str, query: &[(&str, &str)]) -> Result<Value> {
        let ask = Ask { query, body: None };
        self.call(doing, Method::GET, path, ask, Need::Free).await
    }

    /// Makes or changes something.
    pub(super) async fn post(&self, doing: &'static str, path: &str, body: &impl Serialize) -> Result<Value> {
        let body = serde_json::to_value(body)
            .map_err(|error| CloudError::new(ErrorKind::Invalid, doing, error.to_string()))?;
        let ask = Ask { query: &[], body: Some(&body) };
        self.call(doing, Method::POST, path, ask, Need::Make).await
    }

    /// Tells a machine to do something that takes no words.
    pub(super) async fn act(&self, doing: &'static str, path: &str) -> Result<Value> {
        self.call(doing, Method::POST, path, Ask::default(), Need::Make).await
    }

    /// Removes something; `None` when it was not there.
    pub(super) async fn delete(&self, doing: &'static str, path: &str) -> Result<Option<Value>> {
        match self.call(doing, Method::DELETE, path, Ask::default(), Need::Free).await {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every page of a list; `key` is its name in the answer. Any failed page fails the whole.
    pub(super) async fn list<T: DeserializeOwned>(
        &self,
        doing: &'static str,
        key: &str,
        query: &[(&str, &str)],
    ) -> Result<Vec<T>> {
        let (mut items, mut page) = (Vec::new(), 1_u64);
        for _ in 0..MAX_PAGES {
            let number = page.to_string();
            let query: Vec<_> = query.iter().copied().chain([("page", &*number), ("per_page", PER_PAGE)]).collect();
            let mut answer = self.get(doing, key, &query).await?;
            let next = answer.pointer("/meta/pagination/next_page").and_then(Value::as_u64);
            let found: Vec<T> = parse(doing, answer.get_mut(key).map(Value::take).unwrap_or_default())?;
            items.extend(found);
            match next {
                // Only forward: a list that turns in a circle is broken.
                Some(next) if next > page => page = next,
                Some(_) => return Err(CloudError::new(ErrorKind::Protocol, doing, "its pages turn in a circle")),
                None => return Ok(items),
            }
        }
        Err(CloudError::new(ErrorKind::Protocol, doing, "its pages do not end"))
    }

    /// Follows the action that `answer` holds under `action`, for a while.
    ///
    /// # Errors
    /// When it cannot be asked about. That it failed is no error of the asking.
    pub(super) async fn follow(&self, doing: &'static str, answer: &Value) -> Result<Progress> {
        // Without an action in the answer there is nothing to follow; what it did is seen by looking.
        let Ok(mut action) = Action::deserialize(&answer["action"]) else { return Ok(Progress::Going) };
        let (until, mut pause) = (Instant::now() + self.timing.action, self.timing.poll);
        loop {
            match action.status.as_str() {
                "success" => return Ok(Progress::Done),
                "error" => {
                    let error = refusal::error(doing, 0, &action.error.unwrap_or_default());
                    return Ok(Progress::Failed(CloudError { message: shown(&error.message, &self.token), ..error }));
                }
                _ if Instant::now() + pause > until => return Ok(Progress::Going),
                _ => {}
            }
            sleep(pause).await;
            pause = (pause * 2).min(self.timing.poll * 5);
            let id = action.id.to_string();
            let mut answer = self.get(doing, "actions", &[("id", &id)]).await?;
            let mut found: Vec<Action> = parse(doing, answer["actions"].take())?;
            match found.pop() {
                Some(next) => action = next,
                None => return Ok(Progress::Going),
            }
        }
    }

    async fn call(&self, doing: &'static str, method: Method, path: &str, ask: Ask<'_>, need: Need) -> Result<Value> {
        self.budget.take(need).map_err(|wait| {
            let kind = ErrorKind::RateLimited { retry_after: Some(wait) };
            CloudError::new(kind, doing, "the account's requests are used up")
        })?;
        let changes = method != Method::GET;
        let mut request = self
            .client
            .request(method, format!("{}/{path}", self.base))
            .bearer_auth(self.token.reveal())
            .query(ask.query);
        if let Some(body) = ask.body {
            request = request.json(body);
        }
        let outcome = match request.send().await {
            Ok(response) => self.answer(doing, response).await,
            Err(error) => Err(unanswered(doing, &error)),
        };
        // What failed on our side of the line, or was refused with a reason, had no effect; of the rest nobody knows.
        outcome.map_err(|error| if changes { error } else { CloudError { ambiguous: false, ..error } })
    }

    async fn answer(&self, doing: &'static str, response: Response) -> Result<Value> {
        let (status, headers) = (response.status(), response.headers().clone());
        self.budget.learn(number(&headers, "ratelimit-limit"), number(&headers, "ratelimit-remaining"));
        let body = read(doing, response).await;
        if status.is_success() {
            return match body?.as_slice() {
                [] if status == StatusCode::NO_CONTENT => Ok(Value::Null),
                bytes => serde_json::from_slice(bytes).map_err(|_| {
                    CloudError::new(ErrorKind::Protocol, doing, "its answer is no JSON, or only a part").ambiguous()
                }),
            };
        }
        // Whatever stands in the way may answer in HTML.
        let said = body.ok().and_then(|bytes| serde_json::from_slice::<ErrorBody>(&bytes).ok());
        let mut error = refusal::error(doing, status.as_u16(), &said.and_then(|said| said.error).unwrap_or_default());
        if let ErrorKind::RateLimited { retry_after } = &mut error.kind {
            let wait = self.pause(&headers);
            *retry_after = Some(wait);
            self.budget.close(wait);
        }
        error.message = shown(&error.message, &self.token);
        error.ambiguous = status.is_server_error() && error.kind != ErrorKind::Capacity;
        Err(error)
    }

    /// How long a refusal for haste asks to wait.
    fn pause(&self, headers: &HeaderMap) -> Duration {
        let after = number(headers, "retry-after");
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far from 2^53")]
        let reset = number(headers, "ratelimit-reset").map(|at| at - self.clock.now().timestamp() as f64);
        let seconds = after.or(reset).unwrap_or(PAUSE.as_secs_f64());
        Duration::from_secs_f64(seconds.clamp(1.0, MAX_PAUSE.as_secs_f64()))
    }

    pub(super) const fn timing(&self) -> Timing {
        self.timing
    }
}

/// Reads what is there in the form that it should have.
pub(super) fn parse<T: DeserializeOwned>(doing: &'static str, value: Value) -> Result<T> {
    // The reason may quote the answer, and with it what is secret: it is not told.
    serde_json::from_value(value)
        .map_err(|_| CloudError::new(ErrorKind::Protocol, doing, "its answer lacks what must be in it"))
}

/// The base URL without a slash at its end; only loopback is spoken to without TLS.
fn checked_base(url: &str) -> Result<String> {
    let invalid = |message: &str| CloudError::new(ErrorKind::Invalid, "set up the client", message);
    let parsed = Url::parse(url).map_err(|_| invalid("the API's address is no URL"))?;
    let host = parsed.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match parsed.scheme() {
        "https" => Ok(url.trim_end_matches('/').to_owned()),
        "http" if loopback => Ok(url.trim_end_matches('/').to_owned()),
        _ => Err(invalid("the API's address must begin with https://")),
    }
}

fn unanswered(doing: &'static str, error: &reqwest::Error) -> CloudError {
    let (kind, message) = match (error.is_timeout(), error.is_connect()) {
        (true, _) => (ErrorKind::Timeout, "no answer in time"),
        (_, true) => (ErrorKind::Unavailable, "no connection"),
        _ => (ErrorKind::Unavailable, "the connection broke"),
    };
    let failed = CloudError::new(kind, doing, message);
    if error.is_connect() || error.is_builder() { failed } else { failed.ambiguous() }
}

async fn read(doing: &'static str, mut response: Response) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| unanswered(doing, &error))? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MAX_ANSWER {
            return Err(CloudError::new(ErrorKind::Protocol, doing, "its answer is too long").ambiguous());
        }
    }
    Ok(bytes)
}

fn number(headers: &HeaderMap, name: &str) -> Option<f64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok().filter(|number: &f64| number.is_finite())
}

/// A message for people: short, in one line, and without the token, whoever repeats it.
fn shown(message: &str, token: &Secret) -> String {
    let mut message = message.replace(char::is_control, " ");
    if !token.is_empty() {
        message = message.replace(token.reveal(), "***");
    }
    message.chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::checked_base;

    #[test]
    fn the_token_leaves_this_host_only_encrypted() {
        for good in ["https://api.example/v1/", "http://127.0.0.1:1/v1", "http://localhost:1", "http://[::1]:1"] {
            assert_eq!(checked_base(good).unwrap(), good.trim_end_matches('/'));
        }
        for bad in ["http://api.example/v1", "http://127.0.0.1.example", "ftp://127.0.0.1", "api.example", ""] {
            assert!(checked_base(bad).is_err(), "{bad}");
        }
    }
}
