//! The copy of the routes in Redis. Key: an environment's id, or nil for all.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use stagely_domain::id::EnvironmentId;
use stagely_reconcile::{Claim, ErrorClass, Reconciler, Step, StepError};
use stagely_store::work::kind;

use crate::context::{Context, store_error};

/// How often all routes are compared, and how often Redis is asked whether it still has them.
const RECHECK: Duration = Duration::from_secs(2);

pub struct Routes(pub Arc<Context>);

#[async_trait]
impl Reconciler for Routes {
    const KIND: &'static str = kind::ROUTE;

    async fn reconcile(&self, claim: &Claim) -> Result<Step, StepError> {
        if !claim.fence.key.is_nil() {
            publish(&self.0, EnvironmentId::from_uuid(claim.fence.key)).await?;
            return Ok(Step::Done);
        }
        let doing = "make the routes whole";
        let marker = self.0.cache.routes_marker().await.map_err(cache_error(doing))?;
        let (entries, version) = self.0.store.list_routes().await.map_err(store_error(doing))?;
        if marker != Some(version) {
            let written = self.0.cache.rebuild_routes(&entries, version).await.map_err(cache_error(doing))?;
            if marker.is_none() && written > 0 {
                tracing::warn!(routes = entries.len(), "Redis had lost the routes; they were written again");
            }
        }
        Ok(Step::Again(RECHECK))
    }
}

/// Copies an environment's routes now.
pub async fn publish(context: &Context, env: EnvironmentId) -> Result<(), StepError> {
    let entries = context.store.list_environment_routes(env).await.map_err(store_error("copy routes"))?;
    context.cache.publish_routes(&entries).await.map(drop).map_err(cache_error("copy routes"))
}

fn cache_error(doing: &'static str) -> impl FnOnce(stagely_cache::CacheError) -> StepError {
    move |error| StepError::new(ErrorClass::Transient, doing, error).never_parks()
}
