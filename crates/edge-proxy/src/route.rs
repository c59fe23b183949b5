//! The map of hosts, and the way from a path to an exposure.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use papaya::HashMap;
use stagely_cache::{Cache, RouteChange};
use stagely_domain::route::{Entry, Target};
use stagely_runtime::admin::Health;
use tokio_util::sync::CancellationToken;

/// How often it is asked whether there is a whole copy to begin with.
const FEED_CHECK: Duration = Duration::from_millis(200);

/// Hosts and their entries, shared by all cores.
#[derive(Default)]
pub struct Routes {
    known: HashMap<Box<str>, Arc<Entry>>,
    whole: AtomicBool,
}

impl Routes {
    /// The entry of a lower-case host without port.
    pub fn find(&self, host: &str) -> Option<Arc<Entry>> {
        self.known.pin().get(host).cloned()
    }

    /// Takes an entry in, unless a newer one is known.
    pub fn put(&self, entry: Entry) {
        let (host, entry) = (entry.host.clone().into_boxed_str(), Arc::new(entry));
        self.known.pin().update_or_insert(
            host,
            |known| if known.version < entry.version { Arc::clone(&entry) } else { Arc::clone(known) },
            Arc::clone(&entry),
        );
    }

    /// How many there are, and the highest version.
    pub fn stats(&self) -> (usize, u64) {
        let pinned = self.known.pin();
        (pinned.len(), pinned.values().map(|entry| entry.version).max().unwrap_or(0))
    }

    /// Whether all that there are were read once: only then is a host that is missing no preview's.
    pub fn are_whole(&self) -> bool {
        self.whole.load(Ordering::Acquire)
    }

    /// Follows the copy in Redis until shutdown, and says that we are ready when all of it was read once. Hosts that a
    /// later snapshot lacks are kept: Redis may just have lost them.
    pub async fn follow(&self, cache: Cache, health: Health, shutdown: CancellationToken) {
        // A Redis that lost everything knows no hosts and does not answer for that: the control plane fills it again.
        while !matches!(cache.routes_marker().await, Ok(Some(_))) {
            tokio::select! {
                () = tokio::time::sleep(FEED_CHECK) => {}
                () = shutdown.cancelled() => return,
            }
        }
        let mut feed = cache.subscribe_routes(shutdown);
        while let Some(change) = feed.next().await {
            match change {
                RouteChange::Snapshot(entries) => {
                    entries.into_iter().for_each(|entry| self.put(entry));
                    health.set_ready(true);
                    if !self.whole.swap(true, Ordering::AcqRel) {
                        tracing::info!("{} hosts are known", self.known.len());
                    }
                }
                RouteChange::Entry(entry) => self.put(entry),
            }
        }
    }
}

/// The exposure that serves a path: the longest rule that is a whole-segment prefix of it.
pub fn exposure<'t>(target: &'t Target, path: &str) -> Option<&'t str> {
    let fits = |rule: &str| {
        let rule = rule.trim_end_matches('/');
        path.strip_prefix(rule).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let best =
        target.rules.iter().filter(|rule| fits(&rule.path)).max_by_key(|rule| rule.path.trim_end_matches('/').len());
    best.map(|rule| rule.exposure.as_str())
}

#[cfg(test)]
mod tests {
    use super::exposure;
    use stagely_domain::id::MachineId;
    use stagely_domain::route::{Rule, Target};

    #[test]
    fn the_longest_whole_segment_prefix_wins() {
        let rule = |path: &str| Rule { path: path.into(), exposure: path.into() };
        let rules = vec![rule("/"), rule("/api"), rule("/api/v2/")];
        let target = Target { machine: MachineId::generate(), address: String::new(), rules };
        for (path, wanted) in
            [("/", "/"), ("/apix", "/"), ("/api", "/api"), ("/api/v1", "/api"), ("/api/v2/x", "/api/v2/")]
        {
            assert_eq!(exposure(&target, path), Some(wanted), "{path}");
        }
    }
}
