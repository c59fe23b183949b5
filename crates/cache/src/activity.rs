//! Hints from the edge: who was visited, who is to wake.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use fred::interfaces::{HashesInterface, SetsInterface};
use stagely_domain::id::EnvironmentId;

use crate::{Cache, Result, failed};

const SEEN: &str = "seen";
const WAKES: &str = "wakes";

impl Cache {
    /// Says that these environments were visited just before `now`.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn touch_seen(&self, environments: &[EnvironmentId], now: DateTime<Utc>) -> Result<()> {
        if environments.is_empty() {
            return Ok(());
        }
        let fields: Vec<(String, i64)> =
            environments.iter().map(|id| (id.to_string(), now.timestamp_millis())).collect();
        self.client.hset::<(), _, _>(self.key(SEEN), fields).await.map_err(|error| failed("note visits", error))
    }

    /// The last visit of each environment that had one since it was forgotten with [`Cache::forget_seen`].
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn list_seen(&self) -> Result<Vec<(EnvironmentId, DateTime<Utc>)>> {
        let all: HashMap<String, i64> =
            self.client.hgetall(self.key(SEEN)).await.map_err(|error| failed("read visits", error))?;
        let parsed = all.into_iter().map(|(id, at)| Some((id.parse().ok()?, DateTime::from_timestamp_millis(at)?)));
        Ok(parsed.flatten().collect())
    }

    /// Forgets an environment's visits, once they are in Postgres.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn forget_seen(&self, environments: &[EnvironmentId]) -> Result<()> {
        if environments.is_empty() {
            return Ok(());
        }
        let fields: Vec<String> = environments.iter().map(ToString::to_string).collect();
        self.client.hdel::<(), _, _>(self.key(SEEN), fields).await.map_err(|error| failed("forget visits", error))
    }

    /// Asks for an environment to be woken.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn request_wake(&self, environment: EnvironmentId) -> Result<()> {
        let added = self.client.sadd::<(), _, _>(self.key(WAKES), environment.to_string()).await;
        added.map_err(|error| failed("ask for a wake-up", error))
    }

    /// The environments that are asked to wake. They stay until [`Cache::forget_wakes`].
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn list_wakes(&self) -> Result<Vec<EnvironmentId>> {
        let all: Vec<String> =
            self.client.smembers(self.key(WAKES)).await.map_err(|error| failed("read wake-ups", error))?;
        Ok(all.iter().filter_map(|id| id.parse().ok()).collect())
    }

    /// Forgets wake-ups that were acted on.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn forget_wakes(&self, environments: &[EnvironmentId]) -> Result<()> {
        if environments.is_empty() {
            return Ok(());
        }
        let members: Vec<String> = environments.iter().map(ToString::to_string).collect();
        self.client.srem::<(), _, _>(self.key(WAKES), members).await.map_err(|error| failed("forget wake-ups", error))
    }
}
