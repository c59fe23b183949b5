//! Requests, and what is this provider's own in them: pages, and actions to their end.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use stagely_domain::clock::Clock;
use tokio::time::{Instant, sleep};

use crate::hetzner::wire::Action;
use crate::hetzner::{Config, Timing, refusal};
use crate::rest::{self, Rest, parse};
use crate::{CloudError, ErrorKind, Result};

/// What a project may ask per hour until the provider says otherwise.
const PER_HOUR: u32 = 3600;
/// The reset that a refusal for haste names is when *all* requests are back, while the first is back after a second.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// The most that the provider gives at once.
const PER_PAGE: &str = "50";
/// More pages than an account can fill: a list that never ends is an error.
const MAX_PAGES: u32 = 400;

#[derive(Clone)]
pub(super) struct Http {
    rest: Rest,
    timing: Timing,
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

impl Http {
    pub(super) fn new(config: &Config, clock: Arc<dyn Clock>) -> Result<Self> {
        let timing = config.timing;
        let rest = rest::Config {
            api_url: &config.api_url,
            token: &config.token,
            timeout: timing.request,
            per_hour: PER_HOUR,
            per_minute: None,
            max_pause: MAX_PAUSE,
            refusal: refusal::read,
        };
        Ok(Self { rest: Rest::new(&rest, clock)?, timing })
    }

    /// The same for who removes something, whose looks are taken from what is kept for deletes.
    pub(super) fn removing(&self) -> Self {
        Self { rest: self.rest.removing(), timing: self.timing }
    }

    /// Every page of a list; `key` is its name in the answer. Any failed page fails the whole, and so
    /// does a list that does not stand still.
    pub(super) async fn list<T: DeserializeOwned>(
        &self,
        doing: &'static str,
        key: &str,
        query: &[(&str, &str)],
    ) -> Result<Vec<T>> {
        self.list_under(doing, key, key, query).await
    }

    /// The same where the path is more than the name.
    pub(super) async fn list_under<T: DeserializeOwned>(
        &self,
        doing: &'static str,
        path: &str,
        key: &str,
        query: &[(&str, &str)],
    ) -> Result<Vec<T>> {
        rest::settled(doing, || self.read_list(doing, path, key, query)).await
    }

    /// `None` when something moved between its pages.
    async fn read_list<T: DeserializeOwned>(
        &self,
        doing: &'static str,
        path: &str,
        key: &str,
        query: &[(&str, &str)],
    ) -> Result<Option<Vec<T>>> {
        let broken = |message: &str| CloudError::new(ErrorKind::Protocol, doing, message);
        let (mut items, mut page, mut said) = (Vec::new(), 1_u64, None);
        for _ in 0..MAX_PAGES {
            let number = page.to_string();
            let query: Vec<_> = query.iter().copied().chain([("page", &*number), ("per_page", PER_PAGE)]).collect();
            let mut answer = self.get_page(doing, path, &query, page == 1).await?;
            let total = answer.pointer("/meta/pagination/total_entries").and_then(Value::as_u64);
            if *said.get_or_insert(total) != total {
                return Ok(None);
            }
            let next = answer.pointer("/meta/pagination/next_page").and_then(Value::as_u64);
            let found: Vec<T> = parse(doing, answer.get_mut(key).map(Value::take).unwrap_or_default())?;
            items.extend(found);
            match next {
                // Only forward: a list that turns in a circle is broken.
                Some(next) if next > page => page = next,
                Some(_) => return Err(broken("its pages turn in a circle")),
                None if total.is_some_and(|total| total > items.len() as u64) => {
                    return Err(broken("it is shorter than it says"));
                }
                None => return Ok(Some(items)),
            }
        }
        Err(broken("its pages do not end"))
    }

    /// Follows the action that `answer` holds under `action`, for a while.
    ///
    /// # Errors
    /// When it cannot be asked about. That it failed is no error of the asking.
    pub(super) async fn follow(&self, doing: &'static str, answer: &Value) -> Result<Progress> {
        self.follow_until(doing, &answer["action"], Instant::now() + self.timing.action).await
    }

    /// The same, and then of its `next_actions` the one with this command, all in the same time.
    ///
    /// # Errors
    /// As with [`Self::follow`].
    pub(super) async fn follow_to(&self, doing: &'static str, answer: &Value, command: &str) -> Result<Progress> {
        let until = Instant::now() + self.timing.action;
        let progress = self.follow_until(doing, &answer["action"], until).await?;
        let mut next = answer["next_actions"].as_array().into_iter().flatten();
        match next.find(|next| next["command"] == command) {
            Some(next) if matches!(progress, Progress::Done) => self.follow_until(doing, next, until).await,
            _ => Ok(progress),
        }
    }

    async fn follow_until(&self, doing: &'static str, action: &Value, until: Instant) -> Result<Progress> {
        // Without an action in the answer there is nothing to follow; what it did is seen by looking.
        let Ok(mut action) = Action::deserialize(action) else { return Ok(Progress::Going) };
        let mut pause = self.timing.poll;
        loop {
            match action.status.as_str() {
                "success" => return Ok(Progress::Done),
                "error" => {
                    let error = refusal::error(doing, 0, &action.error.unwrap_or_default());
                    return Ok(Progress::Failed(CloudError { message: self.shown(&error.message), ..error }));
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

    pub(super) const fn timing(&self) -> Timing {
        self.timing
    }
}

impl Deref for Http {
    type Target = Rest;

    fn deref(&self) -> &Rest {
        &self.rest
    }
}
